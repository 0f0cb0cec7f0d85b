//! The type of a column's values with their rules, and the errors that a description of them may have.

use super::decimal::{Decimal, PRECISION_MAX};
use super::description::ColumnDescription;
use super::pattern;

/// Maximum length that a column may have, in characters; a CSV record is limited, too.
pub const LENGTH_MAX: u32 = 10_000;
/// Default maximum length.
const LENGTH_DEFAULT: u32 = 1000;
/// Maximum number of values of an enumeration.
const ENUM_MAX: usize = 100;

/// The type of a column's values, with their rules.
#[derive(Debug, Clone, PartialEq)]
pub enum Kind {
    /// True or false.
    Boolean,
    /// An integer.
    Integer {
        /// 16, 32 or 64.
        bits: u8,
        /// Inclusive bounds, within the range of the bits.
        minimum: i64,
        /// See above.
        maximum: i64,
        /// All possible values, ascending, if specified.
        values: Option<Vec<i64>>,
    },
    /// A double.
    Number {
        /// The minimum value.
        minimum: Option<f64>,
        /// The maximum value.
        maximum: Option<f64>,
    },
    /// An exact decimal.
    Decimal {
        /// Total number of digits.
        precision: u8,
        /// Number of decimal places.
        scale: u8,
        /// The minimum value, as written in the description.
        minimum: Option<String>,
        /// The maximum value, as written in the description.
        maximum: Option<String>,
    },
    /// A text.
    Text {
        /// The minimum number of characters.
        min_length: u32,
        /// The maximum number of characters.
        max_length: u32,
        /// A regular expression that it must match.
        pattern: Option<String>,
    },
    /// One of these texts, in the order of the description.
    Enum(Vec<String>),
    /// A date.
    Date,
    /// An instant.
    DateTime,
    /// A UUID.
    Uuid,
}

impl ColumnDescription {
    /// The type of its values.
    ///
    /// # Errors
    /// A rule that does not apply to the type, or is invalid.
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
                return Err(format!("{key} does not apply to this type; leave it out"));
            }
        }
        Ok(kind)
    }

    fn format(&self, known: &[&str]) -> Result<Option<&str>, String> {
        match self.format.as_deref() {
            Some(format) if !known.contains(&format) => {
                let known = if known.is_empty() {
                    "this type has no formats".to_owned()
                } else {
                    format!("expected {}", known.join(", "))
                };
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
                return Err("enum lists every value; leave minimum and maximum out".to_owned());
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
            return Err(format!("a decimal must have a precision from 1 to {PRECISION_MAX} and a scale not above it"));
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
                        leading or trailing blanks, and control characters"
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
                    return Err(format!(
                        "minLength must not exceed maxLength, and maxLength must be from 1 to {LENGTH_MAX}"
                    ));
                }
                if let Some(pattern) = &self.pattern {
                    pattern::check(pattern)?;
                }
                Kind::Text { min_length, max_length, pattern: self.pattern.clone() }
            }
        })
    }
}

/// Whether a text may be a value of an enumeration: it must be written the same way in JSON, CSV, filters and SQL.
fn is_enum_text(text: &str) -> bool {
    (1..=100).contains(&text.chars().count())
        && text.trim() == text
        && !text.contains(|letter: char| letter.is_control() || "\"',()\\".contains(letter))
}

fn count_of_enum(count: usize) -> Result<(), String> {
    if (1..=ENUM_MAX).contains(&count) { Ok(()) } else { Err(format!("an enum must have 1 to {ENUM_MAX} values")) }
}
