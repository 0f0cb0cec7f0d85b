//! Reads a CSV cell as written by other programs. A valid value is accepted as it is; another program's spelling is accepted if
//! it has only one meaning, and counted.
//!
//! Accepted spellings: the booleans of PostgreSQL's input ("Boolean Type" in its manual), what pandas, R, psql and spreadsheets
//! write for a missing value, thousands separators and the decimal comma, and the booleans of spreadsheets in other languages.

use std::borrow::Cow;

use unicode_normalization::UnicodeNormalization;

use super::super::decimal::Decimal;
use super::super::kind::Kind;
use super::super::time::begins_as_iso;
use super::super::value::Value;
use super::Column;
use crate::csv::cells::Cell;
use crate::csv::notes::Notes;

/// Spellings of a missing value, in any letter case: pandas' `na_values`, R's `NA`, psql's `\N`, spreadsheets' `#N/A` in
/// several languages, what table viewers display for null, `?` of ARFF files, `..` of statistical offices, and dashes typed
/// by hand.
const NULL_WORDS: [&str; 31] = [
    "na", "n/a", "#n/a", "nan", "-nan", "nat", "null", "none", "<na>", "\\n", "#na", "#n/a n/a", "1.#ind", "-1.#ind",
    "1.#qnan", "-1.#qnan", "n.a.", "<null>", "(null)", "[null]", "nil", "-", "--", "–", "—", ".", "..", "?", "#nv",
    "#n/d", "#yok",
];
/// PostgreSQL's words, and the values of `TRUE()` and `FALSE()` in spreadsheets whose language is not English, in lower case.
const TRUE_WORDS: [&str; 20] = [
    "t",
    "yes",
    "y",
    "on",
    "wahr",
    "vrai",
    "verdadero",
    "vero",
    "verdadeiro",
    "waar",
    "doğru",
    "prawda",
    "pravda",
    "igaz",
    "sant",
    "sand",
    "sann",
    "tosi",
    "adevărat",
    "истина",
];
const FALSE_WORDS: [&str; 19] = [
    "f", "no", "n", "off", "falsch", "faux", "falso", "onwaar", "yanlış", "yanliş", "fałsz", "nepravda", "hamis",
    "falskt", "falsk", "usann", "epätosi", "fals", "ложь",
];

/// How to write a number with all of its digits.
const UNROUNDED: &str =
    "write all of its digits; in a spreadsheet, format the column as a number without decimals and save the file again";
/// Spreadsheets write integers with more digits than this in the form `1.23457E+12`.
const SPREADSHEET_DIGITS: usize = 11;
/// The decimals that are left then, and by `%g` of C, which writes 1234567 as `1.23457e+06`.
const DECIMALS_LEFT: usize = 5;

/// State of reading one file.
#[derive(Debug, Clone, Default)]
pub struct ReadState {
    /// The decimal mark of the file, once a number has determined it.
    mark: Option<DecimalMark>,
    /// What separates thousands in the file, once a number such as `1.234,50` has shown it.
    thousands: Option<char>,
    /// Whether a cell between tabs was `\N`, as in PostgreSQL's text format, where a backslash in a text begins an escape.
    has_null_escape: bool,
    /// Whether a text between tabs has a backslash.
    has_backslash: bool,
    /// Counts of converted values.
    pub notes: Notes,
}

/// What precedes the decimals of a number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DecimalMark {
    /// `7.25`
    Point,
    /// `7,25`
    Comma,
}

impl ReadState {
    /// The state after a number that determined the decimal mark.
    pub fn with_mark(mark: DecimalMark) -> Self {
        Self { mark: Some(mark), ..Self::default() }
    }

    /// The decimal mark, once it is determined.
    pub fn decimal_mark(&self) -> Option<DecimalMark> {
        self.mark
    }
}

/// Why a cell is rejected.
pub type Message = Cow<'static, str>;

