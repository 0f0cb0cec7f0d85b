//! A column of CSV without a name: what pandas and R number the rows with, or what trailing separators leave. Nothing is lost
//! without it as long as it holds nothing else.

/// What such a column must hold.
pub const NAMELESS_RULE: &str =
    "has no name, so it must count the rows, or be empty in all of them; name it or take it out";

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
