//! The file that describes a resource, as TOML in JSON Schema's vocabulary: its form, and every fault that can be found
//! in it without a database. `resource` makes of it what requests work with.

use std::collections::BTreeSet;
use std::fmt;

use indexmap::IndexMap;
use serde::Deserialize;
use toml::Spanned;

use super::decimal::{Decimal, PRECISION_MAX};

/// Most columns; the key comes on top, and CSV takes 64 cells in a row.
const COLUMNS_MAX: usize = 60;
/// PostgreSQL cuts longer names off.
pub const IDENTIFIER_MAX: usize = 63;
/// Longest text that a column may take, in characters: a record of CSV has a limit, too.
pub const LENGTH_MAX: u32 = 10_000;
/// The longest text where the description does not say.
const LENGTH_DEFAULT: u32 = 1000;
/// Most values of an enumeration.
const ENUM_MAX: usize = 100;
/// Names that queries and rows use for something else.
pub const RESERVED: &[&str] =
    &["uuid", "version", "count", "and", "or", "not", "select", "order", "limit", "after", "before", "by"];

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

/// What the values of a column are, with the rules for them.
#[derive(Debug, Clone, PartialEq)]
pub enum Kind {
    /// True or false.
    Boolean,
    /// A whole number of so many bits.
    Integer {
        /// 16, 32 or 64.
        bits: u8,
        /// Bounds, both inclusive; never beyond what the bits hold.
        minimum: i64,
        /// See above.
        maximum: i64,
        /// Every possible value, ascending, if they are given.
        values: Option<Vec<i64>>,
    },
    /// A double.
    Number {
        /// The least value.
        minimum: Option<f64>,
        /// The greatest value.
        maximum: Option<f64>,
    },
    /// An exact number.
    Decimal {
        /// Digits in all.
        precision: u8,
        /// Digits behind the point.
        scale: u8,
        /// The least value, as it was written.
        minimum: Option<String>,
        /// The greatest value, as it was written.
        maximum: Option<String>,
    },
    /// A text.
    Text {
        /// The least number of characters.
        min_length: u32,
        /// The greatest number of characters.
        max_length: u32,
        /// What it must match.
        pattern: Option<String>,
    },
    /// One of some texts, in the order of the description.
    Enum(Vec<String>),
    /// A day.
    Date,
    /// An instant.
    DateTime,
    /// A UUID.
    Uuid,
}

/// The line of a byte, counted from 1.
pub fn line_at(text: &str, offset: usize) -> usize {
    text.as_bytes()[..offset.min(text.len())].iter().filter(|byte| **byte == b'\n').count() + 1
}

/// The name of a column in SQL: `passengerClass` is `passenger_class`.
pub fn snake_case(name: &str) -> String {
    let mut snake = String::new();
    for (index, letter) in name.char_indices() {
        if letter.is_ascii_uppercase() && index > 0 && !snake.ends_with('_') {
            snake.push('_');
        }
        snake.push(letter.to_ascii_lowercase());
    }
    snake
}

/// What is left of a header in CSV: case and punctuation do not count.
pub fn header_key(name: &str) -> String {
    name.chars().filter(|letter| letter.is_alphanumeric()).flat_map(char::to_lowercase).collect()
}

