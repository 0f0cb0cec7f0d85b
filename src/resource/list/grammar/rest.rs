//! What has not been read of a text of conditions, and patterns in it.

/// What may stand behind a mark.
pub const BLANKS: [char; 2] = [' ', '\t'];

/// What has not been read yet.
pub struct Rest<'a>(pub &'a str);

impl<'a> Rest<'a> {
    /// Skips a mark and the blanks behind it, if it is there.
    pub fn mark(&mut self, mark: &str) -> bool {
        let behind = self.0.strip_prefix(mark);
        self.0 = behind.map_or(self.0, |behind| behind.trim_start_matches(BLANKS));
        behind.is_some()
    }

    pub fn blanks(&mut self) {
        self.0 = self.0.trim_start_matches(BLANKS);
    }

    /// A name up to the next dot, both of which are skipped.
    pub fn word(&mut self) -> Option<&'a str> {
        let (word, behind) = self.0.split_once('.')?;
        if word.contains([',', '(', ')', '"']) {
            return None;
        }
        self.0 = behind;
        Some(word)
    }
}

/// The text in front of what ends a condition.
pub fn up_to_mark(text: &str) -> &str {
    &text[..text.find([',', '(', ')']).unwrap_or(text.len())]
}

/// A client's pattern in SQL's form. As in PostgREST `*` is another way to write `%`, which would have to be escaped in a
/// URL; a backslash takes the character behind it as it is. `None` when nothing is behind one, or for U+0000.
pub fn like(text: &str) -> Option<String> {
    let mut pattern = String::with_capacity(text.len());
    let mut letters = text.chars();
    while let Some(letter) = letters.next() {
        match letter {
            '*' => pattern.push('%'),
            '\0' => return None,
            '\\' => match letters.next()? {
                '\0' => return None,
                '*' => pattern.push('*'), // no wildcard of SQL's
                escaped => pattern.extend(['\\', escaped]),
            },
            plain => pattern.push(plain),
        }
    }
    Some(pattern)
}
