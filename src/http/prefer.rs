//! The `Prefer` header (RFC 7240). A server may ignore any preference, so none is ever an error.

use crate::csv::notes::UnknownColumns;
use warp::http::{HeaderMap, HeaderName, HeaderValue};

const PREFER: HeaderName = HeaderName::from_static("prefer");
const NOTES: HeaderName = HeaderName::from_static("notes");
const PREFERENCE_APPLIED: HeaderName = HeaderName::from_static("preference-applied");

/// The value of a preference; if a name is repeated, the first counts (section 2).
pub fn preference<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    let lines = headers.get_all(PREFER).iter().filter_map(|line| line.to_str().ok());
    lines.flat_map(|line| line.split(',')).find_map(|item| {
        let preference = item.split(';').next().unwrap_or_default();
        let (given, value) = preference.split_once('=').unwrap_or((preference, ""));
        given.trim().eq_ignore_ascii_case(name).then(|| value.trim().trim_matches('"'))
    })
}

/// The preference that [`unknown`] recognizes.
pub const LENIENT: &str = "handling=lenient";

/// Whether unknown columns and members are ignored instead of refused (section 4.4).
pub fn unknown(headers: &HeaderMap) -> UnknownColumns {
    match preference(headers, "handling") {
        Some(handling) if handling.eq_ignore_ascii_case("lenient") => UnknownColumns::Ignored,
        _ => UnknownColumns::Refused,
    }
}

/// Reports an applied preference, such as `count=exact`.
pub fn applied(headers: &mut HeaderMap, preference: &'static str) {
    headers.append(PREFERENCE_APPLIED, HeaderValue::from_static(preference));
}

/// Reports conversions and omissions in the `Notes` header, for responses whose body is the rows: a list of display strings
/// (RFC 9651, section 3.3.8).
pub fn add_notes(headers: &mut HeaderMap, notes: &[String]) {
    for note in notes {
        let text: String = note.bytes().map(displayed).collect();
        headers.append(NOTES, HeaderValue::try_from(format!("%\"{text}\"")).expect("it is printable ASCII"));
    }
}

fn displayed(byte: u8) -> String {
    match byte {
        b'"' | b'%' => format!("%{byte:02x}"),
        b' '..=b'~' => char::from(byte).to_string(),
        _ => format!("%{byte:02x}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::csv::notes::Notes;

    #[test]
    fn the_first_preference_of_a_name_counts_regardless_of_case_and_quotes() {
        let mut headers = HeaderMap::new();
        headers.append(PREFER, HeaderValue::from_static("respond-async, Return=\"minimal\"; x=1"));
        headers.append(PREFER, HeaderValue::from_static("count = exact,count=estimated"));
        assert_eq!(preference(&headers, "return"), Some("minimal"));
        assert_eq!(preference(&headers, "count"), Some("exact"));
        assert_eq!(preference(&headers, "respond-async"), Some(""));
        assert_eq!(preference(&headers, "wait"), None);
    }

    #[test]
    fn notes_with_any_names_fit_nginxs_header_buffer() {
        let mut notes = Notes::default();
        for number in 0..30 {
            notes.left_out(&format!("{number}{}", "\u{1f6a2}".repeat(1000)));
            notes.left_out(&format!("{number}{}", "\u{7f}".repeat(1000)));
        }
        let mut headers = HeaderMap::new();
        add_notes(&mut headers, &notes.sentences(None));
        let bytes: usize = headers.values().map(HeaderValue::len).sum();
        assert!((5_000..16_000).contains(&bytes), "{bytes}");
    }

    #[test]
    fn notes_with_any_characters_are_printable() {
        let mut headers = HeaderMap::new();
        add_notes(&mut headers, &["the unknown column \"größe\" was left out".to_owned(), "100 %".to_owned()]);
        let lines: Vec<_> = headers.get_all(NOTES).iter().collect();
        assert_eq!(lines, ["%\"the unknown column %22gr%c3%b6%c3%9fe%22 was left out\"", "%\"100 %25\""]);
    }
}
