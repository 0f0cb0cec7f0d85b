//! What is wrong with the rows of a body: the first hundred faults, and how many there are.

use super::split::Stuck;
use crate::http::problem::{FieldError, Problem, RowError};

/// Faults that an answer lists; whoever has more begins with these.
const LISTED_MAX: usize = 100;

/// The faults found so far.
#[derive(Debug, Default)]
pub struct Faults {
    listed: Vec<RowError>,
    faults: u64,
    rows: u64,
}

impl Faults {
    /// Whether every row so far can be stored.
    pub fn is_empty(&self) -> bool {
        self.faults == 0
    }

    /// Adds a row's faults; `index` is its place in a JSON array.
    pub fn row(&mut self, line: u64, index: Option<u64>, errors: Vec<FieldError>) {
        self.rows += 1;
        self.faults += errors.len() as u64;
        let room = LISTED_MAX - self.listed.len();
        self.listed.extend(errors.into_iter().take(room).map(|error| RowError {
            line,
            field: error.pointer.trim_start_matches('/').to_owned(),
            pointer: index.map(|index| format!("/{index}{}", error.pointer)),
            detail: error.detail,
        }));
    }

    /// Adds that the rest cannot be cut into rows.
    pub fn stuck(&mut self, stuck: Stuck) {
        let error = FieldError { pointer: stuck.field, detail: stuck.detail.into() };
        self.row(stuck.line, None, vec![error]);
    }

    /// The answer, if there are faults.
    ///
    /// # Errors
    /// 422 that lists them.
    pub fn finish(self) -> Result<(), Problem> {
        if self.is_empty() { Ok(()) } else { Err(Problem::rows(self.listed, self.faults, self.rows)) }
    }
}
