//! Reads values that clients send and rejects those that break a rule. JSON bodies, CSV and filters are validated only here, so
//! every input path applies the same rules.

use std::borrow::Cow;

use unicode_normalization::UnicodeNormalization;
use uuid::Uuid;

use super::super::decimal::{Decimal, PRECISION_MAX};
use super::super::kind::Kind;
use super::super::time::{Unzoned, read_date, read_date_time};
use super::super::value::Value;
use super::Column;
use crate::http::json::text;
use crate::http::problem::FieldError;

impl Column {
    /// Reads a syntactically valid JSON value; `None` when it breaks the rule.
    pub fn read_json<'a>(&self, raw: &'a str) -> Option<Value<'a>> {
        if raw == "null" {
            return self.nullable.then_some(Value::Null);
        }
        let is_number = || raw.starts_with(|letter: char| letter == '-' || letter.is_ascii_digit());
        match &self.kind {
            Kind::Boolean => raw.parse().ok().map(Value::Boolean),
            Kind::Integer { .. } | Kind::Number { .. } => is_number().then(|| self.read_number(raw)).flatten(),
            // A decimal is a number, or a string so that no program converts it to a double.
            Kind::Decimal { .. } if is_number() => self.read_number(raw),
            Kind::Decimal { .. } => text(raw).and_then(|text| self.read_number(&text).map(Value::into_owned)),
            Kind::Text { .. } | Kind::Enum(_) => text(raw).and_then(|text| match text {
                Cow::Borrowed(text) => self.read_text(text),
                Cow::Owned(text) => self.read_text(&text).map(Value::into_owned),
            }),
            Kind::Date | Kind::DateTime | Kind::Uuid => {
                text(raw).and_then(|text| self.read_text(&text).map(Value::into_owned))
            }
        }
    }

    /// The error for a value that [`Self::read_json`] rejects.
    pub fn json_error(&self, raw: &str) -> FieldError {
        let (text, is_string) = text(raw).map_or((raw.into(), false), |text| (text, true));
        let message = self.message_about(self.rule, &text, Unzoned::Refused);
        FieldError::new(self.name, with(message, self.suggestion(&text, is_string).filter(|_| is_string)))
    }

    /// A rule of this column, how a text breaks it if a more specific reason is known, and what to send instead.
    pub fn rule_message(&self, rule: &'static str, text: &str) -> Cow<'static, str> {
        with(self.message_about(rule, text, Unzoned::Refused), self.suggestion(text, false))
    }

    /// The error for a text that [`Self::read_filter`] rejects.
    pub fn filter_message(&self, text: &str) -> Cow<'static, str> {
        self.message_about(self.filter_rule, text.trim(), Unzoned::Utc)
    }

    fn message_about(&self, rule: &'static str, text: &str, unzoned: Unzoned) -> Cow<'static, str> {
        match self.kind {
            Kind::DateTime => read_date_time(text, unzoned).map_or_else(|fault| fault.of(rule).into(), |_| rule.into()),
            Kind::Date => read_date(text).map_or_else(|fault| fault.of(rule).into(), |_| rule.into()),
            // Syntactically a number, but not representable as a double.
            Kind::Number { .. }
                if text.contains(|letter: char| letter.is_ascii_digit())
                    && text.parse::<f64>().is_ok()
                    && read_double(text).is_none() =>
            {
                let why = match text.parse::<f64>() {
                    Ok(value) if is_altered(text, value) => "a double cannot represent all of its digits; round it",
                    _ => "a double is zero or has a magnitude between about 5e-324 and 1.8e308",
                };
                format!("{rule}; {why}").into()
            }
            _ => rule.into(),
        }
    }

    /// Reads a CSV cell; `None` when it breaks the rule. A text is taken as it is, blanks included, so that exported rows are
    /// imported unchanged.
    pub fn read_csv<'a>(&self, cell: &'a str) -> Option<Value<'a>> {
        let cell = if matches!(self.kind, Kind::Text { .. }) { cell } else { cell.trim() };
        if cell.is_empty() && self.nullable {
            return Some(Value::Null);
        }
        match self.kind {
            // In any letter case: R writes TRUE, Python True.
            Kind::Boolean if cell == "1" || cell.eq_ignore_ascii_case("true") => Some(Value::Boolean(true)),
            Kind::Boolean if cell == "0" || cell.eq_ignore_ascii_case("false") => Some(Value::Boolean(false)),
            Kind::Boolean => None,
            Kind::Integer { .. } | Kind::Number { .. } | Kind::Decimal { .. } => self.read_number(cell),
            _ => self.read_text(cell),
        }
    }

    /// Reads a value to compare the column with: any value of its type, or one of an enumeration. As in PostgreSQL, surrounding
    /// blanks are significant only in texts.
    pub fn read_filter(&self, text: &str) -> Option<Value<'static>> {
        let text = if matches!(self.kind, Kind::Text { .. }) { text } else { text.trim() };
        match &self.kind {
            Kind::Boolean => read_boolean(text).map(Value::Boolean),
            Kind::Integer { .. } => read_integer(text).map(Value::Integer),
            Kind::Number { .. } => read_double(text).map(Value::Number),
            // The maximum number of digits whatever the column's precision: the value is only compared.
            Kind::Decimal { scale, .. } => Decimal::parse(text, PRECISION_MAX, *scale).map(Value::Decimal),
            Kind::Text { .. } => (!text.contains('\0')).then(|| Value::Text(Cow::Owned(text.to_owned()))),
            Kind::DateTime => read_date_time(text, Unzoned::Utc).ok().map(Value::DateTime),
            // Letters may be composed differently (Unicode, NFC and NFD).
            Kind::Enum(texts) => {
                let same = texts.iter().find(|known| *known == text);
                let same = same.or_else(|| texts.iter().find(|known| known.nfc().eq(text.nfc())));
                same.map(|known| Value::Text(Cow::Owned(known.clone())))
            }
            _ => self.read_text(text).map(Value::into_owned),
        }
    }

    pub(super) fn read_number(&self, text: &str) -> Option<Value<'static>> {
        match &self.kind {
            Kind::Integer { minimum, maximum, values, .. } => {
                let value = read_integer(text)?;
                let fits = (*minimum..=*maximum).contains(&value)
                    && values.as_ref().is_none_or(|values| values.binary_search(&value).is_ok());
                fits.then_some(Value::Integer(value))
            }
            Kind::Number { minimum, maximum } => {
                let value = read_double(text)?;
                let fits =
                    minimum.is_none_or(|minimum| value >= minimum) && maximum.is_none_or(|maximum| value <= maximum);
                fits.then_some(Value::Number(value + 0.0)) // adding zero makes -0 plain 0
            }
            Kind::Decimal { precision, scale, .. } => {
                let value = Decimal::parse(text, *precision, *scale)?;
                let [minimum, maximum] = self.bounds;
                let fits = minimum.is_none_or(|minimum| value.units() >= minimum.units())
                    && maximum.is_none_or(|maximum| value.units() <= maximum.units());
                fits.then_some(Value::Decimal(value))
            }
            _ => None,
        }
    }

    pub(super) fn read_text<'a>(&self, text: &'a str) -> Option<Value<'a>> {
        match &self.kind {
            Kind::Text { min_length, max_length, .. } => {
                let (least, most) = (*min_length as usize, *max_length as usize);
                // Bytes first: a text of at most that many bytes cannot have too many characters, so most need no counting.
                let fits = text.len() <= most || text.chars().count() <= most;
                // A character has at most four bytes.
                let fits = fits && (text.len() >= least * 4 || text.chars().count() >= least);
                let fits = fits && self.pattern.as_ref().is_none_or(|pattern| pattern.is_match(text));
                // PostgreSQL's text type cannot contain U+0000.
                (fits && !text.contains('\0')).then_some(Value::Text(Cow::Borrowed(text)))
            }
            Kind::Enum(texts) => texts.iter().any(|known| known == text).then_some(Value::Text(Cow::Borrowed(text))),
            Kind::Date => read_date(text).ok().map(Value::Date),
            Kind::DateTime => read_date_time(text, Unzoned::Refused).ok().map(Value::DateTime),
            Kind::Uuid => Uuid::try_parse(text).ok().map(Value::Uuid),
            _ => None,
        }
    }
}

