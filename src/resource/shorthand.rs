//! Parses a column from a command-line argument such as `tonnage:number:0..:null`.

use std::num::IntErrorKind;

use super::description::{ColumnDescription, Index};

/// The syntax of an argument.
pub const FORM: &str = "name:type[:low..high][:null][:index]";
/// The possible types.
const TYPES: &str = "boolean, integer, int16, int32, int64, number, decimal(precision,scale), string, date, date-time, uuid, \
     or a|b|c for an enum";

/// Parses an argument.
///
/// # Errors
/// All its errors, each with a remedy.
pub fn column(argument: &str) -> Result<ColumnDescription, Vec<String>> {
    let mut parts = argument.split(':');
    let name = parts.next().unwrap_or_default();
    let Some(type_) = parts.next().filter(|_| !name.is_empty()) else {
        return Err(vec![format!("expected {FORM}, such as 'tonnage:number:0..:null'")]);
    };
    let mut column = ColumnDescription { name: name.to_owned(), ..ColumnDescription::default() };
    let mut faults = Vec::new();
    faults.extend(read_type(type_, &mut column).err());
    let mut has_range = false;
    for part in parts {
        match part {
            "null" if !column.nullable => column.nullable = true,
            "index" if column.index.is_none() => column.index = Some(Index::Ordered(true)),
            "null" | "index" => faults.push(format!("{part:?} is a duplicate; leave one out")),
            range if range.contains("..") && has_range => {
                faults.push(format!("{range:?} is a second range; leave one out"));
            }
            range if range.contains("..") => {
                has_range = true;
                // Without a type a range cannot be parsed.
                if !column.r#type.is_empty() {
                    faults.extend(read_range(range, &mut column).err());
                }
            }
            other => faults.push(format!("unknown option {other:?}; expected a range low..high, null or index")),
        }
    }
    if faults.is_empty() { Ok(column) } else { Err(faults) }
}

fn read_type(text: &str, column: &mut ColumnDescription) -> Result<(), String> {
    let (type_, format) = match text {
        "boolean" | "integer" | "number" | "string" => (text, None),
        "int16" | "int32" | "int64" => ("integer", Some(text)),
        "date" | "date-time" | "uuid" => ("string", Some(text)),
        _ if text.starts_with("decimal(") => (text, None),
        _ if text.contains('|') => {
            column.r#enum = Some(text.split('|').map(toml::Value::from).collect());
            ("string", None)
        }
        _ => return Err(format!("unknown type {text:?}; expected {TYPES}")),
    };
    (column.r#type, column.format) = (type_.to_owned(), format.map(str::to_owned));
    Ok(())
}

/// Parses `low..high`, of which one may be missing, for numbers and lengths of texts.
fn read_range(range: &str, column: &mut ColumnDescription) -> Result<(), String> {
    let (low, high) = range.split_once("..").unwrap_or((range, ""));
    if low.is_empty() && high.is_empty() {
        return Err(format!("the range {range:?} has no bound; give one, or leave the range out"));
    }
    let side = |text: &str| (!text.is_empty()).then(|| text.to_owned());
    let (low, high) = (side(low), side(high));
    let is_text = column.r#type == "string" && column.format.is_none() && column.r#enum.is_none();
    if is_text {
        let length = |text: String| {
            text.parse::<u32>().map_err(|_| format!("{text:?} is not a length; expected a whole number, as in 1..150"))
        };
        (column.min_length, column.max_length) = (low.map(length).transpose()?, high.map(length).transpose()?);
        return Ok(());
    }
    let bound = |text: String| match column.r#type.as_str() {
        "integer" => text.parse::<i64>().map(toml::Value::from).map_err(|error| match error.kind() {
            IntErrorKind::PosOverflow | IntErrorKind::NegOverflow => {
                format!("{text:?} exceeds 64 bits; use the type decimal(precision,scale)")
            }
            _ => format!("{text:?} is not a whole number"),
        }),
        "number" => match (text.parse::<i64>(), text.parse::<f64>()) {
            (Ok(whole), _) => Ok(toml::Value::from(whole)),
            (_, Ok(number)) if number.is_finite() => Ok(toml::Value::from(number)),
            _ => Err(format!("{text:?} is not a number")),
        },
        decimal if decimal.starts_with("decimal(") => Ok(toml::Value::from(text)),
        _ => Err(format!("a range applies only to numbers and lengths of texts; leave {range:?} out")),
    };
    (column.minimum, column.maximum) = (low.map(bound).transpose()?, high.map(bound).transpose()?);
    Ok(())
}
