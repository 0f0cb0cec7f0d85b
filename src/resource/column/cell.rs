//! Reads a CSV cell as written by other programs. A valid value is accepted as it is; another program's spelling is accepted if
//! it has only one meaning, and counted.
//!
//! Accepted spellings: the booleans of PostgreSQL's input ("Boolean Type" in its manual), what pandas, R, psql and spreadsheets
//! write for a missing value, and the decimal comma in files whose cells are separated by semicolons.

use std::borrow::Cow;

use super::super::decimal::Decimal;
use super::super::kind::Kind;
use super::super::time::begins_as_iso;
use super::super::value::Value;
use super::Column;
use crate::csv::cells::Cell;
use crate::csv::notes::Notes;

/// Spellings of a missing value, in any letter case: pandas' `na_values`, R's `NA`, psql's `\N`, spreadsheets' `#N/A`, what
/// table viewers display for null, and dashes typed by hand.
const NULL_WORDS: [&str; 26] = [
    "na", "n/a", "#n/a", "nan", "-nan", "nat", "null", "none", "<na>", "\\n", "#na", "#n/a n/a", "1.#ind", "-1.#ind",
    "1.#qnan", "-1.#qnan", "n.a.", "<null>", "(null)", "[null]", "nil", "-", "--", "–", "—", ".",
];
const TRUE_WORDS: [&str; 4] = ["t", "yes", "y", "on"];
const FALSE_WORDS: [&str; 4] = ["f", "no", "n", "off"];

