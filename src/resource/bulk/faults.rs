//! Errors in the rows of a body: the first hundred, and their total number.

use super::split::SplitError;
use crate::http::problem::{FieldError, Problem, RowError};

/// Maximum number of errors listed in a response.
const LISTED_MAX: usize = 100;

/// The errors found so far.
#[derive(Debug, Default)]
pub struct Faults {
    listed: Vec<RowError>,
    faults: u64,
    rows: u64,
}

impl Faults {
    /// Whether every row so far is valid.
    pub fn is_empty(&self) -> bool {
        self.faults == 0
    }

    /// Adds the errors of a row; `index` is its index in a JSON array.
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

    /// Adds the error that ends splitting: the rest of the body cannot be split into rows.
    pub fn split_error(&mut self, error: SplitError) {
        let field_error = FieldError { pointer: error.field, detail: error.detail.into() };
        self.row(error.line, None, vec![field_error]);
    }

    /// Returns an error if any row has errors.
    ///
    /// # Errors
    /// 422 that lists the errors.
    pub fn finish(self) -> Result<(), Problem> {
        if self.is_empty() { Ok(()) } else { Err(Problem::rows(self.listed, self.faults, self.rows)) }
    }
}
