//! A column of CSV without a name: what pandas and R number the rows with, or what trailing separators leave. Nothing is lost
//! without it as long as it holds nothing else.

/// What such a column must hold.
pub const NAMELESS_RULE: &str =
    "has no name, so it must count the rows, or be empty in all of them; name it or take it out";

/// Whether a header is what a program calls a column that has no name: `Unnamed: 0` (pandas), `...1` (readr),
/// `__index_level_0__` (pyarrow), each with the number of the column, or nothing at all.
pub fn is_nameless(header: &str) -> bool {
    let header = header.trim();
    let is_number = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let unnamed = header.strip_prefix("Unnamed: ").map(|number| number.split('.').all(is_number));
    let others =
        [header.strip_prefix("..."), header.strip_prefix("__index_level_").and_then(|rest| rest.strip_suffix("__"))];
    header.is_empty() || unnamed == Some(true) || others.into_iter().flatten().any(is_number)
}

/// What a column without a name has held so far.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Nameless {
    /// No row.
    #[default]
    New,
    /// Nothing in any row.
    Empty,
    /// Numbers, each one more than the one before; this is the last.
    Number(i64),
}

impl Nameless {
    /// Takes its cell of the next row; whether there is nothing to lose.
    pub fn take(&mut self, text: &str) -> bool {
        let text = text.trim();
        *self = match (*self, text.parse::<i64>().ok()) {
            (Self::New | Self::Empty, _) if text.is_empty() => Self::Empty,
            (Self::New, Some(number)) => Self::Number(number),
            (Self::Number(last), Some(number)) if last.checked_add(1) == Some(number) => Self::Number(number),
            _ => return false,
        };
        true
    }
}
