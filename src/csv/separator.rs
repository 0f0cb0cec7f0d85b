//! What separates the cells of a record.

/// Characters that separate cells; the first is what RFC 4180 knows.
pub const SEPARATORS: [char; 4] = [',', ';', '\t', '|'];

/// Their name, for complaints and notes.
pub fn called(separator: char) -> &'static str {
    match separator {
        ';' => "semicolons",
        '\t' => "tabs",
        '|' => "vertical bars",
        _ => "commas",
    }
}
