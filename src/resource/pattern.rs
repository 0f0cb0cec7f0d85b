//! Patterns of texts, which both this program and the table's constraint check. Rejects what the `regex` crate and PostgreSQL's
//! advanced regular expressions read differently, or what only one of them accepts.

use regex::Regex;

/// PostgreSQL's greatest repetition count.
const REPEAT_MAX: u32 = 255;
/// Escapes that mean the same to both; a backslash before any other ASCII punctuation denotes that character.
const ESCAPES: &str = "dDwWsStnrfvA";

/// Checks a pattern.
///
/// # Errors
/// What is wrong with it, and what to write instead.
pub fn check(pattern: &str) -> Result<(), String> {
    let fault = |reason: String| Err(format!("pattern {pattern:?} {reason}"));
    if let Err(error) = Regex::new(pattern) {
        // Its message shows the pattern over several lines, and the reason on the last one.
        let message = error.to_string();
        let reason = message.lines().last().unwrap_or_default().trim_start_matches("error: ");
        return fault(format!("is not a valid regular expression: {reason}"));
    }
    match unportable(pattern) {
        None => Ok(()),
        Some((found, remedy)) => {
            fault(format!("has {found}, which PostgreSQL does not read as this program does; {remedy}"))
        }
    }
}

/// The first construct that is not portable, and the remedy.
fn unportable(pattern: &str) -> Option<(String, &'static str)> {
    const LIST: &str = "list the characters in brackets, such as [A-Za-z]";
    const GROUP: &str = "use (?:…) or (…), or (?i), (?s) or (?is) at the start";
    let is_quantifier = |letter: Option<&char>| letter.is_some_and(|letter| "*+?{".contains(*letter));
    // These mean the same to both at the start.
    let flags = ["(?i)", "(?s)", "(?is)", "(?si)"].into_iter().find(|flags| pattern.starts_with(flags));
    let pattern = &pattern[flags.map_or(0, str::len)..];
    let mut letters = pattern.chars().peekable();
    let mut in_class = false;
    while let Some(letter) = letters.next() {
        match letter {
            '\\' => {
                let escaped = letters.next()?;
                // `\u` with four digits and `\U` with eight denote a character.
                if let Some(digits) = match escaped {
                    'u' => Some(4),
                    'U' => Some(8),
                    _ => None,
                } {
                    if letters.by_ref().take(digits).filter(char::is_ascii_hexdigit).count() < digits {
                        return Some((format!("\\{escaped}{{…}}"), "write \\u and four digits, or \\U and eight"));
                    }
                    continue;
                }
                if "<>".contains(escaped) || escaped.is_ascii_alphanumeric() && !ESCAPES.contains(escaped) {
                    let remedy = match escaped {
                        'z' => "use $",
                        'b' | 'B' | '<' | '>' => "match the characters at the ends of the word instead",
                        _ => LIST,
                    };
                    return Some((format!("\\{escaped}"), remedy));
                }
            }
            ']' => in_class = false,
            '[' if in_class => {
                if letters.peek() != Some(&':') {
                    return Some(("a bracket within brackets".to_owned(), LIST));
                }
                // A named class, such as [:alpha:], which the `regex` crate has checked.
                letters.by_ref().find(|letter| *letter == ']');
            }
            '[' => {
                in_class = true;
                letters.next_if_eq(&'^');
                letters.next_if_eq(&']'); // the first one is a character
            }
            '&' | '~' | '-' if in_class && letters.next_if_eq(&letter).is_some() => {
                return Some((format!("{letter}{letter} within brackets"), LIST));
            }
            _ if in_class => {}
            '(' if letters.next_if_eq(&'?').is_some() && letters.peek() != Some(&':') => {
                return Some(("a group with flags or a name".to_owned(), GROUP));
            }
            '*' | '+' | '?' | '{' => {
                if letter == '{' {
                    let count: String = letters.by_ref().take_while(|letter| *letter != '}').collect();
                    if count.split(',').any(|count| count.trim().parse::<u32>().is_ok_and(|count| count > REPEAT_MAX)) {
                        return Some((format!("{{{count}}}"), "repeat at most 255 times, or use maxLength"));
                    }
                }
                letters.next_if_eq(&'?'); // not greedy
                if is_quantifier(letters.peek()) {
                    return Some(("two quantifiers in a row".to_owned(), GROUP));
                }
            }
            _ => {}
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_that_postgresql_reads_differently_are_rejected_with_a_remedy() {
        for pattern in [
            "",
            "^[A-Z]{2}\\d{3,}$",
            "(?i)^ab?c*?$",
            "^(?:a|b)+[^x\\]y]$",
            "[[:alpha:]_]",
            "a\\.b\\-c\\/",
            "[]a-]",
            "\\Ax{0,255}",
            "^[+-]?\\d+$",
            "^[\\u4e00-\\u9fa5\\U0001F600]+$",
            "(?s)^a.b$",
            "(?is)^a.b$",
        ] {
            assert_eq!(check(pattern), Ok(()), "{pattern}");
        }
        for (pattern, remedy) in [
            ("\\p{Lu}", "list the characters"),
            ("^a\\z", "use $"),
            ("\\bword\\b", "ends of the word"),
            ("\\x41", "list the characters"),
            ("\\u{4e00}", "four digits"),
            ("(?P<year>\\d{4})", "use (?:…)"),
            ("a(?i)b", "use (?:…)"),
            ("[a-z&&[^b]]", "list the characters"),
            ("[a[bc]]", "list the characters"),
            ("a{256}", "at most 255"),
            ("a++", "use (?:…)"),
            ("[", "is not a valid regular expression: unclosed character class"),
            ("(", "is not a valid regular expression: unclosed group"),
        ] {
            let fault = check(pattern).expect_err(pattern);
            assert!(fault.contains(remedy), "{pattern}: {fault}");
        }
    }
}
