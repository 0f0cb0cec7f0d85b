//! Writes CSV (RFC 4180).

/// Appends a text as a cell, quoted if it contains a separator, a quote or a line break, or begins with U+FEFF, which
/// before a record would be a byte order mark.
pub fn cell(text: &str, out: &mut Vec<u8>) {
    if !text.contains([',', '"', '\n', '\r']) && !text.starts_with('\u{feff}') {
        return out.extend_from_slice(text.as_bytes());
    }
    out.push(b'"');
    for (index, part) in text.split('"').enumerate() {
        if index > 0 {
            out.extend_from_slice(b"\"\"");
        }
        out.extend_from_slice(part.as_bytes());
    }
    out.push(b'"');
}
