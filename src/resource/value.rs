//! A value of a row: decoded from and encoded in PostgreSQL's binary format, and written as JSON or CSV. Its rules belong to
//! its column (`column`).

use std::borrow::Cow;
use std::error::Error;
use std::fmt;

use bytes::{BufMut, BytesMut};
use jiff::civil::{self, date};
use jiff::{Span, Timestamp};
use postgres_protocol::types::array_to_sql;
use tokio_postgres::types::{FromSql, IsNull, Kind as TypeKind, ToSql, Type};
use uuid::Uuid;

use super::decimal::Decimal;
use crate::http::csv::cell;

/// A value; texts may borrow from their source.
#[derive(Debug, Clone, PartialEq)]
pub enum Value<'a> {
    /// Null.
    Null,
    /// True or false.
    Boolean(bool),
    /// An integer.
    Integer(i64),
    /// A double; finite.
    Number(f64),
    /// An exact decimal.
    Decimal(Decimal),
    /// A text without U+0000.
    Text(Cow<'a, str>),
    /// A date.
    Date(civil::Date),
    /// An instant, to the microsecond.
    DateTime(Timestamp),
    /// A key.
    Uuid(Uuid),
}

/// PostgreSQL's epoch for dates and timestamps.
const EPOCH: civil::Date = date(2000, 1, 1);
const EPOCH_UNIX_MICROSECONDS: i64 = 946_684_800_000_000;

impl Value<'_> {
    /// Converts to an owned value.
    pub fn into_owned(self) -> Value<'static> {
        match self {
            Self::Null => Value::Null,
            Self::Boolean(value) => Value::Boolean(value),
            Self::Integer(value) => Value::Integer(value),
            Self::Number(value) => Value::Number(value),
            Self::Decimal(value) => Value::Decimal(value),
            Self::Text(value) => Value::Text(Cow::Owned(value.into_owned())),
            Self::Date(value) => Value::Date(value),
            Self::DateTime(value) => Value::DateTime(value),
            Self::Uuid(value) => Value::Uuid(value),
        }
    }

    /// Whether it is null.
    pub fn is_null(&self) -> bool {
        matches!(self, Self::Null)
    }

    /// Appends it as JSON. Decimals are JSON strings, because most programs read a JSON number as a double.
    pub fn write_json(&self, out: &mut Vec<u8>) {
        match self {
            Self::Null => out.extend_from_slice(b"null"),
            Self::Boolean(value) => out.extend_from_slice(if *value { b"true" } else { b"false" }),
            Self::Integer(value) => write_integer(*value, out),
            Self::Number(value) => write_serialised(value, out),
            Self::Text(value) => write_serialised(value, out),
            Self::Decimal(_) | Self::Date(_) | Self::DateTime(_) | Self::Uuid(_) => {
                out.push(b'"');
                self.write_plain(out);
                out.push(b'"');
            }
        }
    }

    /// Appends it as a CSV cell, as PostgreSQL's `COPY` writes it: nothing for null, no fraction for a whole number.
    pub fn write_csv(&self, out: &mut Vec<u8>) {
        match self {
            Self::Text(value) if value.is_empty() => out.extend_from_slice(b"\"\""),
            Self::Text(value) => cell(value, out),
            other => other.write_plain(out),
        }
    }

    /// Appends it as text.
    fn write_plain(&self, out: &mut Vec<u8>) {
        match self {
            Self::Null => {}
            Self::Boolean(value) => out.extend_from_slice(if *value { b"true" } else { b"false" }),
            Self::Integer(value) => write_integer(*value, out),
            Self::Number(value) => {
                write_serialised(value, out);
                if out.ends_with(b".0") {
                    out.truncate(out.len() - 2);
                }
            }
            Self::Decimal(value) => value.write(out),
            Self::Text(value) => out.extend_from_slice(value.as_bytes()),
            Self::Date(value) => display(value, out),
            Self::DateTime(value) => display(&format_args!("{value:.6}"), out),
            Self::Uuid(value) => {
                out.extend_from_slice(value.hyphenated().encode_lower(&mut Uuid::encode_buffer()).as_bytes());
            }
        }
    }

    /// Appends it in the binary format of its column's type: the same in `COPY`, parameters and arrays.
    fn encode(&self, of: &Type, out: &mut BytesMut) -> Result<IsNull, Box<dyn Error + Sync + Send>> {
        match self {
            Self::Null => return Ok(IsNull::Yes),
            Self::Boolean(value) => out.put_u8(u8::from(*value)),
            Self::Integer(value) => match *of {
                Type::INT2 => out.put_i16(i16::try_from(*value)?),
                Type::INT4 => out.put_i32(i32::try_from(*value)?),
                _ => out.put_i64(*value),
            },
            Self::Number(value) => out.put_f64(*value),
            Self::Decimal(value) => value.encode(out),
            Self::Text(value) => out.put_slice(value.as_bytes()),
            Self::Date(value) => out.put_i32(EPOCH.until(*value)?.get_days()),
            Self::DateTime(value) => out.put_i64(value.as_microsecond() - EPOCH_UNIX_MICROSECONDS),
            Self::Uuid(value) => out.put_slice(value.as_bytes()),
        }
        Ok(IsNull::No)
    }

    /// Appends it to a row of `COPY`.
    pub fn put(&self, of: &Type, row: &mut crate::db::copy::BinaryRow<'_>) {
        row.put_with(|out| match self.encode(of, out) {
            Ok(IsNull::No) => true,
            Ok(IsNull::Yes) => false,
            Err(_) => unreachable!("its column's rules bound it"),
        });
    }

    /// The type of a parameter with which a column is compared.
    pub fn param_type(&self) -> Type {
        match self {
            Self::Boolean(_) => Type::BOOL,
            Self::Integer(_) => Type::INT8,
            Self::Number(_) => Type::FLOAT8,
            Self::Decimal(_) => Type::NUMERIC,
            Self::Null | Self::Text(_) => Type::TEXT,
            Self::Date(_) => Type::DATE,
            Self::DateTime(_) => Type::TIMESTAMPTZ,
            Self::Uuid(_) => Type::UUID,
        }
    }
}

