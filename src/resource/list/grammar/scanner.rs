//! Scans the text of conditions, and converts patterns.

/// Characters that are skipped after a mark.
pub const BLANKS: [char; 2] = [' ', '\t'];

/// The text that has not been read yet.
pub struct Scanner<'a>(pub &'a str);

impl<'a> Scanner<'a> {
    /// Skips a mark and the blanks after it, if it is next.
    pub fn mark(&mut self, mark: &str) -> bool {
        let remaining = self.0.strip_prefix(mark);
        self.0 = remaining.map_or(self.0, |remaining| remaining.trim_start_matches(BLANKS));
        remaining.is_some()
    }

    pub fn blanks(&mut self) {
        self.0 = self.0.trim_start_matches(BLANKS);
    }

    /// Reads a name up to the next dot and skips both.
    pub fn word(&mut self) -> Option<&'a str> {
        let (word, remaining) = self.0.split_once('.')?;
        if word.contains([',', '(', ')', '"']) {
            return None;
        }
        self.0 = remaining;
        Some(word)
    }
}

/// The text before the mark that ends a condition.
pub fn up_to_mark(text: &str) -> &str {
    &text[..text.find([',', '(', ')']).unwrap_or(text.len())]
}

/// Converts a client's pattern to SQL syntax. As in PostgREST `*` is an alias for `%`, which would have to be escaped in a URL;
/// a backslash escapes the next character. `None` for a trailing backslash or U+0000.
pub fn like(text: &str) -> Option<String> {
    let mut pattern = String::with_capacity(text.len());
    let mut letters = text.chars();
    while let Some(letter) = letters.next() {
        match letter {
            '*' => pattern.push('%'),
            '\0' => return None,
            '\\' => match letters.next()? {
                '\0' => return None,
                '*' => pattern.push('*'), // not a wildcard in SQL
                escaped => pattern.extend(['\\', escaped]),
            },
            plain => pattern.push(plain),
        }
    }
    Some(pattern)
}
