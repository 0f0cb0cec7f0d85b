//! Authentication and authorization: scopes, principals and their credentials.
//!
//! Independent of HTTP; `http::access` builds the responses to refused requests.

pub mod authenticator;
pub mod exposed;
pub mod issuer;
pub mod principal;
pub mod scope;
pub mod sign_in;
pub mod tokens;

/// Returns true if a name is displayed as it is stored: it has no control characters, line separators, or characters that
/// change the direction of the surrounding text (Unicode's `Bidi_Control`), by which one name can imitate another in a list or
/// a log.
pub fn is_readable(name: &str) -> bool {
    let hides = |letter: char| {
        letter.is_control()
            || matches!(letter, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
    };
    !name.contains(hides)
}