/// Everything that is wrong with a description whose form is right.
pub fn faults(text: &str, description: &Description) -> Vec<Fault> {
    let mut faults = Vec::new();
    let name = description.name.as_ref();
    let mut say = |offset: usize, message: String| faults.push(Fault { line: line_at(text, offset), message });
    let name_at = description.name.span().start;
    let is_name = name.starts_with(|letter: char| letter.is_ascii_lowercase())
        && name.chars().all(|letter| letter.is_ascii_lowercase() || letter.is_ascii_digit() || letter == '-');
    if !is_name || name.len() > 40 {
        say(name_at, format!("name {name:?} must be 1 to 40 of a-z, 0-9 and -, and begin with a letter"));
    }
    if description.column.is_empty() || description.column.len() > COLUMNS_MAX {
        say(name_at, format!("a resource has 1 to {COLUMNS_MAX} columns; add [[column]] tables or leave some out"));
    }
    let (mut names, mut headers) = (BTreeSet::new(), BTreeSet::from(["uuid".to_owned()]));
    for column in &description.column {
        let at = column.span().start;
        let column = column.as_ref();
        let called = format!("column {:?}", column.name);
        let is_name = column.name.starts_with(|letter: char| letter.is_ascii_alphabetic())
            && column.name.chars().all(|letter| letter.is_ascii_alphanumeric() || letter == '_');
        let snake = snake_case(&column.name);
        if !is_name {
            say(
                at,
                format!("{called}: a name has a-z, A-Z, 0-9 and _, and begins with a letter; other headers go to csv"),
            );
        } else if header_key(&column.name) == "uuid" {
            say(at, format!("{called}: every row has the key uuid already; leave the column out"));
        } else if RESERVED.contains(&column.name.as_str()) || RESERVED.contains(&snake.as_str()) {
            say(at, format!("{called}: the name has a meaning of its own; choose another one, such as {snake}_"));
        } else if name.len() + snake.len() + 1 > IDENTIFIER_MAX {
            say(
                at,
                format!(
                    "{called}: with the resource's name it has more than {IDENTIFIER_MAX} bytes; choose a shorter one"
                ),
            );
        }
        let key = header_key(&column.name);
        let mut own = BTreeSet::from([key.clone()]);
        if !names.insert(key.clone()) {
            say(at, format!("{called} is a duplicate; names differ by more than case and _"));
        } else if key != "uuid" && !headers.insert(key) {
            say(at, format!("{called}: the name is another column's header in CSV; choose another one"));
        }
        for header in &column.csv {
            let key = header_key(header);
            if key.is_empty() {
                say(at, format!("{called}: the header {header:?} has no letter or digit; leave it out of csv"));
            } else if own.insert(key.clone()) && !headers.insert(key) {
                say(at, format!("{called}: the header {header:?} means another column already; leave it out of csv"));
            }
        }
        for message in column.faults() {
            say(at, format!("{called}: {message}"));
        }
    }
    if let Some(operations) = &description.operations {
        for (needs, needed) in [(Operation::Bulk, Operation::Create), (Operation::Statistics, Operation::List)] {
            if operations.contains(&needs) && !operations.contains(&needed) {
                say(name_at, format!("operations: {needs:?} needs {needed:?}; add it").to_lowercase());
            }
        }
        if operations.contains(&Operation::Statistics) && description.statistics.is_none() {
            say(name_at, "operations: \"statistics\" needs a table [statistics]; add it".to_owned());
        }
    }
    if let Some(statistics) = &description.statistics {
        let at = statistics.span().start;
        for message in statistics_faults(statistics.as_ref(), description) {
            say(at, message);
        }
    }
    for (key, url, keyed) in [
        ("list", &description.urls.list, false),
        ("create", &description.urls.create, false),
        ("read", &description.urls.read, true),
        ("replace", &description.urls.replace, true),
        ("delete", &description.urls.delete, true),
    ] {
        let Some(url) = url else { continue };
        let plain = if keyed { url.strip_suffix("/{uuid}") } else { Some(url.as_str()) };
        let fits = plain.is_some_and(|plain| {
            plain.len() > 1
                && plain.starts_with('/')
                && plain[1..].bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte))
        });
        if !fits {
            let form = if keyed { "/words/{uuid}" } else { "/words" };
            say(name_at, format!("urls.{key} {url:?} must be of the form {form}, in letters, digits, - and _"));
        }
    }
    faults
}

/// The function and the column of a measure such as `mean(age)`.
pub fn measure(text: &str) -> Option<(&str, &str)> {
    text.strip_suffix(')')?.split_once('(')
}

fn statistics_faults(statistics: &Statistics, description: &Description) -> Vec<String> {
    let mut faults = Vec::new();
    let kind_of = |name: &str| {
        let column = description.column.iter().map(Spanned::as_ref).find(|column| column.name == name)?;
        column.kind().ok()
    };
    for name in &statistics.by {
        match kind_of(name) {
            None => faults.push(format!("statistics.by names the unknown column {name:?}; name one of the columns")),
            Some(Kind::Boolean | Kind::Integer { .. } | Kind::Enum(_)) => {}
            Some(_) => faults.push(format!("statistics.by {name:?} must be a boolean, an integer or an enum")),
        }
    }
    for (key, text) in &statistics.measures {
        let fits = measure(text).and_then(|(function, column)| Some((function, kind_of(column)?))).is_some_and(
            |(function, kind)| match function {
                "count" | "rate" => kind == Kind::Boolean,
                "mean" | "sum" | "min" | "max" => {
                    matches!(kind, Kind::Integer { .. } | Kind::Number { .. } | Kind::Decimal { .. })
                }
                _ => false,
            },
        );
        if !fits {
            faults.push(format!(
                "statistics.measures.{key} {text:?} must be count or rate of a boolean column, or mean, sum, min or max of \
                 one of numbers, such as mean(age)"
            ));
        }
        if statistics.by.contains(key) || key == "count" {
            faults.push(format!("statistics.measures.{key} is a name that each group has already; choose another one"));
        }
    }
    faults
}

