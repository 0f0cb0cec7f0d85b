//! The separators of cells.

/// The supported separators; the first is that of RFC 4180.
pub const SEPARATORS: [char; 4] = [',', ';', '\t', '|'];

/// The name of a separator, for errors and notes.
pub fn name(separator: char) -> &'static str {
    match separator {
        ';' => "semicolons",
        '\t' => "tabs",
        '|' => "vertical bars",
        _ => "commas",
    }
}
