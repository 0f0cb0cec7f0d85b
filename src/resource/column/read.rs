//! Reads values that clients send, and refuses what breaks a rule: JSON bodies, CSV and filters are judged here alone, so no
//! way in is laxer than another.

use std::borrow::Cow;

use uuid::Uuid;

use super::super::decimal::{Decimal, PRECISION_MAX};
use super::super::kind::Kind;
use super::super::time::{Unzoned, read_date, read_date_time};
use super::super::value::Value;
use super::Column;
use crate::http::json::text;
use crate::http::problem::FieldError;

impl Column {
    /// Reads a value of JSON, whose syntax is right; `None` when it breaks the rule.
    pub fn read_json<'a>(&self, raw: &'a str) -> Option<Value<'a>> {
        if raw == "null" {
            return self.nullable.then_some(Value::Null);
        }
        let is_number = || raw.starts_with(|letter: char| letter == '-' || letter.is_ascii_digit());
        match &self.kind {
            Kind::Boolean => raw.parse().ok().map(Value::Boolean),
            Kind::Integer { .. } | Kind::Number { .. } => is_number().then(|| self.read_number(raw)).flatten(),
            // A decimal comes as a number or, so that no program makes a double of it, as a text.
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

    /// The complaint about a value that [`Self::read_json`] refuses.
    pub fn json_error(&self, raw: &str) -> FieldError {
        let (text, is_string) = text(raw).map_or((raw.into(), false), |text| (text, true));
        let complaint = self.complaint_about(self.rule, &text, Unzoned::Refused);
        FieldError::new(self.name, with(complaint, self.advice(&text, is_string).filter(|_| is_string)))
    }

    /// A rule of this column, how a text breaks it where that can be said more exactly, and what to send instead.
    pub fn complaint(&self, rule: &'static str, text: &str) -> Cow<'static, str> {
        with(self.complaint_about(rule, text, Unzoned::Refused), self.advice(text, false))
    }

    /// The complaint about a text that [`Self::read_filter`] refuses.
    pub fn filter_complaint(&self, text: &str) -> Cow<'static, str> {
        self.complaint_about(self.filter_rule, text.trim(), Unzoned::Utc)
    }

    fn complaint_about(&self, rule: &'static str, text: &str, unzoned: Unzoned) -> Cow<'static, str> {
        match self.kind {
            Kind::DateTime => read_date_time(text, unzoned).map_or_else(|fault| fault.of(rule).into(), |_| rule.into()),
            Kind::Date => read_date(text).map_or_else(|fault| fault.of(rule).into(), |_| rule.into()),
            // A number by its form, and none that a double can be.
            Kind::Number { .. }
                if text.contains(|letter: char| letter.is_ascii_digit())
                    && text.parse::<f64>().is_ok()
                    && read_double(text).is_none() =>
            {
                let why = match text.parse::<f64>() {
                    Ok(value) if is_altered(text, value) => {
                        "a double does not hold all of its digits, and would be another number; round it"
                    }
                    _ => "a double is zero, or between about 5e-324 and 1.8e308 from it",
                };
                format!("{rule}; {why}").into()
            }
            _ => rule.into(),
        }
    }

    /// Reads a cell of CSV; `None` when it breaks the rule. A text is taken as it stands, blanks included: what export
    /// wrote comes back the same.
    pub fn read_csv<'a>(&self, cell: &'a str) -> Option<Value<'a>> {
        let cell = if matches!(self.kind, Kind::Text { .. }) { cell } else { cell.trim() };
        if cell.is_empty() && self.nullable {
            return Some(Value::Null);
        }
        match self.kind {
            // In whatever case: R writes TRUE, and Python True.
            Kind::Boolean if cell == "1" || cell.eq_ignore_ascii_case("true") => Some(Value::Boolean(true)),
            Kind::Boolean if cell == "0" || cell.eq_ignore_ascii_case("false") => Some(Value::Boolean(false)),
            Kind::Boolean => None,
            Kind::Integer { .. } | Kind::Number { .. } | Kind::Decimal { .. } => self.read_number(cell),
            _ => self.read_text(cell),
        }
    }

    /// Reads a value to compare the column with: any of its type, and one of an enumeration. As PostgreSQL reads them,
    /// blanks around a value count in texts alone.
    pub fn read_filter(&self, text: &str) -> Option<Value<'static>> {
        let text = if matches!(self.kind, Kind::Text { .. }) { text } else { text.trim() };
        match &self.kind {
            Kind::Boolean => read_boolean(text).map(Value::Boolean),
            Kind::Integer { .. } => read_integer(text).map(Value::Integer),
            Kind::Number { .. } => read_double(text).map(Value::Number),
            // As many digits as there can be, whatever the column's precision: it is only compared.
            Kind::Decimal { scale, .. } => Decimal::parse(text, PRECISION_MAX, *scale).map(Value::Decimal),
            Kind::Text { .. } => (!text.contains('\0')).then(|| Value::Text(Cow::Owned(text.to_owned()))),
            Kind::DateTime => read_date_time(text, Unzoned::Utc).ok().map(Value::DateTime),
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
                // Bytes first: no text of at most that many bytes has too many characters, so most are not counted.
                let fits = text.len() <= most || text.chars().count() <= most;
                // One character has four bytes at most.
                let fits = fits && (text.len() >= least * 4 || text.chars().count() >= least);
                let fits = fits && self.pattern.as_ref().is_none_or(|pattern| pattern.is_match(text));
                // PostgreSQL's text cannot hold U+0000.
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

/// A complaint with what to send instead.
fn with(complaint: Cow<'static, str>, advice: Option<String>) -> Cow<'static, str> {
    match advice {
        Some(advice) => format!("{complaint}; {advice}").into(),
        None => complaint,
    }
}

/// Every whole number of so many digits is a double.
const EXACT_DIGITS: usize = 15;

/// `2.0` and `2e0` are whole numbers, too.
fn read_integer(text: &str) -> Option<i64> {
    match text.parse() {
        Ok(value) => Some(value),
        Err(_) => i64::try_from(Decimal::parse(text, 19, 0)?.units()).ok(),
    }
}

/// As PostgreSQL reads them: in any case, and cut short as long as it is clear what is meant.
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

/// Reads the nearest double; none is zero for what is not.
fn read_double(text: &str) -> Option<f64> {
    let value = text.parse::<f64>().ok().filter(|value| value.is_finite())?;
    let mantissa = text.split(['e', 'E']).next().unwrap_or_default();
    let is_lost = value == 0.0 && mantissa.contains(|letter: char| matches!(letter, '1'..='9'));
    (!is_lost && !is_altered(text, value)).then_some(value)
}

/// Whether a whole number became another one: it is none that a double holds, nor what programs write for one.
fn is_altered(text: &str, value: f64) -> bool {
    let is_whole = text.trim_start_matches(['-', '+']).bytes().all(|byte| byte.is_ascii_digit());
    if !is_whole || text.len() <= EXACT_DIGITS {
        return false;
    }
    let units = |text: &str| Decimal::parse(text, PRECISION_MAX, 0).map(Decimal::units);
    // Of more digits than that nobody expects each to be kept.
    units(text)
        .is_some_and(|said| Some(said) != units(&format!("{value:e}")) && Some(said) != units(&format!("{value:.0}")))
}