/// State of reading one file.
#[derive(Debug, Clone, Default)]
pub struct ReadState {
    /// The decimal mark of the file, once a number has determined it.
    mark: Option<DecimalMark>,
    /// Counts of converted values.
    pub notes: Notes,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum DecimalMark {
    Point,
    Comma,
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
        if matches!(self.kind, Kind::Text { .. }) {
            return self.read_text_cell(cell, is_padded, &mut state.notes).ok_or_else(rule);
        }
        let text = cell.text.trim();
        if text.is_empty() && self.nullable {
            return Ok(Value::Null);
        }
        let is_in_any_case = matches!(&self.kind, Kind::Enum(texts) if in_any_case(texts, text).is_some());
        if self.nullable && self.read_text(text).is_none() && !is_in_any_case && is_null_word(text) {
            state.notes.nulls += 1;
            return Ok(Value::Null);
        }
        match &self.kind {
            Kind::Integer { .. } | Kind::Number { .. } | Kind::Decimal { .. } if separator != ',' => {
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

    /// An empty cell is null if the column is nullable, because a nullable text is never empty.
    fn read_text_cell<'a>(&self, cell: Cell<'a>, is_padded: bool, notes: &mut Notes) -> Option<Value<'a>> {
        let text = if is_padded && !cell.is_quoted { cell.text.trim_matches([' ', '\t']) } else { cell.text };
        notes.trimmed += u64::from(text.len() < cell.text.len() && !text.is_empty());
        if text.is_empty() && self.nullable { Some(Value::Null) } else { self.read_text(text) }
    }

    /// Rewrites a number that may have a decimal comma to a decimal point.
    fn with_point<'a>(&self, text: &'a str, separator: char, state: &mut ReadState) -> Result<Cow<'a, str>, Message> {
        let ungrouped = ungrouped(text).filter(|(mark, _)| *mark != '.' || state.mark != Some(DecimalMark::Point));
        if let Some((mark, plain)) = ungrouped {
            if mark == '.' {
                state.mark = Some(DecimalMark::Comma);
            }
            state.notes.thousands += u64::from(mark == '.' || self.read_number(&plain.replace(',', ".")).is_some());
            return self.with_point(&plain, separator, state).map(|number| Cow::Owned(number.into_owned()));
        }
        let count = |mark: char| text.matches(mark).count();
        let both = |first: &str, second: &str| {
            Err(Cow::Owned(format!(
                "is {first} or {second}; use the same decimal mark, a point or a comma, in all numbers"
            )))
        };
        match (count(','), count('.')) {
            (1, points) if points == 0 || is_grouped(text) => {
                let number = text.replace('.', "").replace(',', ".");
                let whole = text.replace(',', "");
                let can_be_whole = points == 0 && has_group(text, ',') && self.read_number(&whole).is_some();
                let is_decided = state.mark == Some(DecimalMark::Comma) || self.read_number(&number).is_none();
                if state.mark == Some(DecimalMark::Point) || (can_be_whole && !is_decided) {
                    return both(&number, &whole);
                }
                if self.read_number(&number).is_some() {
                    state.mark = Some(DecimalMark::Comma);
                    state.notes.decimal_commas += 1;
                }
                Ok(number.into())
            }
            (0, 1) => {
                let whole = text.replace('.', "");
                let can_be_whole = has_group(text, '.') && self.read_number(&whole).is_some();
                match state.mark {
                    Some(DecimalMark::Comma) => return both(text, &whole),
                    // A semicolon as the separator suggests decimal commas; tabs and bars suggest nothing.
                    None if separator == ';' && can_be_whole && self.read_number(text).is_some() => {
                        return both(text, &whole);
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

/// Whether a text denotes a missing value.
pub fn is_null_word(text: &str) -> bool {
    NULL_WORDS.iter().any(|word| text.eq_ignore_ascii_case(word))
}

fn boolean(text: &str) -> Option<bool> {
    let is_one_of = |words: &[&str]| words.iter().any(|word| text.eq_ignore_ascii_case(word));
    let number = || Decimal::parse(&text.replace(',', "."), 1, 0).map(Decimal::units);
    if is_one_of(&TRUE_WORDS) || number() == Some(1) {
        Some(true)
    } else if is_one_of(&FALSE_WORDS) || number() == Some(0) {
        Some(false)
    } else {
        None
    }
}

/// The only text that differs in nothing but letter case.
pub fn in_any_case<'a>(texts: &'a [String], text: &str) -> Option<&'a str> {
    let folded = text.to_lowercase();
    let mut alike = texts.iter().filter(|known| known.to_lowercase() == folded);
    alike.next().filter(|_| alike.next().is_none()).map(String::as_str)
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

/// A number without its thousands separators if these are unambiguous: non-breaking spaces, apostrophes, or more than one
/// point.
fn ungrouped(text: &str) -> Option<(char, String)> {
    let mark = ['\u{a0}', '\u{202f}', '\u{2009}', '\'', '’', '.'].into_iter().find(|mark| text.contains(*mark))?;
    let decimals = if mark == '.' { &[','][..] } else { &[',', '.'][..] };
    let (whole, fraction) = text.split_at(text.find(decimals).unwrap_or(text.len()));
    let whole = whole.trim_start_matches(['-', '+']);
    let groups: Vec<&str> = whole.split(mark).collect();
    let (first, others) = groups.split_first()?;
    let is_enough = if mark == '.' { others.len() > 1 && fraction.is_empty() } else { !others.is_empty() };
    let is_grouped =
        (1..=3).contains(&first.len()) && !first.starts_with('0') && others.iter().all(|group| group.len() == 3);
    (is_enough && is_grouped && !fraction.contains(mark)).then(|| (mark, text.replace(mark, "")))
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
mod tests {
    use super::super::super::registry::passengers;
    use super::*;
    use crate::resource::definition::Resource;

    const THINGS: &str = r#"
        name = "things"
        column = [
            { name = "flag", type = "boolean", nullable = true },
            { name = "number", type = "integer", format = "int32", nullable = true },
            { name = "size", type = "number", nullable = true },
            { name = "price", type = "decimal(9,2)", nullable = true },
            { name = "kind", type = "string", enum = ["Small", "large", "XL", "xl"], nullable = true },
            { name = "region", type = "string", enum = ["EU", "NA", "None"], nullable = true },
            { name = "day", type = "string", format = "date", nullable = true },
            { name = "note", type = "string", maxLength = 9 },
            { name = "code", type = "string", minLength = 1, maxLength = 9, nullable = true },
            { name = "must", type = "number" },
        ]
    "#;

    fn things() -> &'static Resource {
        let no_file = |_: &str| Err(String::new());
        Resource::load(THINGS, no_file).unwrap_or_else(|faults| panic!("{faults:?}"))
    }

    /// Reads cells of a column in a file with this separator, one after the other.
    fn read(column: &str, separator: char, cells: &[&str]) -> Vec<String> {
        let resource = things();
        let column = resource.field(column).expect("a column");
        let mut state = ReadState::default();
        let value = |text: &&str| {
            let quoted = text.strip_prefix('"').and_then(|text| text.strip_suffix('"'));
            let cell = Cell { text: quoted.unwrap_or(text), is_quoted: quoted.is_some() };
            match column.read_cell(cell, separator, false, &mut state) {
                Ok(Value::Text(text)) => format!("{text:?}"),
                Ok(value) => value.to_string(),
                Err(message) => message.into_owned(),
            }
        };
        cells.iter().map(value).collect()
    }

    #[test]
    fn the_spellings_of_other_programs_are_accepted() {
        for (column, cells, expected) in [
            ("flag", &["TRUE", "True", "t", "Yes", "y", "on", "1", "1.0"][..], "true"),
            ("flag", &["FALSE", "False", "f", "No", "n", "off", "0", "0.0"], "false"),
            ("flag", &["", "NA", "\\N", "NULL", "\"NA\""], "null"),
            ("number", &["<NA>", "#NA", "n.a.", "(null)", "[NULL]", "-", "--", "—", ".", "-1.#IND"], "null"),
            ("day", &["<NA>", "-", "n/a"], "null"),
            ("flag", &["-", "None"], "null"),
            (
                "size",
                &["#VALUE!"],
                "must be a number, or empty; #VALUE! is a spreadsheet's value for a failed formula; fix the formula, \
                or leave the cell empty",
            ),
            ("number", &["NA", "NaN", "nan", "null", "\\N", "#N/A", "None", " "], "null"),
            ("number", &["7", "+7", " 7 ", "7.0", "7e0", "\"7\""], "7"),
            ("size", &["#N/A", "-nan", "<NA>"], "null"),
            ("kind", &["small", "SMALL", " Small"], "\"Small\""),
            ("kind", &["XL"], "\"XL\""),
            ("kind", &["Xl", "other"], "must be Small, large, XL or xl, or empty"),
            ("kind", &["N/A"], "null"),
            ("region", &["na", "NA", " Na"], "\"NA\""),
            ("region", &["N/A", "NULL"], "null"),
            ("day", &["NULL"], "null"),
            ("note", &["NA"], "\"NA\""),
            ("note", &["", "\"\""], "\"\""),
            ("code", &["", "\"\""], "null"),
            ("must", &["", "NA", "nan", "inf"], "must be a number"),
            ("must", &["1,5"], "must be a number; send 1.5 or 15"),
            (
                "must",
                &["1e-999", "1e999"],
                "must be a number; a double is zero or has a magnitude between about 5e-324 and 1.8e308",
            ),
            ("flag", &["2", "wahr", "1.5", "10"], "must be true, false, yes, no, on, off, 1 or 0, or empty"),
        ] {
            assert_eq!(read(column, ',', cells), vec![expected; cells.len()], "{column} {cells:?}");
        }
    }

    #[test]
    fn a_decimal_comma_is_accepted_if_it_is_unambiguous() {
        let both = |first: &str, second: &str| {
            format!("is {first} or {second}; use the same decimal mark, a point or a comma, in all numbers")
        };
        for (cells, expected) in [
            (&["7,25", "-0,5", "8", "1.234,5"][..], vec!["7.25", "-0.5", "8.0", "1234.5"]),
            (&["7.25", "1.234"], vec!["7.25", "1.234"]),
            (&["0.925", "1.234"], vec!["0.925", "1.234"]),
            (&["7,25", "7.25"], vec!["7.25", &both("7.25", "725")]),
            (&["7.25", "7,25"], vec!["7.25", &both("7.25", "725")]),
            (&["1.234"], vec![&both("1.234", "1234")]),
            (&["1,234"], vec![&both("1.234", "1234")]),
            (&["0,5", "1,234"], vec!["0.5", "1.234"]),
            (
                &["1,234.5", "1,234,567.5"],
                vec!["must be a number, or empty; send 1234.5", "must be a number, or empty; send 1234567.5"],
            ),
            (
                &["7,", "1,2,3", "1.2.3"],
                vec!["7.0", "must be a number, or empty; send 123", "must be a number, or empty; send 123"],
            ),
        ] {
            assert_eq!(read("size", ';', cells), expected, "{cells:?}");
        }
        for separator in ['\t', '|'] {
            for (cells, expected) in [
                (&["7,25", "-0,5", "8", "1.234,5"][..], vec!["7.25", "-0.5", "8.0", "1234.5"]),
                (&["1.234", "7.25"], vec!["1.234", "7.25"]),
                (&["1.234", "7,25"], vec!["1.234", &both("7.25", "725")]),
                (&["7,25", "1.234"], vec!["7.25", &both("1.234", "1234")]),
                (&["1,234"], vec![&both("1.234", "1234")]),
                (&["7.25", "1,234"], vec!["7.25", &both("1.234", "1234")]),
            ] {
                assert_eq!(read("size", separator, cells), expected, "{separator:?} {cells:?}");
            }
        }
        assert_eq!(read("size", ',', &["7,25"]), ["must be a number, or empty; send 7.25 or 725"]);
        assert_eq!(read("price", ';', &["7,25", "1000000,01"]), ["7.25", "1000000.01"]);
        assert_eq!(read("number", ';', &["2.000", "7,0"]), [both("2.000", "2000").as_str(), "7"]);
        assert_eq!(read("flag", ';', &["1,0"]), ["true"]);
    }

    #[test]
    fn blanks_around_a_text_are_kept_unless_its_row_is_padded() {
        let name = passengers().field("name").expect("a name");
        let mut state = ReadState::default();
        for (text, is_quoted, is_padded, expected) in
            [(" a ", false, false, " a "), (" a ", false, true, "a"), (" a ", true, true, " a ")]
        {
            let value = name.read_cell(Cell { text, is_quoted }, ',', is_padded, &mut state);
            assert_eq!(value, Ok(Value::Text(expected.into())), "{text:?}");
        }
        assert_eq!(state.notes.trimmed, 1);
    }
}