impl ColumnDescription {
    /// Everything that is wrong with it alone.
    fn faults(&self) -> Vec<String> {
        let kind = match self.kind() {
            Ok(kind) => kind,
            Err(fault) => return vec![fault],
        };
        let mut faults = Vec::new();
        let is_text = matches!(kind, Kind::Text { .. });
        if matches!(self.index, Some(Index::Named(IndexName::Trigram))) && !is_text {
            faults.push("index = \"trigram\" is for texts; use index = true".to_owned());
        }
        if let Kind::Text { min_length: 0, .. } = kind
            && self.nullable
        {
            faults.push("an empty cell of CSV means null; add minLength = 1, or leave nullable out".to_owned());
        }
        if self.schema.is_some() && !matches!(kind, Kind::Enum(_)) {
            faults.push("schema names an enumeration of texts; leave it out".to_owned());
        }
        if self.required == Some(false) && !self.nullable && self.default.is_none() {
            faults.push("required = false needs a default, or nullable = true".to_owned());
        }
        if self.required == Some(true) && self.default.is_some() {
            faults.push("a column with a default is not required; leave one of the two out".to_owned());
        }
        faults
    }

    /// What its values are.
    ///
    /// # Errors
    /// A rule that does not fit the type, or has no sense.
    pub fn kind(&self) -> Result<Kind, String> {
        let kind = match self.r#type.as_str() {
            "boolean" => Kind::Boolean,
            "integer" => self.integer()?,
            "number" => self.number()?,
            "string" => self.string()?,
            other => self.decimal(other)?,
        };
        let allowed: &[&str] = match kind {
            Kind::Boolean | Kind::Date | Kind::DateTime | Kind::Uuid => &[],
            Kind::Integer { .. } => &["minimum", "maximum", "enum"],
            Kind::Number { .. } | Kind::Decimal { .. } => &["minimum", "maximum"],
            Kind::Text { .. } => &["minLength", "maxLength", "pattern"],
            Kind::Enum(_) => &["enum"],
        };
        for (key, given) in [
            ("minimum", self.minimum.is_some()),
            ("maximum", self.maximum.is_some()),
            ("minLength", self.min_length.is_some()),
            ("maxLength", self.max_length.is_some()),
            ("pattern", self.pattern.is_some()),
            ("enum", self.r#enum.is_some()),
        ] {
            if given && !allowed.contains(&key) {
                return Err(format!("{key} is no rule of this type; leave it out"));
            }
        }
        Ok(kind)
    }

    fn format(&self, known: &[&str]) -> Result<Option<&str>, String> {
        match self.format.as_deref() {
            Some(format) if !known.contains(&format) => {
                let known = if known.is_empty() { "this type has none".to_owned() } else { known.join(", ") };
                Err(format!("unknown format {format:?}; {known}"))
            }
            format => Ok(format),
        }
    }

