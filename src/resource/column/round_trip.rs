//! A value is stored as the client sent it, or rejected: no null, default or other value replaces it, whatever the column's
//! type and the format of the request.

use jiff::Timestamp;
use proptest::prelude::*;
use proptest::sample::{Index, select};
use serde_json::Value as Json;

use super::super::arbitrary::resource;
use super::super::kind::Kind;
use super::super::value::Value;
use super::Column;
use super::cell::{ReadState, is_null_word};
use crate::csv::cells::Cell;

/// Numbers in every notation, around the bounds of every type.
fn number() -> impl Strategy<Value = String> {
    let edges = [
        "0",
        "-0",
        "0.0",
        "1.0",
        "-1",
        "1e0",
        "10e-1",
        "1.50",
        "9007199254740993",
        "9223372036854775807",
        "9223372036854775808",
        "-9223372036854775808",
        "32768",
        "2147483648",
        "1e999",
        "1e-999",
        "4.9e-324",
        "1e-400",
        "0.1e1",
        "100e-2",
        "0.30000000000000004",
        "123456789012345678901234567890.12345",
    ];
    prop_oneof![
        select(edges.to_vec()).prop_map(str::to_owned),
        "-?(0|[1-9][0-9]{0,24})(\\.[0-9]{1,20})?([eE][-+]?[0-9]{1,3})?",
        "[1-9]e-[34][0-9]{2}",
        any::<i64>().prop_map(|value| value.to_string()),
        any::<f64>().prop_filter("finite", |value| value.is_finite()).prop_map(|value| value.to_string()),
        (-1000..1000_i64).prop_map(|value| value.to_string()),
    ]
}

fn text() -> impl Strategy<Value = String> {
    let edges = [
        "",
        " ",
        "null",
        "NA",
        "true",
        "\\N",
        "2026-01-31",
        "2026-01-31T12:00:00Z",
        "0192d3c5-7a1e-7cc3-9a41-5f6b8e2d9c10",
    ];
    let time = "20[0-9]{2}-[01][0-9]-[0-3][0-9][Tt ]([01][0-9]|2[0-3]):[0-6][0-9]:[0-6][0-9](\\.[0-9]{1,10})?\
    ([Zz]|[-+][0-2][0-9]:[0-6][0-9])";
    prop_oneof![select(edges.to_vec()).prop_map(str::to_owned), time, "[a-z]{1,6}[0-9]?", ".{0,12}", "\\PC{0,40}"]
}

/// A number as its digits without a point and a power of ten; equal numbers have equal results.
fn exact(text: &str) -> (bool, String, i64) {
    let (mantissa, exponent) = text.split_once(['e', 'E']).unwrap_or((text, "0"));
    let (whole, fraction) = mantissa
        .trim_start_matches(['-', '+'])
        .split_once('.')
        .unwrap_or((mantissa.trim_start_matches(['-', '+']), ""));
    let digits = format!("{whole}{fraction}");
    let digits = digits.trim_start_matches('0');
    if digits.is_empty() {
        return (false, String::new(), 0);
    }
    let zeros = digits.len() - digits.trim_end_matches('0').len();
    let exponent = exponent.trim_start_matches('+').parse::<i64>().expect("an exponent");
    let power = exponent - i64::try_from(fraction.len()).expect("short") + i64::try_from(zeros).expect("short");
    (text.starts_with('-'), digits.trim_end_matches('0').to_owned(), power)
}

/// Whether a value of this column equals what the text denotes.
fn means(column: &Column, value: &Value<'_>, text: &str) -> bool {
    match (&column.kind, value) {
        (Kind::Integer { .. } | Kind::Decimal { .. }, value) => exact(text.trim()) == exact(&value.to_string()),
        // The nearest double; zero only for zero.
        (Kind::Number { .. }, Value::Number(number)) => {
            text.trim().parse() == Ok(*number) && (*number != 0.0 || exact(text.trim()).1.is_empty())
        }
        (Kind::Text { .. } | Kind::Enum(_), Value::Text(value)) => value == text,
        (Kind::Date, Value::Date(date)) => {
            let (said, date) = (text.trim(), date.to_string());
            said == date || said == date.replace('-', "") || said.strip_prefix(&date).is_some_and(is_midnight)
        }
        (Kind::DateTime, Value::DateTime(at)) => {
            let said: Timestamp = text.trim().parse().expect("a time that jiff reads, too");
            (said.as_nanosecond() - at.as_nanosecond()).abs() <= 500
        }
        (Kind::Uuid, Value::Uuid(uuid)) => {
            let digits: String = text.chars().filter(char::is_ascii_hexdigit).collect();
            digits.to_lowercase().ends_with(&uuid.simple().to_string())
        }
        _ => false,
    }
}

fn is_midnight(time: &str) -> bool {
    !time.contains(|letter: char| matches!(letter, '1'..='9' | '+' | '-'))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1000))]

    #[test]
    fn a_json_value_is_read_unchanged_or_rejected(
        resource in resource(), pick in any::<Index>(), number in number(), text in text(), which in 0..4,
    ) {
        let column = pick.get(resource.fields());
        let raw = match which {
            0 => "null".to_owned(),
            1 => (number.len() % 2 == 0).to_string(),
            2 => number.clone(),
            _ => Json::from(text.as_str()).to_string(),
        };
        match column.read_json(&raw) {
            None => {}
            Some(Value::Null) => prop_assert!(raw == "null" && column.nullable),
            Some(Value::Boolean(value)) => prop_assert_eq!(raw, value.to_string()),
            Some(value) => {
                let said = if which == 2 { &number } else { &text };
                prop_assert!(which >= 2 && means(column, &value, said), "{} became {}", raw, value);
            }
        }
    }

    #[test]
    fn a_csv_cell_is_read_unchanged_or_rejected(
        resource in resource(), pick in any::<Index>(), text in prop_oneof![number(), text()], is_quoted in any::<bool>(),
        is_padded in any::<bool>(),
    ) {
        let column = pick.get(resource.fields());
        let mut state = ReadState::default();
        let value = column.read_cell(Cell { text: &text, is_quoted }, ',', is_padded, &mut state);
        let is_text = matches!(column.kind, Kind::Text { .. });
        match value {
            Err(_) => {}
            Ok(Value::Null) => {
                prop_assert!(column.nullable);
                let trimmed = if is_text { text.trim_matches([' ', '\t']) } else { text.trim() };
                let is_null = trimmed.is_empty() || !is_text && is_null_word(trimmed);
                prop_assert!(is_null, "{:?} became null", text);
            }
            Ok(Value::Boolean(value)) => {
                let word = text.trim().to_lowercase();
                let yes = ["true", "t", "yes", "y", "on"].contains(&word.as_str());
                let no = ["false", "f", "no", "n", "off"].contains(&word.as_str());
                let is_number = !yes && !no;
                let is_one_or_zero = is_number && exact(&word) == exact(if value { "1" } else { "0" });
                prop_assert!(is_one_or_zero || if value { yes } else { no }, "{:?}", text);
            }
            Ok(value) => {
                let said = if is_text && (is_quoted || !is_padded) { text.as_str() } else { text.trim_matches([' ', '\t']) };
                let is_said = match &value {
                    Value::Text(value) if !is_text => value.to_lowercase() == text.trim().to_lowercase(),
                    value => means(column, value, said),
                };
                prop_assert!(is_said, "{:?} became {}", text, value);
            }
        }
    }
}
