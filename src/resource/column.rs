//! A column and the rules for its values. JSON bodies, CSV and filters are validated only here, so every input path applies the
//! same rules; the table's constraints repeat them as a last line of defence. No I/O happens here.

pub mod cell;
mod read;
#[cfg(test)]
mod round_trip;
mod suggestion;

use std::borrow::Cow;

use regex::Regex;
use tokio_postgres::types::Type;
use uuid::Uuid;

use super::decimal::Decimal;
use super::description::{ColumnDescription, Generate, Index, IndexName, header_key};
use super::identifier::{quoted, snake_case};
use super::kind::Kind;
use super::value::{self, Value, date_of, timestamp_of};
use super::wording::{Syntax, filter_rule, rule};
use crate::http::problem::FieldError;

/// A column of a resource. Each column exists once in a process, so columns are compared by address.
#[derive(Debug)]
pub struct Column {
    /// Index in a row; the key's is 0.
    pub position: usize,
    /// The key in JSON, the header in CSV, and the name in filters.
    pub name: &'static str,
    /// The type of its values, with their rules.
    pub kind: Kind,
    /// Whether a value may be null.
    pub nullable: bool,
    /// Whether a row must contain it.
    pub required: bool,
    /// The value when a row does not contain it.
    pub default: Value<'static>,
    /// The name in SQL, quoted if necessary.
    pub sql: &'static str,
    /// The unquoted name, as in the catalog.
    pub identifier: &'static str,
    /// The column in a comparison or an order: texts by code point, so that the order does not depend on the machine's locale.
    pub ordered_sql: &'static str,
    /// What a value must be; the text of every validation error about it.
    pub rule: &'static str,
    /// The same for a CSV cell.
    pub csv_rule: &'static str,
    /// What a value in a filter must be.
    pub filter_rule: &'static str,
    /// The key in JSON with its punctuation, for writing a complete row.
    pub json_key: &'static [u8],
    /// CSV headers that denote this column, normalised by `header_key`.
    pub headers: Vec<String>,
    /// Which index it has.
    pub index: IndexKind,
    /// Properties used only in the documentation.
    pub docs: ColumnDocs,
    /// How values are generated.
    pub generate: Generate,
    pattern: Option<Regex>,
    bounds: [Option<Decimal>; 2],
}

/// Which index a column has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum IndexKind {
    /// None.
    None,
    /// B-tree, for orders and comparisons.
    Ordered,
    /// Trigrams as well, for patterns.
    Trigram,
}

/// Properties of a column used only in the documentation.
#[derive(Debug, Default)]
pub struct ColumnDocs {
    /// What the values mean.
    pub description: Option<&'static str>,
    /// Unit of measurement.
    pub unit: Option<&'static str>,
    /// The name of the enumeration's schema.
    pub schema: Option<&'static str>,
    /// A value, as JSON.
    pub example: Option<serde_json::Value>,
}

impl PartialEq for Column {
    fn eq(&self, other: &Self) -> bool {
        std::ptr::eq(self, other)
    }
}

impl Eq for Column {}

/// Leaks a string: resources are loaded once, at startup, and live as long as the process.
pub fn leak(text: impl Into<String>) -> &'static str {
    text.into().leak()
}

impl Column {
    /// The key column, which every resource has.
    pub fn key() -> Self {
        Self {
            position: 0,
            name: "uuid",
            kind: Kind::Uuid,
            nullable: false,
            required: false,
            default: Value::Null,
            sql: "uuid",
            identifier: "uuid",
            ordered_sql: "uuid",
            rule: "must be a uuid",
            csv_rule: "must be a uuid",
            filter_rule: "a uuid",
            json_key: b"{\"uuid\":",
            headers: vec!["uuid".to_owned()],
            index: IndexKind::Ordered,
            docs: ColumnDocs::default(),
            generate: Generate::default(),
            pattern: None,
            bounds: [None, None],
        }
    }

