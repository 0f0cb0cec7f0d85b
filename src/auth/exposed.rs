//! Detects credentials in the parts of a head that are logged or traced: the URL, the request id, the user agent.

use super::tokens::format::PREFIX;

/// Replaces a text that contains a credential.
pub const MASKED: &str = "(masked)";

/// Parameters that hold credentials according to their names (RFC 6750, section 2.3; OpenID Connect).
const PARAMETERS: [&str; 3] = ["access_token=", "id_token=", "refresh_token="];

/// A prefix of this length is treated like the whole token.
const TELLING: usize = 20;

/// Returns true if a text contains an API token, a JSON Web Token, a parameter that holds one, or an authorization code with
/// its state (RFC 6749, section 4.1.2).
pub fn contains_credential(text: &str) -> bool {
    let is_token = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-' | b'.');
    let behind = |at: usize| text.as_bytes()[at..].iter().take_while(|byte| is_token(**byte)).count();
    text.match_indices(PREFIX).any(|(at, _)| behind(at) >= PREFIX.len() + TELLING)
        || text.match_indices("eyJ").any(|(at, _)| {
            let token = &text[at..at + behind(at)];
            token.len() >= TELLING && token.contains('.')
        })
        || PARAMETERS.iter().any(|name| text.contains(name))
        || (has_parameter(text, "code=") && has_parameter(text, "state="))
}

fn has_parameter(query: &str, begin: &str) -> bool {
    query.contains(begin) && query.split(['?', '&']).any(|parameter| parameter.starts_with(begin))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_are_detected_anywhere_and_names_are_not() {
        let api = format!("{PREFIX}{}", "a".repeat(49));
        for text in [
            &*api,
            &format!("/v1/tokens/{api}"),
            "x=1&access_token=y",
            "eyJhbGciOiJSUzI1NiJ9.eyJzdWIiOiJhIn0.c2ln",
            "state=a&code=b",
        ] {
            assert!(contains_credential(text), "{text}");
        }
        for text in [
            "/v1/passengers",
            "name=eq.eyJ",
            PREFIX,
            "4bf92f3577b34da6a3ce929d0e0e4736",
            "order=name&limit=2",
            "code=1",
            "zipcode=1&state=2",
        ] {
            assert!(!contains_credential(text), "{text}");
        }
    }
}