impl Column {
    /// Reads a CSV cell; `is_padded` states that blanks around unquoted texts of its row are padding.
    ///
    /// # Errors
    /// The column's rule, or the values that the cell could mean.
    pub fn read_cell<'a>(
        &self,
        cell: Cell<'a>,
        separator: char,
        is_padded: bool,
        state: &mut ReadState,
    ) -> Result<Value<'a>, Message> {
        let rule = || self.rule_message(self.csv_rule, cell.text.trim());
        if separator == '\t' && !cell.is_quoted && cell.text.contains('\\') {
            self.check_escape(cell.text.trim(), state)?;
        }
        if matches!(self.kind, Kind::Text { .. }) {
            return self.read_text_cell(cell, is_padded, &mut state.notes).ok_or_else(rule);
        }
        let text = cell.text.trim();
        if text.is_empty() && self.nullable {
            return Ok(Value::Null);
        }
        let is_in_any_case = || matches!(&self.kind, Kind::Enum(texts) if in_any_case(texts, text).is_some());
        if self.nullable && is_null_word(text) && self.read_text(text).is_none() && !is_in_any_case() {
            state.notes.nulls += 1;
            return Ok(Value::Null);
        }
        match &self.kind {
            Kind::Integer { .. } | Kind::Number { .. } | Kind::Decimal { .. } => {
                let is_exact = !matches!(self.kind, Kind::Number { .. });
                if is_exact
                    && may_be_rounded(text)
                    && let Some(value) = self.read_number(&text.replace(',', "."))
                {
                    return Err(format!("is {value} or a number that was rounded to it; {UNROUNDED}").into());
                }
                let number = self.with_point(text, separator, state)?;
                self.read_number(&number).ok_or_else(rule)
            }
            Kind::Boolean => match self.read_csv(text) {
                Some(value) => Ok(value),
                None => {
                    let value = boolean(text).ok_or_else(rule)?;
                    state.notes.booleans += 1;
                    Ok(Value::Boolean(value))
                }
            },
            Kind::Enum(texts) => match self.read_text(text) {
                Some(value) => Ok(value),
                None => {
                    let value = in_any_case(texts, text).ok_or_else(rule)?;
                    state.notes.letter_cases += 1;
                    Ok(Value::Text(Cow::Owned(value.to_owned())))
                }
            },
            _ => {
                let value = self.read_csv(text).ok_or_else(rule)?;
                let is_day = matches!(self.kind, Kind::Date | Kind::DateTime);
                state.notes.dates += u64::from(is_day && !begins_as_iso(text));
                Ok(value)
            }
        }
    }

    /// Refuses a backslash whose meaning depends on the program that wrote the file: psql, MySQL and jq write escapes between
    /// tabs, spreadsheets and pandas do not.
    fn check_escape(&self, text: &str, state: &mut ReadState) -> Result<(), Message> {
        let is_text = matches!(self.kind, Kind::Text { .. });
        if is_text && text == "\\N" {
            return Err("is the text \\N or null; enclose the text in quotes, and leave the cell empty for null".into());
        }
        state.has_backslash |= is_text;
        state.has_null_escape |= !is_text && text == "\\N";
        if state.has_backslash && state.has_null_escape {
            return Err("has a backslash that is part of the text or begins an escape, because the file has \\N for null; export \
                        it as CSV, or enclose texts with backslashes in quotes"
                .into());
        }
        Ok(())
    }

    /// An empty cell is null if the column is nullable, because a nullable text is never empty.
    fn read_text_cell<'a>(&self, cell: Cell<'a>, is_padded: bool, notes: &mut Notes) -> Option<Value<'a>> {
        let text = if is_padded && !cell.is_quoted { cell.text.trim_matches([' ', '\t']) } else { cell.text };
        notes.trimmed += u64::from(text.len() < cell.text.len() && !text.is_empty());
        if text.is_empty() && self.nullable { Some(Value::Null) } else { self.read_text(text) }
    }

    /// Rewrites a number that may have a decimal comma to a decimal point.
    fn with_point<'a>(&self, text: &'a str, separator: char, state: &mut ReadState) -> Result<Cow<'a, str>, Message> {
        let is_plain = text.bytes().all(|byte| byte.is_ascii_digit() || b".-+eE".contains(&byte));
        let points = text.bytes().filter(|byte| *byte == b'.').count();
        if is_plain && points == 0 {
            return Ok(text.into());
        }
        if let Some(mark) = state.thousands.filter(|mark| has_group(text, *mark)) {
            let whole = text.replace(mark, "");
            state.notes.thousands += u64::from(self.read_number(&whole).is_some());
            return Ok(whole.into());
        }
        if let Some((mark, plain)) = if is_plain && points == 1 { None } else { ungrouped(text) } {
            // A point or comma between groups leaves the other one as the decimal mark.
            let decimal = match mark {
                '.' => Some(DecimalMark::Comma),
                ',' => Some(DecimalMark::Point),
                _ => None,
            };
            if decimal.is_none() || state.mark.is_none() || state.mark == decimal {
                state.mark = decimal.or(state.mark);
                if self.read_number(&plain.replace(',', ".")).is_some() {
                    state.notes.thousands += 1;
                    state.thousands = decimal.map(|_| mark).or(state.thousands);
                }
                return self.with_point(&plain, separator, state).map(|number| Cow::Owned(number.into_owned()));
            }
        }
        let both = |first: &str, second: &str| {
            Err(Cow::Owned(format!(
                "is {first} or {second}; use the same decimal mark, a point or a comma, in all numbers"
            )))
        };
        match (text.matches(',').count(), points) {
            (1, _) if points == 0 || is_grouped(text) => {
                let number = text.replace('.', "").replace(',', ".");
                let whole = text.replace(',', "");
                let can_be_whole = points == 0 && has_group(text, ',') && self.read_number(&whole).is_some();
                let is_decided = state.mark == Some(DecimalMark::Comma) || self.read_number(&number).is_none();
                if state.mark == Some(DecimalMark::Point) || (can_be_whole && !is_decided) {
                    return both(&number, &whole);
                }
                if self.read_number(&number).is_some() {
                    state.mark = Some(DecimalMark::Comma);
                    state.thousands = (points > 0).then_some('.').or(state.thousands);
                    state.notes.decimal_commas += 1;
                }
                Ok(number.into())
            }
            (0, 1) => {
                let whole = || text.replace('.', "");
                let can_be_whole = || has_group(text, '.') && self.read_number(&whole()).is_some();
                match state.mark {
                    Some(DecimalMark::Comma) => return both(text, &whole()),
                    // A semicolon as the separator suggests decimal commas, and an integer that the point separates thousands;
                    // other separators and types suggest nothing.
                    None if (separator == ';' || matches!(self.kind, Kind::Integer { .. }))
                        && can_be_whole()
                        && self.read_number(text).is_some() =>
                    {
                        return both(text, &whole());
                    }
                    None if self.read_number(text).is_some() => state.mark = Some(DecimalMark::Point),
                    _ => {}
                }
                Ok(text.into())
            }
            _ => Ok(text.into()),
        }
    }
}

