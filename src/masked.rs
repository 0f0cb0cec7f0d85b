//! Masks secrets in a text from the user before it is repeated in a message, because messages get into logs.
//!
//! A text without any sign of a secret is repeated unchanged.

use std::cmp::Reverse;

/// The replacement of a secret.
const MASK: &str = "***";
/// Names of secrets in `name=value` pairs, as in libpq.
const NAMES: [&str; 4] = ["password", "passwd", "secret", "token"];

/// Masks the user and password of a URL, its query, and the secrets of `name=value` pairs.
pub fn masked(value: &str) -> String {
    let value = without_pairs(value);
    let (address, rest) = value.split_at(value.find(['?', '#']).unwrap_or(value.len()));
    let rest = rest.get(..1).map_or(String::new(), |mark| format!("{mark}{MASK}"));
    match address.rsplit_once('@') {
        None => format!("{address}{rest}"),
        Some((user, host)) => {
            let scheme = user.find("://").map_or("", |end| &user[..end + 3]);
            format!("{scheme}{MASK}@{host}{rest}")
        }
    }
}

/// `host=db password='a b' user=u` with the password masked. An unquoted value extends to the next pair, because an unquoted
/// password with a space may be the error to be reported.
fn without_pairs(value: &str) -> String {
    let mut text = value.to_owned();
    let mut from = 0;
    // Only ASCII letters are lowered; others could change length and shift the offsets.
    while let Some((at, name)) = first_name(&text.to_ascii_lowercase(), from) {
        let behind = text[at + name.len()..].trim_start();
        let Some(secret) = behind.strip_prefix('=').map(str::trim_start) else {
            from = at + name.len();
            continue;
        };
        let begin = text.len() - secret.len();
        let end = begin + end_of(secret);
        text.replace_range(begin..end, MASK);
        from = begin + MASK.len();
    }
    text
}

fn first_name(lower: &str, from: usize) -> Option<(usize, &'static str)> {
    let found = NAMES.iter().filter_map(|name| Some((from + lower[from..].find(name)?, *name)));
    found.min_by_key(|(at, _)| *at)
}

/// The end of the value that starts here: its closing quote, or the next pair.
fn end_of(secret: &str) -> usize {
    if let Some(quoted) = secret.strip_prefix('\'') {
        let mut is_escaped = false;
        for (at, letter) in quoted.char_indices() {
            if letter == '\'' && !is_escaped {
                return at + 2;
            }
            is_escaped = letter == '\\' && !is_escaped;
        }
        return secret.len();
    }
    let mut begin = 0;
    while let Some(at) = secret[begin..].find([' ', '&']).map(|at| begin + at) {
        let word = secret[at + 1..].split([' ', '&']).next().unwrap_or_default();
        let name = word.split_once('=').map(|(name, _)| name);
        if name
            .is_some_and(|name| !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_'))
        {
            return at;
        }
        begin = at + 1;
    }
    secret.len()
}

/// Masks these words of a command line wherever a text repeats them, including a word after the flag of a secret.
pub fn masked_words(text: &str, words: &[String]) -> String {
    let mut pairs = Vec::new();
    for (at, word) in words.iter().enumerate() {
        let value = word.split_once('=').filter(|_| word.starts_with('-')).map_or(word.as_str(), |(_, value)| value);
        let before = at.checked_sub(1).map_or("", |at| &words[at]).trim_end_matches('=');
        let is_secret = before.starts_with("--")
            && NAMES.iter().any(|name| before.contains(name))
            && !before.ends_with("-file")
            && !word.starts_with("--");
        let shown = if is_secret { MASK.to_owned() } else { masked(value) };
        if shown != value && !value.is_empty() {
            pairs.push((value, shown));
        }
    }
    // One value may be part of another.
    pairs.sort_by_key(|(value, _)| Reverse(value.len()));
    pairs.iter().fold(text.to_owned(), |text, (value, shown)| text.replace(value, shown))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_in_a_value_are_masked() {
        for (value, shown) in [
            ("https://id.example/keys", "https://id.example/keys"),
            ("https://user:secret@id.example/keys", "https://***@id.example/keys"),
            ("https://a@b:secret@id.example", "https://***@id.example"),
            ("user:secret@id.example", "***@id.example"),
            ("https://id.example/keys?key=secret", "https://id.example/keys?***"),
            ("https://secret@id.example/keys?key=a@secret", "https://***@id.example/keys?***"),
            ("https://id.example/#secret", "https://id.example/#***"),
            ("60s", "60s"),
            ("s3://KEY:secret@bucket/prefix", "s3://***@bucket/prefix"),
            ("host=db password=a b user=u", "host=db password=*** user=u"),
            ("host=db password = 'a \\' b' user=u", "host=db password = *** user=u"),
            ("PASSWORD='never ends user=u", "PASSWORD=***"),
            ("sslpassword=x", "sslpassword=***"),
            ("/var/lib/secrets/token", "/var/lib/secrets/token"),
            ("password=", "password=***"),
        ] {
            assert_eq!(masked(value), shown, "{value}");
        }
    }

    #[test]
    fn words_of_a_command_line_are_masked_wherever_they_are_repeated() {
        let masked = |words: &[&str], text: &str| {
            masked_words(text, &words.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>())
        };
        let url = "postgres://u:secret@h/db";
        assert_eq!(masked(&["backups", url], &format!("unexpected '{url}'")), "unexpected 'postgres://***@h/db'");
        assert_eq!(masked(&[&format!("--kind={url}")], &format!("invalid '{url}'")), "invalid 'postgres://***@h/db'");
        assert_eq!(masked(&["--aws-secret-access-key=", "abc"], "unexpected 'abc'"), "unexpected '***'");
        assert_eq!(masked(&["--postgres-password-file", "/a"], "no file /a"), "no file /a");
        assert_eq!(masked(&["token", "create"], "unexpected 'create'"), "unexpected 'create'");
    }
}
