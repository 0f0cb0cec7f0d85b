//! The structure of the TOML file that describes a resource in JSON Schema's vocabulary. `check` finds every error that can be
//! found without a database, and `definition` builds from it what requests use.

use std::collections::BTreeSet;
use std::fmt;

use indexmap::IndexMap;
use serde::Deserialize;
use toml::Spanned;
use unicode_normalization::UnicodeNormalization;

/// An operation on a resource.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Operation {
    /// `GET` many rows.
    List,
    /// `GET` one row.
    Read,
    /// `POST` one row.
    Create,
    /// `PUT`
    Replace,
    /// `PATCH`
    Patch,
    /// `DELETE`
    Delete,
    /// `POST` many rows.
    Bulk,
    /// `GET` groups of rows.
    Statistics,
}

impl Operation {
    /// Every operation.
    pub const ALL: [Self; 8] =
        [Self::List, Self::Read, Self::Create, Self::Replace, Self::Patch, Self::Delete, Self::Bulk, Self::Statistics];
}

/// A description file.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Description {
    /// The name of the resource: the URL is `/v1/<name>`, and the table has the same name with `_` instead of `-`.
    pub name: Spanned<String>,
    /// The name of one row, for messages; defaults to the name without its final `s`.
    pub singular: Option<String>,
    /// A heading.
    pub title: Option<String>,
    /// A sentence that describes a row.
    pub description: Option<String>,
    /// The operations offered; defaults to all.
    pub operations: Option<BTreeSet<Operation>>,
    /// Whether every change of a row is recorded: the actor, the time, and the previous values.
    #[serde(default)]
    pub history: bool,
    /// The columns, in the order of the keys in JSON.
    pub column: Vec<Spanned<ColumnDescription>>,
    /// Grouping columns and measures.
    pub statistics: Option<Spanned<Statistics>>,
    /// Additional URLs of the same operations.
    pub urls: Option<Spanned<Urls>>,
    /// The initial rows of a new table.
    pub seed: Option<Seed>,
    /// Word lists for generated rows.
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
    /// `int16`, `int32` or `int64` for an integer; `date`, `date-time` or `uuid` for a string.
    pub format: Option<String>,
    /// Whether a value may be null.
    #[serde(default)]
    pub nullable: bool,
    /// Whether a row must contain the column; only a nullable column or one with a default can be optional.
    pub required: Option<bool>,
    /// The value of rows that do not contain the column.
    pub default: Option<toml::Value>,
    /// The minimum value.
    pub minimum: Option<toml::Value>,
    /// The maximum value.
    pub maximum: Option<toml::Value>,
    /// The minimum number of characters.
    pub min_length: Option<u32>,
    /// The maximum number of characters.
    pub max_length: Option<u32>,
    /// A regular expression that must match some part of each text.
    pub pattern: Option<String>,
    /// All possible values.
    pub r#enum: Option<Vec<toml::Value>>,
    /// The name of an enumeration's schema in the OpenAPI document.
    pub schema: Option<String>,
    /// What the values mean.
    pub description: Option<String>,
    /// Unit of measurement.
    pub unit: Option<String>,
    /// Example values for the documentation.
    #[serde(default)]
    pub examples: Vec<toml::Value>,
    /// `true` for lists that are ordered and filtered quickly at any size; "trigram" for patterns as well.
    pub index: Option<Index>,
    /// Other CSV headers that denote this column.
    #[serde(default)]
    pub csv: Vec<String>,
    /// How values are generated.
    pub generate: Option<Generate>,
}

/// Which index a column has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(untagged, expecting = "index must be true, false or \"trigram\"")]
pub enum Index {
    /// B-tree for orders and comparisons, or none.
    Ordered(bool),
    /// By name.
    Named(IndexName),
}

/// Named kinds of index.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum IndexName {
    /// Trigrams, for patterns.
    Trigram,
}

/// How values of a column are generated.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Generate {
    /// The percentage of null values.
    #[serde(default)]
    pub null_percent: u8,
    /// Possible values; a value that is listed twice is twice as likely.
    #[serde(default)]
    pub values: Vec<toml::Value>,
    /// Templates in which `{name}` is replaced by a word of the list of that name.
    #[serde(default)]
    pub templates: Vec<String>,
    /// The minimum number.
    pub minimum: Option<f64>,
    /// The maximum number.
    pub maximum: Option<f64>,
    /// The step between numbers.
    pub step: Option<f64>,
}

/// Statistics over groups of rows.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Statistics {
    /// Columns by which rows may be grouped.
    pub by: Vec<String>,
    /// Measures by their key in the response: `count(column)` of a boolean, `rate(column)` of a boolean, `mean(column)`,
    /// `sum(column)`, `min(column)` or `max(column)` of numbers.
    #[serde(default)]
    pub measures: IndexMap<String, String>,
}

/// Additional URLs of the same operations.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Urls {
    /// The complete list.
    pub list: Option<String>,
    /// Create.
    pub create: Option<String>,
    /// Read one row; ends in `{uuid}`, as do the URLs below.
    pub read: Option<String>,
    /// Replace.
    pub replace: Option<String>,
    /// Delete.
    pub delete: Option<String>,
}

/// The initial rows of a new table.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Seed {
    /// A CSV file in the directory of the description, or in `data` for built-in descriptions.
    pub file: String,
}

/// An error in a description.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// The line, counted from 1.
    pub line: usize,
    /// What is wrong, and how to fix it.
    pub message: String,
}

impl fmt::Display for Fault {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "line {}: {}", self.line, self.message)
    }
}

/// The line of a byte offset, counted from 1.
pub fn line_at(text: &str, offset: usize) -> usize {
    text.as_bytes()[..offset.min(text.len())].iter().filter(|byte| **byte == b'\n').count() + 1
}

/// The byte offset of the key that an error of a table is about: the first word of the message that is a key of the table,
/// which starts at this offset with its header.
pub fn key_at(text: &str, table: usize, message: &str) -> usize {
    let lines = text[table..].split_inclusive('\n').scan(table, |end, line| {
        *end += line.len();
        Some((*end - line.len(), line.trim_start()))
    });
    let keys: Vec<(usize, &str)> = lines.skip(1).take_while(|(_, line)| !line.starts_with('[')).collect();
    let is_key = |line: &str, word: &str| {
        !word.is_empty() && line.strip_prefix(word).is_some_and(|rest| rest.trim_start().starts_with('='))
    };
    let mut words = message.split(|letter: char| !letter.is_ascii_alphanumeric());
    words.find_map(|word| keys.iter().find(|(_, line)| is_key(line, word))).map_or(table, |(offset, _)| *offset)
}

/// Normalises a CSV header: ignores case and punctuation, and whether a letter and its marks are one character (NFC).
pub fn header_key(name: &str) -> String {
    name.nfc().filter(|letter| letter.is_alphanumeric()).flat_map(char::to_lowercase).collect()
}