/// Whether a text denotes a missing value; Stata and SAS distinguish some by a letter, `.a`.
pub fn is_null_word(text: &str) -> bool {
    NULL_WORDS.iter().any(|word| text.eq_ignore_ascii_case(word))
        || matches!(text.as_bytes(), [b'.', mark] if mark.is_ascii_alphabetic() || *mark == b'_')
}

fn boolean(text: &str) -> Option<bool> {
    let folded = text.to_lowercase();
    let is_one_of = |words: &[&str]| words.contains(&folded.as_str());
    let number = || Decimal::parse(&text.replace(',', "."), 1, 0).map(Decimal::units);
    if is_one_of(&TRUE_WORDS) || number() == Some(1) {
        Some(true)
    } else if is_one_of(&FALSE_WORDS) || number() == Some(0) {
        Some(false)
    } else {
        None
    }
}

/// The only text that differs in nothing but letter case and the composition of letters and marks (Unicode, NFC).
pub fn in_any_case<'a>(texts: &'a [String], text: &str) -> Option<&'a str> {
    let folded = |text: &str| text.nfc().flat_map(char::to_lowercase).collect::<String>();
    let given = folded(text);
    let mut alike = texts.iter().filter(|known| folded(known) == given);
    alike.next().filter(|_| alike.next().is_none()).map(String::as_str)
}

