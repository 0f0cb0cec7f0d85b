//! One record: its cells, and how they were written.

/// A cell of a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cell<'a> {
    /// The text without quotes; for an unquoted cell including surrounding spaces.
    pub text: &'a str,
    /// Whether it was quoted.
    pub is_quoted: bool,
}

/// The cells of one record.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Cells {
    pub(super) text: String,
    pub(super) ends: Vec<usize>,
    pub(super) quoted: Vec<bool>,
    pub(super) line: u64,
    pub(super) separator: char,
    pub(super) is_padded: bool,
}

impl Cells {
    /// The number of cells.
    pub fn count(&self) -> usize {
        self.ends.len()
    }

    /// The line on which the record begins, counted from 1.
    pub fn line(&self) -> u64 {
        self.line
    }

    /// The separator of the cells.
    pub fn separator(&self) -> char {
        self.separator
    }

    /// Whether there are spaces or tabs between a separator and a quote.
    pub fn is_padded(&self) -> bool {
        self.is_padded
    }

    /// The cell at an index, counted from 0.
    pub fn get(&self, index: usize) -> Option<Cell<'_>> {
        let start = if index == 0 { 0 } else { *self.ends.get(index - 1)? };
        Some(Cell { text: &self.text[start..*self.ends.get(index)?], is_quoted: self.quoted[index] })
    }

    /// The cells in order.
    pub fn iter(&self) -> impl Iterator<Item = Cell<'_>> {
        (0..self.count()).filter_map(|index| self.get(index))
    }

    /// The texts of the cells in order.
    pub fn texts(&self) -> impl Iterator<Item = &str> {
        self.iter().map(|cell| cell.text)
    }

    pub(super) fn clear(&mut self) {
        self.text.clear();
        self.ends.clear();
        self.quoted.clear();
        self.is_padded = false;
    }

    /// The start of the current cell.
    pub(super) fn start(&self) -> usize {
        self.ends.last().copied().unwrap_or_default()
    }
}

/// Creates unquoted cells on the first line, separated by commas.
impl<'a> FromIterator<&'a str> for Cells {
    fn from_iter<T: IntoIterator<Item = &'a str>>(texts: T) -> Self {
        let mut cells = Self { line: 1, separator: ',', ..Self::default() };
        for text in texts {
            cells.text.push_str(text);
            cells.ends.push(cells.text.len());
            cells.quoted.push(false);
        }
        cells
    }
}