    fn integer(&self) -> Result<Kind, String> {
        let bits = match self.format(&["int16", "int32", "int64"])? {
            Some("int16") => 16,
            Some("int32") => 32,
            _ => 64,
        };
        let (least, greatest) = (i64::MIN >> (64 - bits), i64::MAX >> (64 - bits));
        let bound = |key: &str, value: &Option<toml::Value>, default| match value {
            None => Ok(default),
            Some(toml::Value::Integer(value)) if (least..=greatest).contains(value) => Ok(*value),
            Some(value) => Err(format!("{key} {value} must be a whole number from {least} to {greatest}")),
        };
        let (minimum, maximum) = (bound("minimum", &self.minimum, least)?, bound("maximum", &self.maximum, greatest)?);
        if minimum > maximum {
            return Err(format!("minimum {minimum} is above maximum {maximum}; exchange them"));
        }
        let values = self.r#enum.as_ref().map(|values| {
            let each = values.iter().map(|value| bound("enum", &Some(value.clone()), 0));
            let mut values = each.collect::<Result<Vec<_>, _>>()?;
            values.sort_unstable();
            values.dedup();
            if self.minimum.is_some() || self.maximum.is_some() {
                return Err("enum says every value; leave minimum and maximum out".to_owned());
            }
            count_of_enum(values.len())?;
            Ok(values)
        });
        let values = values.transpose()?;
        let (minimum, maximum) = match values.as_deref() {
            Some([first, .., last]) => (*first, *last),
            Some([only]) => (*only, *only),
            _ => (minimum, maximum),
        };
        Ok(Kind::Integer { bits, minimum, maximum, values })
    }

    fn number(&self) -> Result<Kind, String> {
        self.format(&["double"])?;
        #[expect(clippy::cast_precision_loss, reason = "a bound that a person wrote")]
        let bound = |key: &str, value: &Option<toml::Value>| match value {
            None => Ok(None),
            Some(toml::Value::Integer(value)) => Ok(Some(*value as f64)),
            Some(toml::Value::Float(value)) if value.is_finite() => Ok(Some(*value)),
            Some(value) => Err(format!("{key} {value} must be a number")),
        };
        let (minimum, maximum) = (bound("minimum", &self.minimum)?, bound("maximum", &self.maximum)?);
        if let (Some(minimum), Some(maximum)) = (minimum, maximum)
            && minimum > maximum
        {
            return Err(format!("minimum {minimum} is above maximum {maximum}; exchange them"));
        }
        Ok(Kind::Number { minimum, maximum })
    }

    fn decimal(&self, text: &str) -> Result<Kind, String> {
        const FORM: &str =
            "type must be boolean, integer, number, string, or decimal(precision,scale) such as decimal(10,2)";
        self.format(&[])?;
        let inner = text.strip_prefix("decimal(").and_then(|rest| rest.strip_suffix(')')).ok_or(FORM)?;
        let (precision, scale) = inner.split_once(',').ok_or(FORM)?;
        let number = |text: &str| text.trim().parse::<u8>().map_err(|_| FORM.to_owned());
        let (precision, scale) = (number(precision)?, number(scale)?);
        if !(1..=PRECISION_MAX).contains(&precision) || scale > precision {
            return Err(format!(
                "a decimal has a precision from 1 to {PRECISION_MAX}, and a scale of no more than that"
            ));
        }
        let bound = |key: &str, value: &Option<toml::Value>| {
            let Some(value) = value else { return Ok(None) };
            let text = match value {
                toml::Value::Integer(value) => value.to_string(),
                toml::Value::String(value) => value.clone(),
                other => return Err(format!("{key} {other} must be a whole number, or a decimal in quotes")),
            };
            match Decimal::parse(&text, precision, scale) {
                Some(_) => Ok(Some(text)),
                None => Err(format!("{key} {text} must be a decimal({precision},{scale})")),
            }
        };
        let (minimum, maximum) = (bound("minimum", &self.minimum)?, bound("maximum", &self.maximum)?);
        let units = |bound: &Option<String>| {
            bound.as_ref().and_then(|text| Decimal::parse(text, precision, scale)).map(Decimal::units)
        };
        if units(&minimum).zip(units(&maximum)).is_some_and(|(minimum, maximum)| minimum > maximum) {
            return Err("minimum is above maximum; exchange them".to_owned());
        }
        Ok(Kind::Decimal { precision, scale, minimum, maximum })
    }

    fn string(&self) -> Result<Kind, String> {
        if let Some(values) = &self.r#enum {
            self.format(&[])?;
            let mut texts = Vec::new();
            for value in values {
                let text = value.as_str().filter(|text| is_enum_text(text));
                let Some(text) = text else {
                    return Err(format!(
                        "enum {value} must be a text of 1 to 100 characters without quotes, commas, parentheses, backslashes, \
                         blanks at its ends and control characters"
                    ));
                };
                if texts.contains(&text.to_owned()) {
                    return Err(format!("enum {text:?} is a duplicate; leave one out"));
                }
                texts.push(text.to_owned());
            }
            count_of_enum(texts.len())?;
            return Ok(Kind::Enum(texts));
        }
        Ok(match self.format(&["date", "date-time", "uuid"])? {
            Some("date") => Kind::Date,
            Some("date-time") => Kind::DateTime,
            Some(_) => Kind::Uuid,
            None => {
                let (min_length, max_length) =
                    (self.min_length.unwrap_or(u32::from(self.nullable)), self.max_length.unwrap_or(LENGTH_DEFAULT));
                if min_length > max_length || max_length == 0 || max_length > LENGTH_MAX {
                    return Err(format!("lengths must ascend, and maxLength be from 1 to {LENGTH_MAX}"));
                }
                if let Some(pattern) = &self.pattern {
                    regex::Regex::new(pattern)
                        .map_err(|error| format!("pattern {pattern:?} is no regular expression: {error}"))?;
                }
                Kind::Text { min_length, max_length, pattern: self.pattern.clone() }
            }
        })
    }
}

/// Whether an enumeration may hold the text: it must be the same in JSON, CSV, filters and SQL.
fn is_enum_text(text: &str) -> bool {
    (1..=100).contains(&text.chars().count())
        && text.trim() == text
        && !text.contains(|letter: char| letter.is_control() || "\"',()\\".contains(letter))
}

fn count_of_enum(count: usize) -> Result<(), String> {
    if (1..=ENUM_MAX).contains(&count) { Ok(()) } else { Err(format!("an enum has 1 to {ENUM_MAX} values")) }
}