/// Whether a number may have lost digits when it was written: spreadsheets save those that they display, `1.23457E+12`, and
/// `%g` and C++ streams write six.
fn may_be_rounded(text: &str) -> bool {
    let unsigned = text.trim_start_matches(['-', '+']);
    let Some((mantissa, exponent)) = unsigned.split_once("E+").or_else(|| unsigned.split_once("e+")) else {
        return false;
    };
    let decimals = mantissa.split_once(['.', ',']).map_or(0, |(_, decimals)| decimals.len());
    let exponent = exponent.parse::<usize>().unwrap_or_default();
    let is_displayed = text.contains('E') && decimals <= DECIMALS_LEFT && exponent >= SPREADSHEET_DIGITS;
    is_displayed || (decimals == DECIMALS_LEFT && exponent > DECIMALS_LEFT)
}

/// Whether the mark could separate thousands: three digits follow it.
fn has_group(text: &str, mark: char) -> bool {
    let digits = text.trim_start_matches(['-', '+']);
    let Some((whole, group)) = digits.split_once(mark) else { return false };
    let are_digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    (1..=3).contains(&whole.len())
        && !whole.starts_with('0')
        && group.len() == 3
        && are_digits(whole)
        && are_digits(group)
}

/// A number without its thousands separators if these are unambiguous: spaces, apostrophes, commas before a point, or more than
/// one comma or point.
fn ungrouped(text: &str) -> Option<(char, String)> {
    const MARKS: [char; 8] = [' ', '\u{a0}', '\u{202f}', '\u{2009}', '\'', '’', '.', ','];
    let groups = |mark: char| text.contains(mark).then(|| without_groups(text, mark)).flatten();
    MARKS.into_iter().find_map(|mark| Some((mark, groups(mark)?)))
}

fn without_groups(text: &str, mark: char) -> Option<String> {
    let decimals = match mark {
        '.' => &[','][..],
        ',' => &['.'],
        _ => &[',', '.'],
    };
    let (whole, fraction) = text.split_at(text.find(decimals).unwrap_or(text.len()));
    let whole = whole.trim_start_matches(['-', '+']);
    let groups: Vec<&str> = whole.split(mark).collect();
    let (first, others) = groups.split_first()?;
    let is_enough = match mark {
        // A point before a comma is recognised with the decimal comma.
        '.' => others.len() > 1 && fraction.is_empty(),
        ',' => others.len() > usize::from(fraction.is_empty()),
        _ => !others.is_empty(),
    };
    let is_grouped =
        (1..=3).contains(&first.len()) && !first.starts_with('0') && others.iter().all(|group| group.len() == 3);
    (is_enough && is_grouped && !fraction.contains(mark)).then(|| text.replace(mark, ""))
}

/// Whether points separate the thousands before a decimal comma.
fn is_grouped(text: &str) -> bool {
    let Some((whole, fraction)) = text.split_once(',') else { return false };
    let whole = whole.trim_start_matches(['-', '+']);
    let mut groups = whole.split('.');
    let first = groups.next().unwrap_or_default();
    let is_first = whole == first || !first.starts_with('0');
    is_first && (1..=3).contains(&first.len()) && groups.all(|group| group.len() == 3) && !fraction.contains('.')
}

#[cfg(test)]
mod tests;
