//! The line that determines the separator: the header, or a preceding line `sep=`, as spreadsheets write it.

use super::fault::{Fault, RECORD_MAX_BYTES};
use super::separator::SEPARATORS;

/// The start of a text, up to the end of its first non-blank line. A line end within quotes does not end it.
#[derive(Debug, Default)]
pub struct HeaderLine {
    /// Including preceding blank lines, without its own line end.
    pub text: String,
    is_quoted: bool,
    /// The number of unquoted occurrences of each separator.
    counts: [usize; SEPARATORS.len()],
}

impl HeaderLine {
    /// Appends text that belongs to the line; returns the offset of the rest once the line is complete.
    pub fn push(&mut self, text: &str) -> Option<usize> {
        for (at, letter) in text.char_indices() {
            match letter {
                '"' => self.is_quoted = !self.is_quoted,
                '\r' | '\n' if !self.is_quoted && !self.is_blank() => return Some(at),
                other if !self.is_quoted => {
                    if let Some(known) = SEPARATORS.iter().position(|separator| *separator == other) {
                        self.counts[known] += 1;
                    }
                }
                _ => {}
            }
            if self.text.len() > RECORD_MAX_BYTES {
                return Some(at); // an error, whatever follows
            }
            self.text.push(letter);
        }
        None
    }

    fn is_blank(&self) -> bool {
        self.text.bytes().all(|byte| matches!(byte, b'\r' | b'\n'))
    }

    /// The separators in the line, the most frequent first.
    pub fn found(&self) -> Vec<char> {
        let mut found: Vec<usize> = (0..SEPARATORS.len()).filter(|index| self.counts[*index] > 0).collect();
        found.sort_by_key(|index| std::cmp::Reverse(self.counts[*index]));
        found.into_iter().map(|index| SEPARATORS[index]).collect()
    }

    /// The separator of a line `sep=`; `None` if the line is a header.
    ///
    /// # Errors
    /// If the separator is unknown.
    pub fn named(&self) -> Result<Option<char>, Fault> {
        let line = self.text.trim_start_matches(['\r', '\n']);
        let line = line.strip_prefix('"').and_then(|line| line.strip_suffix('"')).unwrap_or(line);
        let Some((key, name)) = line.split_at_checked("sep=".len()) else { return Ok(None) };
        if !key.eq_ignore_ascii_case("sep=") {
            return Ok(None);
        }
        // A program that saved such a file again has padded the line to as many cells as the other rows.
        let mut letters = name.chars();
        let letter = letters.next().filter(|letter| SEPARATORS.contains(letter)).ok_or(Fault::UnknownSeparator)?;
        let rest = letters.as_str();
        let is_filled = rest.chars().all(|other| other == letter) || rest.chars().all(|other| other == ',');
        if is_filled || rest.trim().is_empty() { Ok(Some(letter)) } else { Err(Fault::UnknownSeparator) }
    }
}
