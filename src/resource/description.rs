//! The file that describes a resource, as TOML in JSON Schema's vocabulary: its form. `check` has every fault that can be found in
//! it without a database, `definition` makes of it what requests work with.

use std::collections::BTreeSet;
use std::fmt;

use indexmap::IndexMap;
use serde::Deserialize;
use toml::Spanned;
use unicode_normalization::UnicodeNormalization;

/// What can be done with a resource.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Operation {
    /// `GET` of many rows.
    List,
    /// `GET` of one row.
    Read,
    /// `POST` of one row.
    Create,
    /// `PUT`
    Replace,
    /// `PATCH`
    Patch,
    /// `DELETE`
    Delete,
    /// `POST` of many rows.
    Bulk,
    /// `GET` of groups.
    Statistics,
}

impl Operation {
    /// Every operation.
    pub const ALL: [Self; 8] =
        [Self::List, Self::Read, Self::Create, Self::Replace, Self::Patch, Self::Delete, Self::Bulk, Self::Statistics];
}

/// A file.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Description {
    /// The resource: the URL is `/v1/<name>`, the table has the same name with `_` for `-`.
    pub name: Spanned<String>,
    /// One of them, in messages; the name without its last `s` unless it is given.
    pub singular: Option<String>,
    /// A heading for people.
    pub title: Option<String>,
    /// A sentence for people.
    pub description: Option<String>,
    /// What can be done; everything unless it is given.
    pub operations: Option<BTreeSet<Operation>>,
    /// Whether every change of a row is kept: who made it, when, and what was there before.
    #[serde(default)]
    pub history: bool,
    /// The columns, in the order of the keys of a row in JSON.
    pub column: Vec<Spanned<ColumnDescription>>,
    /// Groups and numbers about them.
    pub statistics: Option<Spanned<Statistics>>,
    /// Further URLs of the same operations.
    #[serde(default)]
    pub urls: Urls,
    /// What a fresh table is filled with.
    pub seed: Option<Seed>,
    /// Lists of words for made-up rows.
    #[serde(default)]
    pub words: IndexMap<String, Vec<String>>,
}

/// A column.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct ColumnDescription {
    /// The key in JSON, the header in CSV, and the name in filters.
    pub name: String,
    /// `boolean`, `integer`, `number`, `decimal(precision,scale)` or `string`.
    pub r#type: String,
    /// Of an integer `int16`, `int32` or `int64`; of a string `date`, `date-time` or `uuid`.
    pub format: Option<String>,
    /// Whether a value may be null.
    #[serde(default)]
    pub nullable: bool,
    /// Whether a row must name the column; only one that may be null or has a default can be left out.
    pub required: Option<bool>,
    /// The value of rows that do not name the column.
    pub default: Option<toml::Value>,
    /// The least value.
    pub minimum: Option<toml::Value>,
    /// The greatest value.
    pub maximum: Option<toml::Value>,
    /// The least number of characters.
    pub min_length: Option<u32>,
    /// The greatest number of characters.
    pub max_length: Option<u32>,
    /// A regular expression that each text must match somewhere.
    pub pattern: Option<String>,
    /// Every value that is possible.
    pub r#enum: Option<Vec<toml::Value>>,
    /// The name under which an enumeration stands in the OpenAPI document.
    pub schema: Option<String>,
    /// What the values mean.
    pub description: Option<String>,
    /// What the values are counted in.
    pub unit: Option<String>,
    /// Values for the documentation.
    #[serde(default)]
    pub examples: Vec<toml::Value>,
    /// `true` for lists that are ordered and filtered quickly at any size; "trigram" for patterns as well.
    pub index: Option<Index>,
    /// Other headers in CSV that mean this column.
    #[serde(default)]
    pub csv: Vec<String>,
    /// How made-up rows are filled.
    pub generate: Option<Generate>,
}

/// Which index a column has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(untagged)]
pub enum Index {
    /// For orders and comparisons, or none.
    Ordered(bool),
    /// For patterns, too.
    Named(IndexName),
}

/// Indexes that have a name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum IndexName {
    /// Of all sequences of three characters.
    Trigram,
}

/// How made-up values of a column are drawn.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Generate {
    /// How many of a hundred values are null.
    #[serde(default)]
    pub null_percent: u8,
    /// One of these; a value that is listed twice is drawn twice as often.
    #[serde(default)]
    pub values: Vec<toml::Value>,
    /// Texts in which `{name}` is a word of the list of that name.
    #[serde(default)]
    pub templates: Vec<String>,
    /// The least number.
    pub minimum: Option<f64>,
    /// The greatest number.
    pub maximum: Option<f64>,
    /// The distance of the numbers.
    pub step: Option<f64>,
}

/// Numbers about groups of rows.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Statistics {
    /// Columns that rows may be grouped by.
    pub by: Vec<String>,
    /// Each with its key in the answer: `count(column)` of a boolean, `rate(column)` of a boolean, `mean(column)`,
    /// `sum(column)`, `min(column)` or `max(column)` of numbers.
    #[serde(default)]
    pub measures: IndexMap<String, String>,
}

/// Further URLs of the same operations.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Urls {
    /// Of the whole list.
    pub list: Option<String>,
    /// Of creation.
    pub create: Option<String>,
    /// Of one row; ends in `{uuid}`, as the next ones do.
    pub read: Option<String>,
    /// Of replacement.
    pub replace: Option<String>,
    /// Of deletion.
    pub delete: Option<String>,
}

/// What a fresh table is filled with.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Seed {
    /// A CSV file beside the description, or in the folder `data` of the built-in ones.
    pub file: String,
}

/// What is wrong with a description.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// Where, counted from 1.
    pub line: usize,
    /// What, and what to do.
    pub message: String,
}

impl fmt::Display for Fault {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "line {}: {}", self.line, self.message)
    }
}

/// The line of a byte, counted from 1.
pub fn line_at(text: &str, offset: usize) -> usize {
    text.as_bytes()[..offset.min(text.len())].iter().filter(|byte| **byte == b'\n').count() + 1
}

/// What is left of a header in CSV: case and punctuation do not count, nor whether a letter and its marks are one character (NFC).
pub fn header_key(name: &str) -> String {
    name.nfc().filter(|letter| letter.is_alphanumeric()).flat_map(char::to_lowercase).collect()
}
