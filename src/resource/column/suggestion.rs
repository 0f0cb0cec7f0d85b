//! Suggestions for a text that is not a valid value of a column. They appear in error messages only and are never applied.

use unicode_normalization::UnicodeNormalization;

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
        if is_spreadsheet_error(text) && !self.is_text() {
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
        // The same letters, composed differently, look alike.
        let is_alike = matches!(self.kind, Kind::Enum(_)) && spellings.iter().any(|known| known.nfc().eq(text.nfc()));
        let form =
            if is_alike { ", in the normalization form that the description has (Unicode, NFC or NFD)" } else { "" };
        (!spellings.is_empty()).then(|| format!("send {}{form}", spellings.join(" or ")))
    }
}

/// Whether a text is an error value of a spreadsheet in any language: `#VALUE!`, `#WERT!`, `#¿NOMBRE?`.
fn is_spreadsheet_error(text: &str) -> bool {
    (3..20).contains(&text.len()) && text.starts_with('#') && text.ends_with(['!', '?'])
}

/// Possible readings of a text as a number.
fn numbers(text: &str) -> Vec<String> {
    let plain: String = text.chars().map(ascii).collect();
    let hexadecimal = plain.trim_start_matches(['-', '+']).to_ascii_lowercase();
    for (prefix, radix) in [("0x", 16), ("0o", 8), ("0b", 2)] {
        if let Some(number) =
            hexadecimal.strip_prefix(prefix).and_then(|digits| i64::from_str_radix(digits, radix).ok())
        {
            return vec![format!("{}{number}", if plain.starts_with('-') { "-" } else { "" })];
        }
    }
    // Accounting programs write a negative number in parentheses, SAP and COBOL with the sign behind it.
    let behind = plain.strip_prefix('(').and_then(|rest| rest.strip_suffix(')')).or_else(|| plain.strip_suffix('-'));
    // A currency sign may precede the number, and a unit may follow it. A bound such as <5 is not a number.
    let number = behind.unwrap_or(&plain);
    let number = number.trim_start_matches(|letter: char| !letter.is_alphanumeric() && !"+-.,<>≤≥~≈±".contains(letter));
    let (number, unit) =
        number.split_at(number.rfind(|letter: char| ",.0123456789".contains(letter)).map_or(0, |at| at + 1));
    let unsigned = number.strip_prefix(['-', '+']).unwrap_or(number);
    if is_factor(unit) || (behind.is_some() && unsigned != number) {
        return Vec::new();
    }
    let sign = if number.starts_with('-') || behind.is_some() { "-" } else { "" };
    let Some(digits) = joined(unsigned.trim_start()) else { return Vec::new() };
    let (commas, points) = (digits.matches(',').count(), digits.matches('.').count());
    let unmarked = |mark: char| grouped(&digits, mark).then(|| digits.replace(mark, ""));
    match (commas, points) {
        (1, 0) => [Some(digits.replace(',', ".")), unmarked(',')].into_iter().flatten().collect(),
        (2.., 0 | 1) => unmarked(',').into_iter().collect(),
        (0 | 1, 2..) => unmarked('.').map(|number| number.replace(',', ".")).into_iter().collect(),
        (1, 1) if digits.find(',') > digits.find('.') => vec![digits.replace('.', "").replace(',', ".")],
        (1, 1) => vec![digits.replace(',', "")],
        _ => vec![digits],
    }
    .into_iter()
    .map(|number: String| format!("{sign}{number}"))
    .filter(|spelling| spelling != text)
    .collect()
}

/// Whether a text after a number changes its value: `5k`, `5 million`, `5½`. 5% may mean 5 or 0.05.
fn is_factor(unit: &str) -> bool {
    const FACTORS: [&str; 22] = [
        "k", "m", "mm", "mn", "mio", "b", "bn", "g", "t", "tsd", "mrd", "thousand", "million", "millions", "billion",
        "billions", "trillion", "lakh", "crore", "cr", "dr", "e",
    ];
    let unit = unit.trim().trim_end_matches('.').to_lowercase();
    let is_fraction = |letter: char| matches!(letter, '\u{bc}'..='\u{be}' | '\u{2150}'..='\u{215f}');
    FACTORS.contains(&unit.as_str())
        || unit.contains(['%', '‰', '千', '万', '億', '亿', '-'])
        || unit.contains(is_fraction)
}

/// The number without blanks, underscores and apostrophes, if these separate groups of three digits.
fn joined(number: &str) -> Option<String> {
    let is_mark = |letter: char| letter.is_whitespace() || "_'’".contains(letter);
    let whole = &number[..number.find([',', '.']).unwrap_or(number.len())];
    let mut groups = whole.split(is_mark);
    let is_first = groups.next();
    let is_first =
        is_first.is_some_and(|first| first == whole || ((1..=3).contains(&first.len()) && !first.starts_with('0')));
    let is_grouped = is_first && groups.all(|group| group.len() == 3) && !number[whole.len()..].contains(is_mark);
    is_grouped.then(|| number.replace(is_mark, ""))
}

/// Whether a mark separates groups of three digits, or before the last one of two as in India.
fn grouped(number: &str, mark: char) -> bool {
    let other = if mark == ',' { '.' } else { ',' };
    let whole = number.split(other).next().unwrap_or_default();
    let groups: Vec<usize> = whole.split(mark).map(str::len).collect();
    let [first, between @ .., last] = groups.as_slice() else { return false };
    (1..=3).contains(first) && *last == 3 && [2, 3].iter().any(|size| between.iter().all(|group| group == size))
}

/// Maps digits and marks of other scripts to ASCII, and the minus sign U+2212 to a hyphen.
fn ascii(letter: char) -> char {
    match letter {
        '\u{2212}' | '\u{ff0d}' => return '-',
        '\u{ff0b}' => return '+',
        '\u{66b}' | '\u{ff0e}' => return '.',
        '\u{ff0c}' => return ',',
        '\u{66c}' => return '\'',
        _ => {}
    }
    let zero = ZEROS.iter().find(|zero| (u32::from(**zero)..u32::from(**zero) + 10).contains(&u32::from(letter)));
    zero.and_then(|zero| char::from_digit(u32::from(letter) - u32::from(*zero), 10)).unwrap_or(letter)
}
