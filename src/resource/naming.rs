//! Derives valid names: of columns from headers, and of a resource from a file name.

use std::collections::BTreeSet;

use unicode_normalization::UnicodeNormalization;
use unicode_normalization::char::is_combining_mark;

use super::check::{IDENTIFIER_MAX, RESERVED};
use super::definition::capitalised;
use super::description::header_key;
use super::identifier::snake_case;
use super::unnamed::is_unnamed;
use crate::csv::cells::Cells;

/// Maximum length of a resource's name.
const RESOURCE_MAX: usize = 40;
/// Space reserved for a suffix that makes a name unique.
const SUFFIX_MAX: usize = 4;

/// Derives column names of one resource.
#[derive(Debug)]
pub struct Names<'a> {
    resource: &'a str,
}

impl<'a> Names<'a> {
    /// For the columns of this resource.
    pub fn new(resource: &'a str) -> Self {
        Self { resource }
    }

    /// A name for each column of a header; a valid name is unchanged, and an unnamed column has an empty one.
    ///
    /// # Errors
    /// Every column that import could not identify by its header.
    pub fn of(&self, header: &Cells) -> Result<Vec<String>, Vec<String>> {
        let line = header.line();
        let mut faults = Vec::new();
        let named = |header| if is_unnamed(header) { "" } else { str::trim(header) };
        let header: Vec<&str> = header.texts().map(named).collect();
        let keys: Vec<String> = header.iter().map(|name| header_key(name)).collect();
        for (index, (name, key)) in header.iter().zip(&keys).enumerate() {
            if name.is_empty() {
                continue;
            }
            let number = index + 1;
            let first = keys.iter().position(|other| other == key).unwrap_or(index);
            if key.is_empty() {
                faults.push(format!(
                    "line {line}: column {number}, {name:?}, has no letter or digit; rename it in the file"
                ));
            } else if first < index {
                faults.push(format!(
                    "line {line}: columns {} and {number}, {:?} and {name:?}, are the same to import, which compares only \
                    letters and digits; rename one in the file",
                    first + 1,
                    header[first],
                ));
            }
        }
        if !faults.is_empty() {
            return Err(faults);
        }
        let mut taken: BTreeSet<String> = keys.iter().cloned().collect();
        let mut names = Vec::new();
        for (index, (header, key)) in header.into_iter().zip(&keys).enumerate() {
            if header.is_empty() {
                names.push(String::new());
                continue;
            }
            let name = if is_name(header) { header.to_owned() } else { camel_case(header) };
            let name = match name.as_bytes().first() {
                None => format!("column{}", index + 1),
                Some(first) if first.is_ascii_alphabetic() => name,
                Some(_) => format!("column{}", name.trim_start_matches('_')),
            };
            let name = self.unique(&name, key, &taken);
            taken.insert(header_key(&name));
            names.push(name);
        }
        Ok(names)
    }

    /// The name, or a similar one that is short enough, not reserved and not used by another column.
    fn unique(&self, name: &str, own_key: &str, taken: &BTreeSet<String>) -> String {
        let most = IDENTIFIER_MAX - SUFFIX_MAX - self.resource.len() - 1;
        let mut name = name.to_owned();
        while snake_case(&name).len() > most {
            name.pop();
        }
        let is_free = |name: &String| {
            let key = header_key(name);
            (key == own_key || !taken.contains(&key))
                && !RESERVED.contains(&name.as_str())
                && !RESERVED.contains(&&*snake_case(name))
        };
        let others = (2..).map(|number| format!("{name}{number}"));
        let mut choices = [name.clone(), format!("{name}_")].into_iter().chain(others);
        choices.find(is_free).expect("numbers do not end")
    }
}

/// Derives the name of a resource from a file name: `Vessels (2020).csv` is `vessels-2020`.
pub fn resource_name(stem: &str) -> Option<String> {
    let mut name = String::new();
    for letter in ascii(stem).chars() {
        if letter.is_ascii_alphanumeric() {
            name.push(letter.to_ascii_lowercase());
        } else if !name.is_empty() && !name.ends_with('-') {
            name.push('-');
        }
    }
    let name = name.trim_start_matches(|letter: char| !letter.is_ascii_alphabetic());
    let name = name[..name.len().min(RESOURCE_MAX)].trim_end_matches('-');
    (!name.is_empty()).then(|| name.to_owned())
}

fn is_name(text: &str) -> bool {
    text.starts_with(|letter: char| letter.is_ascii_alphabetic())
        && text.chars().all(|letter| letter.is_ascii_alphanumeric() || letter == '_')
}

/// `Gross tonnage (GT)` as `grossTonnageGt`.
fn camel_case(header: &str) -> String {
    let header = ascii(header);
    let words = header.split(|letter: char| !letter.is_ascii_alphanumeric()).filter(|word| !word.is_empty());
    let mut name = String::new();
    for word in words {
        let is_shouted = !word.bytes().any(|byte| byte.is_ascii_lowercase());
        let word = if is_shouted { word.to_ascii_lowercase() } else { word.to_owned() };
        if name.is_empty() {
            name.push_str(&word[..1].to_ascii_lowercase());
            name.push_str(&word[1..]);
        } else {
            name.push_str(&capitalised(&word));
        }
    }
    name
}

/// Removes the marks of Latin letters; other letters are unchanged.
fn ascii(text: &str) -> String {
    let mut plain = String::new();
    for letter in text.nfd().filter(|letter| !is_combining_mark(*letter)) {
        match letter {
            'ß' => plain.push_str("ss"),
            'æ' => plain.push_str("ae"),
            'Æ' => plain.push_str("Ae"),
            'œ' => plain.push_str("oe"),
            'Œ' => plain.push_str("Oe"),
            'ø' => plain.push('o'),
            'Ø' => plain.push('O'),
            'ł' => plain.push('l'),
            'Ł' => plain.push('L'),
            'đ' | 'ð' => plain.push('d'),
            'Đ' | 'Ð' => plain.push('D'),
            'ı' => plain.push('i'),
            other => plain.push(other),
        }
    }
    plain
}