    /// Creates the column at this position from a description without errors.
    ///
    /// # Errors
    /// A default or an example that breaks the column's own rule.
    pub fn new(position: usize, description: &ColumnDescription) -> Result<Self, String> {
        let kind = description.kind()?;
        let identifier = leak(snake_case(&description.name));
        let sql = leak(quoted(identifier));
        let pattern = match &kind {
            Kind::Text { pattern: Some(pattern), .. } => Some(Regex::new(pattern).map_err(|error| error.to_string())?),
            _ => None,
        };
        let bounds = match &kind {
            Kind::Decimal { precision, scale, minimum, maximum } => {
                [minimum, maximum].map(|bound| bound.as_ref().and_then(|text| Decimal::parse(text, *precision, *scale)))
            }
            _ => [None, None],
        };
        let or = |rule: String, or: &str| leak(if description.nullable { format!("{rule}, or {or}") } else { rule });
        let mut column = Self {
            position,
            name: leak(&*description.name),
            nullable: description.nullable,
            required: description.required.unwrap_or(description.default.is_none()),
            default: Value::Null,
            sql,
            identifier,
            ordered_sql: if is_text(&kind) { leak(format!("{sql} collate \"C\"")) } else { sql },
            rule: or(rule(&kind, Syntax::Json), "null"),
            csv_rule: or(rule(&kind, Syntax::Csv), "empty"),
            filter_rule: leak(filter_rule(&kind)),
            json_key: leak(format!("{}\"{}\":", if position == 0 { '{' } else { ',' }, description.name)).as_bytes(),
            headers: std::iter::once(&description.name).chain(&description.csv).map(|name| header_key(name)).collect(),
            index: match description.index {
                None | Some(Index::Ordered(false)) => IndexKind::None,
                Some(Index::Ordered(true)) => IndexKind::Ordered,
                Some(Index::Named(IndexName::Trigram)) => IndexKind::Trigram,
            },
            docs: ColumnDocs {
                description: description.description.clone().map(leak),
                unit: description.unit.clone().map(leak),
                schema: description.schema.clone().map(leak),
                example: None,
            },
            generate: description.generate.clone().unwrap_or_default(),
            pattern,
            bounds,
            kind,
        };
        if let Some(default) = &description.default {
            column.default = column.constant("default", default)?.0;
        }
        for (index, example) in description.examples.iter().enumerate() {
            let (_, json) = column.constant("examples", example)?;
            if index == 0 {
                column.docs.example = Some(json);
            }
        }
        for value in &description.generate.clone().unwrap_or_default().values {
            column.constant("generate.values", value)?;
        }
        Ok(column)
    }

    /// Validates a constant in the description.
    fn constant(&self, key: &str, value: &toml::Value) -> Result<(Value<'static>, serde_json::Value), String> {
        let json = match value {
            toml::Value::String(text) => serde_json::Value::from(text.clone()),
            toml::Value::Integer(number) => serde_json::Value::from(*number),
            toml::Value::Float(number) => serde_json::Value::from(*number),
            toml::Value::Boolean(value) => serde_json::Value::from(*value),
            other => serde_json::Value::from(other.to_string()),
        };
        let raw = json.to_string();
        match self.read_json(&raw) {
            Some(value) => Ok((value.into_owned(), json)),
            None => Err(format!("{key} {value} {}", self.rule)),
        }
    }

    /// The validation error for a value of this column.
    pub fn error(&self) -> FieldError {
        FieldError::new(self.name, self.rule)
    }