/// Appends what to send instead.
fn with(message: Cow<'static, str>, suggestion: Option<String>) -> Cow<'static, str> {
    match suggestion {
        Some(suggestion) => format!("{message}; {suggestion}").into(),
        None => message,
    }
}

/// A double represents every integer of this many digits exactly.
const EXACT_DIGITS: usize = 15;

/// Also accepts `2.0` and `2e0`.
fn read_integer(text: &str) -> Option<i64> {
    match text.parse() {
        Ok(value) => Some(value),
        Err(_) => i64::try_from(Decimal::parse(text, 19, 0)?.units()).ok(),
    }
}

/// As PostgreSQL reads booleans: in any letter case, and by unambiguous prefix.
fn read_boolean(text: &str) -> Option<bool> {
    let text = text.to_ascii_lowercase();
    let begins = |word: &str, least: usize| text.len() >= least && word.starts_with(&text);
    match text.as_str() {
        "1" => Some(true),
        "0" => Some(false),
        _ if begins("true", 1) || begins("yes", 1) || begins("on", 2) => Some(true),
        _ if begins("false", 1) || begins("no", 1) || begins("off", 2) => Some(false),
        _ => None,
    }
}

/// Reads the nearest double; `None` for a nonzero number that would become zero.
fn read_double(text: &str) -> Option<f64> {
    let value = text.parse::<f64>().ok().filter(|value| value.is_finite())?;
    let mantissa = text.split(['e', 'E']).next().unwrap_or_default();
    let is_lost = value == 0.0 && mantissa.contains(|letter: char| matches!(letter, '1'..='9'));
    (!is_lost && !is_altered(text, value)).then_some(value)
}

/// Whether an integer was altered: it is not exactly representable, and not how programs print a double. `2.0` and `2e0` are
/// integers, too.
fn is_altered(text: &str, value: f64) -> bool {
    if text.len() <= EXACT_DIGITS {
        return false;
    }
    let units = |text: &str| Decimal::parse(text, PRECISION_MAX, 0).map(Decimal::units);
    // `None` for a fraction, and beyond PRECISION_MAX digits, which no double is expected to keep.
    let Some(said) = units(text) else { return false };
    let mantissa = text.split(['e', 'E']).next().unwrap_or_default();
    let digits: String = mantissa.chars().filter(char::is_ascii_digit).collect();
    let decimals = digits.trim_start_matches('0').len().saturating_sub(1).min(usize::from(PRECISION_MAX));
    // The shortest digits that identify the double, all of its digits, and as many as were sent (`%.17g`, `%.18e`).
    let printed = [format!("{value:e}"), format!("{value:.0}"), format!("{value:.decimals$e}")];
    !printed.iter().any(|text| units(text) == Some(said))
}
