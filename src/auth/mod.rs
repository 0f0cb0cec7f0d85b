//! Who asks, and what they may do: scopes, principals and the credentials that prove them.
//!
//! It knows nothing of HTTP: what is made of a refusal is said in `http::access`.

pub mod authenticator;
pub mod exposed;
pub mod issuer;
pub mod principal;
pub mod scope;
pub mod sign_in;
pub mod tokens;

/// Whether a name reads as it is written: without control characters, line separators, and those that change the direction of
/// the text around them (Unicode's `Bidi_Control`), by which one name passes for another in a list or a log.
pub fn is_readable(name: &str) -> bool {
    let hides = |letter: char| {
        letter.is_control()
            || matches!(letter, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
    };
    !name.contains(hides)
}