    /// Its type in SQL.
    pub fn sql_type(&self) -> &'static str {
        match &self.kind {
            Kind::Boolean => "boolean",
            Kind::Integer { bits: 16, .. } => "smallint",
            Kind::Integer { bits: 32, .. } => "integer",
            Kind::Integer { .. } => "bigint",
            Kind::Number { .. } => "double precision",
            Kind::Decimal { precision, scale, .. } => leak(format!("numeric({precision},{scale})")),
            Kind::Text { .. } | Kind::Enum(_) => "text",
            Kind::Date => "date",
            Kind::DateTime => "timestamp with time zone",
            Kind::Uuid => "uuid",
        }
    }

    /// The short name of its type in SQL, for casts to arrays.
    pub fn array_type(&self) -> &'static str {
        match self.pg_type() {
            Type::BOOL => "bool",
            Type::INT2 => "int2",
            Type::INT4 => "int4",
            Type::INT8 => "int8",
            Type::FLOAT8 => "float8",
            Type::NUMERIC => "numeric",
            Type::DATE => "date",
            Type::TIMESTAMPTZ => "timestamptz",
            Type::UUID => "uuid",
            _ => "text",
        }
    }

    /// Its type in PostgreSQL's protocol.
    pub fn pg_type(&self) -> Type {
        match &self.kind {
            Kind::Boolean => Type::BOOL,
            Kind::Integer { bits: 16, .. } => Type::INT2,
            Kind::Integer { bits: 32, .. } => Type::INT4,
            Kind::Integer { .. } => Type::INT8,
            Kind::Number { .. } => Type::FLOAT8,
            Kind::Decimal { .. } => Type::NUMERIC,
            Kind::Text { .. } | Kind::Enum(_) => Type::TEXT,
            Kind::Date => Type::DATE,
            Kind::DateTime => Type::TIMESTAMPTZ,
            Kind::Uuid => Type::UUID,
        }
    }

    /// Whether its values are texts, to which `like` applies.
    pub fn is_text(&self) -> bool {
        is_text(&self.kind)
    }

    /// All possible values, ascending, if there are few.
    pub fn domain(&self) -> Option<Vec<Value<'static>>> {
        match &self.kind {
            Kind::Boolean => Some([false, true].map(Value::Boolean).into()),
            Kind::Integer { values: Some(values), .. } => Some(values.iter().copied().map(Value::Integer).collect()),
            Kind::Enum(texts) if !self.nullable => {
                let mut texts: Vec<&String> = texts.iter().collect();
                texts.sort();
                Some(texts.into_iter().map(|text| Value::Text(Cow::Owned(text.clone()))).collect())
            }
            _ => None,
        }
        .filter(|_| !self.nullable)
    }

    /// Decodes a value in PostgreSQL's binary format.
    ///
    /// # Errors
    /// A value that the table's constraints should have rejected.
    pub fn decode<'a>(&self, raw: Option<&'a [u8]>) -> Result<Value<'a>, Undecodable> {
        let Some(raw) = raw else { return Ok(Value::Null) };
        self.decode_some(raw).ok_or(Undecodable { column: self.name })
    }

    /// Appends a value in PostgreSQL's binary format as JSON; `None` for a value that the rules do not allow. Equivalent to
    /// decoding and then writing it, without the intermediate value, which would be half the cost of a list.
    #[inline]
    pub fn write_json(&self, raw: Option<&[u8]>, out: &mut Vec<u8>) -> Option<()> {
        let Some(raw) = raw else {
            out.extend_from_slice(b"null");
            return Some(());
        };
        match &self.kind {
            Kind::Boolean => out.extend_from_slice(if *raw.first()? != 0 { b"true" } else { b"false" }),
            Kind::Integer { .. } => value::write_integer(integer_of(raw)?, out),
            Kind::Number { .. } => {
                let number = f64::from_be_bytes(raw.try_into().ok()?);
                value::write_serialised(&Some(number).filter(|number| number.is_finite())?, out);
            }
            Kind::Text { .. } => value::write_serialised(std::str::from_utf8(raw).ok()?, out),
            Kind::Enum(texts) => {
                // Its texts need no escaping.
                let text = texts.iter().find(|text| text.as_bytes() == raw)?;
                out.push(b'"');
                out.extend_from_slice(text.as_bytes());
                out.push(b'"');
            }
            Kind::Uuid => {
                out.push(b'"');
                let uuid = Uuid::from_bytes(raw.try_into().ok()?);
                out.extend_from_slice(uuid.hyphenated().encode_lower(&mut Uuid::encode_buffer()).as_bytes());
                out.push(b'"');
            }
            Kind::Decimal { .. } | Kind::Date | Kind::DateTime => self.decode_some(raw)?.write_json(out),
        }
        Some(())
    }

    fn decode_some<'a>(&self, raw: &'a [u8]) -> Option<Value<'a>> {
        Some(match &self.kind {
            Kind::Boolean => Value::Boolean(*raw.first()? != 0),
            Kind::Integer { .. } => Value::Integer(integer_of(raw)?),
            Kind::Number { .. } => {
                Value::Number(Some(f64::from_be_bytes(raw.try_into().ok()?)).filter(|value| value.is_finite())?)
            }
            Kind::Decimal { scale, .. } => Value::Decimal(Decimal::decode(raw, *scale)?),
            Kind::Text { .. } => Value::Text(Cow::Borrowed(std::str::from_utf8(raw).ok()?)),
            Kind::Enum(_) => self.read_text(std::str::from_utf8(raw).ok()?)?,
            Kind::Date => Value::Date(date_of(raw.try_into().ok()?)?),
            Kind::DateTime => Value::DateTime(timestamp_of(raw.try_into().ok()?)?),
            Kind::Uuid => Value::Uuid(Uuid::from_slice(raw).ok()?),
        })
    }
}

/// Decodes an integer of any width.
fn integer_of(raw: &[u8]) -> Option<i64> {
    Some(match raw.len() {
        2 => i16::from_be_bytes(raw.try_into().ok()?).into(),
        4 => i32::from_be_bytes(raw.try_into().ok()?).into(),
        _ => i64::from_be_bytes(raw.try_into().ok()?),
    })
}

/// A value in the table that the rules of its column do not allow.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("column {column} holds a value that its rules do not allow")]
pub struct Undecodable {
    /// Its column.
    pub column: &'static str,
}

fn is_text(kind: &Kind) -> bool {
    matches!(kind, Kind::Text { .. } | Kind::Enum(_))
}
