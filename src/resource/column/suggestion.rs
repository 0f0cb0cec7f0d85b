//! Suggestions for a text that is not a valid value of a column. They appear in error messages only and are never applied.

use super::super::kind::Kind;
use super::Column;
use super::cell::{in_any_case, is_null_word};

/// Longer texts are not treated as numbers.
const NUMBER_MAX_BYTES: usize = 60;
/// The digits zero of scripts other than ASCII; the other nine digits follow each in Unicode.
const ZEROS: [char; 14] = [
    '\u{660}', '\u{6f0}', '\u{7c0}', '\u{966}', '\u{9e6}', '\u{a66}', '\u{ae6}', '\u{b66}', '\u{be6}', '\u{c66}',
    '\u{ce6}', '\u{d66}', '\u{e50}', '\u{ff10}',
];
/// Error values of spreadsheets.
const SPREADSHEET_ERRORS: [&str; 8] = ["#value!", "#ref!", "#div/0!", "#num!", "#name?", "#null!", "#spill!", "#calc!"];

impl Column {
    /// Valid spellings of the values that this text could denote.
    pub fn possible_spellings(&self, text: &str) -> Vec<String> {
        let text = text.trim();
        let texts = match &self.kind {
            Kind::Integer { .. } | Kind::Number { .. } | Kind::Decimal { .. } if text.len() <= NUMBER_MAX_BYTES => {
                numbers(text)
            }
            Kind::Enum(texts) => in_any_case(texts, text).map(str::to_owned).into_iter().collect(),
            _ => Vec::new(),
        };
        let mut spellings: Vec<String> = Vec::new();
        for text in texts {
            let value = self.read_csv(&text).filter(|value| !value.is_null()).map(|value| value.to_string());
            // Two spellings of one number count once.
            if value.is_some() && !spellings.iter().any(|known| self.read_csv(known) == self.read_csv(&text)) {
                spellings.push(text);
            }
        }
        spellings
    }

    /// What to send instead of a rejected text, if known; `is_json` states that the text was a JSON string.
    pub fn suggestion(&self, text: &str, is_json: bool) -> Option<String> {
        let text = text.trim();
        if SPREADSHEET_ERRORS.iter().any(|error| text.eq_ignore_ascii_case(error)) && !self.is_text() {
            return Some(format!(
                "{text} is a spreadsheet's value for a failed formula; fix the formula, or leave the cell empty"
            ));
        }
        let is_unquoted = matches!(self.kind, Kind::Integer { .. } | Kind::Number { .. } | Kind::Boolean);
        if is_json && is_unquoted && self.read_csv(text).is_some_and(|value| !value.is_null()) {
            return Some("send it without quotes".to_owned());
        }
        if is_json && self.nullable && is_null_word(text) {
            return Some("send null, without quotes".to_owned());
        }
        let spellings = self.possible_spellings(text);
        (!spellings.is_empty()).then(|| format!("send {}", spellings.join(" or ")))
    }
}

/// Possible readings of a text as a number.
fn numbers(text: &str) -> Vec<String> {
    let plain: String = text.chars().map(ascii).collect();
    let sign = if plain.starts_with('-') { "-" } else { "" };
    let unsigned = plain.trim_start_matches(['-', '+']);
    for (prefix, radix) in [("0x", 16), ("0o", 8), ("0b", 2)] {
        let digits = unsigned.to_ascii_lowercase();
        if let Some(number) = digits.strip_prefix(prefix).and_then(|digits| i64::from_str_radix(digits, radix).ok()) {
            return vec![format!("{sign}{number}")];
        }
    }
    // A percentage is ambiguous: 5% may mean 5 or 0.05.
    if plain.contains('%') {
        return Vec::new();
    }
    // A currency sign may precede the number, and a unit may follow it.
    let number = plain.trim_start_matches(|letter: char| !letter.is_alphanumeric() && !"+-.,".contains(letter));
    let number = number.trim_end_matches(|letter: char| !letter.is_ascii_digit() && !".,".contains(letter));
    let number: String = number.chars().filter(|letter| !letter.is_whitespace() && !"_'’".contains(*letter)).collect();
    let (commas, points) = (number.matches(',').count(), number.matches('.').count());
    match (commas, points) {
        (1, 0) => vec![number.replace(',', "."), number.replace(',', "")],
        (2.., 0 | 1) => vec![number.replace(',', "")],
        (0 | 1, 2..) => vec![number.replace('.', "").replace(',', ".")],
        (1, 1) if number.find(',') > number.find('.') => vec![number.replace('.', "").replace(',', ".")],
        (1, 1) => vec![number.replace(',', "")],
        _ => vec![number],
    }
    .into_iter()
    .filter(|spellings| spellings != text)
    .collect()
}

/// Maps a digit of another script to ASCII, and the minus sign U+2212 to a hyphen.
fn ascii(letter: char) -> char {
    if letter == '\u{2212}' {
        return '-';
    }
    let zero = ZEROS.iter().find(|zero| (u32::from(**zero)..u32::from(**zero) + 10).contains(&u32::from(letter)));
    zero.and_then(|zero| char::from_digit(u32::from(letter) - u32::from(*zero), 10)).unwrap_or(letter)
}
