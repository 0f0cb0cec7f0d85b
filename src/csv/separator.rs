//! The separators of cells.

/// The supported separators; the first is that of RFC 4180.
pub const SEPARATORS: [char; 4] = [',', ';', '\t', '|'];

/// Separators of other programs that are not supported, because values contain them, with their names.
pub const UNSUPPORTED: [(char, &str); 6] =
    [(' ', "spaces"), (':', "colons"), ('^', "carets"), ('~', "tildes"), ('\u{1}', "U+0001"), ('\u{1f}', "U+001F")];

/// The name of a separator, for errors and notes.
pub fn name(separator: char) -> &'static str {
    match separator {
        ';' => "semicolons",
        '\t' => "tabs",
        '|' => "vertical bars",
        _ => "commas",
    }
}
