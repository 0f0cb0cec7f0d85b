//! Quotes arguments in commands that messages show, so that they run as printed in a POSIX shell.

/// An argument, quoted if the shell would split or expand it.
pub fn quoted(argument: &str) -> String {
    let is_plain = |letter: char| letter.is_alphanumeric() || "_@%+=:,./-…".contains(letter);
    if !argument.is_empty() && argument.chars().all(is_plain) {
        argument.to_owned()
    } else {
        format!("'{}'", argument.replace('\'', r"'\''"))
    }
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::quoted;

    #[test]
    fn the_shell_reads_a_quoted_argument_as_it_was() {
        assert_eq!(quoted("/var/tmp/Zürich"), "/var/tmp/Zürich");
        for argument in ["/a b", "it's", "$HOME", "", "a;b", "*", "~", "/été/nouveau dossier", "a\nb"] {
            let echoed = Command::new("sh").args(["-c", &format!("printf %s {}", quoted(argument))]).output();
            assert_eq!(String::from_utf8(echoed.expect("a shell").stdout).expect("UTF-8"), argument);
        }
    }
}
