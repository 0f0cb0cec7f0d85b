//! Unnamed CSV columns: the row numbers that pandas and R write, or what trailing separators leave. A column with only such
//! content can be ignored without losing data.

/// What such a column must contain.
pub const UNNAMED_RULE: &str =
    "has no name, so it must number the rows or be empty in all of them; name it or remove it";

/// Whether a header is empty or a program's placeholder for a missing name: `Unnamed: 0` (pandas), `...1` (readr),
/// `__index_level_0__` (pyarrow), each with the column's number.
pub fn is_unnamed(header: &str) -> bool {
    let header = header.trim();
    let is_number = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let unnamed = header.strip_prefix("Unnamed: ").map(|number| number.split('.').all(is_number));
    let others =
        [header.strip_prefix("..."), header.strip_prefix("__index_level_").and_then(|rest| rest.strip_suffix("__"))];
    header.is_empty() || unnamed == Some(true) || others.into_iter().flatten().any(is_number)
}

/// The content of an unnamed column so far.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum UnnamedColumn {
    /// No rows yet.
    #[default]
    New,
    /// Empty in every row.
    Empty,
    /// Consecutive numbers; this is the last.
    Number(i64),
}

impl UnnamedColumn {
    /// Adds the cell of the next row; returns whether the column can still be ignored.
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