/// Appends a value serialised by serde.
pub fn write_serialised(value: &(impl serde::Serialize + ?Sized), out: &mut Vec<u8>) {
    serde_json::to_writer(out, value).expect("writing to a vector cannot fail");
}

/// Appends an integer.
pub fn write_integer(value: i64, out: &mut Vec<u8>) {
    out.extend_from_slice(itoa::Buffer::new().format(value).as_bytes());
}

fn display(value: &impl fmt::Display, out: &mut Vec<u8>) {
    use std::io::Write;
    write!(out, "{value}").expect("writing to a vector cannot fail");
}

/// As filters accept it.
impl fmt::Display for Value<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut text = Vec::new();
        match self {
            // The shortest text that parses to the same number; `Display` would write 300 digits.
            Self::Number(value) => return write!(formatter, "{value:?}"),
            Self::Null => text.extend_from_slice(b"null"),
            other => other.write_plain(&mut text),
        }
        formatter.write_str(&String::from_utf8_lossy(&text))
    }
}

impl ToSql for Value<'_> {
    fn to_sql(&self, of: &Type, out: &mut BytesMut) -> Result<IsNull, Box<dyn Error + Sync + Send>> {
        self.encode(of, out)
    }

    /// Any type, because the statements are built from the columns of these values.
    fn accepts(_: &Type) -> bool {
        true
    }

    fn to_sql_checked(&self, of: &Type, out: &mut BytesMut) -> Result<IsNull, Box<dyn Error + Sync + Send>> {
        self.to_sql(of, out)
    }
}

/// The values of one column of many rows, as an array parameter; `None` is null.
#[derive(Debug)]
pub struct Array<'a>(pub Vec<Option<&'a Value<'a>>>);

impl ToSql for Array<'_> {
    fn to_sql(&self, of: &Type, out: &mut BytesMut) -> Result<IsNull, Box<dyn Error + Sync + Send>> {
        let TypeKind::Array(member) = of.kind() else { return Err(format!("{of} is no array").into()) };
        let dimension = postgres_protocol::types::ArrayDimension { len: i32::try_from(self.0.len())?, lower_bound: 1 };
        let encode = |value: &Option<&Value<'_>>, out: &mut BytesMut| {
            Ok(match value.map_or(Ok(IsNull::Yes), |value| value.encode(member, out))? {
                IsNull::Yes => postgres_protocol::IsNull::Yes,
                IsNull::No => postgres_protocol::IsNull::No,
            })
        };
        array_to_sql([dimension], member.oid(), self.0.iter(), |value, out| encode(value, out), out)?;
        Ok(IsNull::No)
    }

    fn accepts(_: &Type) -> bool {
        true
    }

    fn to_sql_checked(&self, of: &Type, out: &mut BytesMut) -> Result<IsNull, Box<dyn Error + Sync + Send>> {
        self.to_sql(of, out)
    }
}

/// The raw bytes of a value in PostgreSQL's binary format; `None` for null.
#[derive(Debug, Clone, Copy)]
pub struct Raw<'a>(pub Option<&'a [u8]>);

impl<'a> FromSql<'a> for Raw<'a> {
    fn from_sql(_: &Type, raw: &'a [u8]) -> Result<Self, Box<dyn Error + Sync + Send>> {
        Ok(Self(Some(raw)))
    }

    fn from_sql_null(_: &Type) -> Result<Self, Box<dyn Error + Sync + Send>> {
        Ok(Self(None))
    }

    fn accepts(_: &Type) -> bool {
        true
    }
}

/// Decodes a date.
pub fn date_of(raw: [u8; 4]) -> Option<civil::Date> {
    EPOCH.checked_add(Span::new().try_days(i32::from_be_bytes(raw)).ok()?).ok()
}

/// Decodes a timestamp.
pub fn timestamp_of(raw: [u8; 8]) -> Option<Timestamp> {
    Timestamp::from_microsecond(i64::from_be_bytes(raw).checked_add(EPOCH_UNIX_MICROSECONDS)?).ok()
}
