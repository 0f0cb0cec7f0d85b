//! The condition of a write on the row's current version: optimistic locking.
//!
//! The condition is part of each batch item, and one statement checks it and changes the row, so no concurrent change can come
//! between the check and the write.

use super::session::Param;

/// A condition on a row's version.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Precondition {
    /// The version must be one of these.
    pub required: Option<Vec<i64>>,
    /// The version must be none of these.
    pub refused: Option<Vec<i64>>,
}

impl Precondition {
    /// Any version matches.
    pub const NONE: Self = Self { required: None, refused: None };

    /// Whether any version matches.
    pub fn is_none(&self) -> bool {
        self.required.is_none() && self.refused.is_none()
    }

    /// Whether this version matches.
    pub fn is_met(&self, version: i64) -> bool {
        let names = |versions: &Vec<i64>| versions.contains(&version);
        self.required.as_ref().is_none_or(names) && !self.refused.as_ref().is_some_and(names)
    }
}

/// Conditions as two columns for `unnest`: each list is the text of a `bigint[]`, because arrays in arrays must be of
/// equal length.
#[derive(Debug, Default)]
pub struct Preconditions {
    /// The allowed versions.
    pub required: Vec<Option<String>>,
    /// The disallowed versions.
    pub refused: Vec<Option<String>>,
}

impl Preconditions {
    /// Converts conditions to columns.
    pub fn of<'a>(conditions: impl Iterator<Item = &'a Precondition>) -> Self {
        let mut columns = Self::default();
        for Precondition { required, refused } in conditions {
            columns.required.push(required.as_deref().map(array));
            columns.refused.push(refused.as_deref().map(array));
        }
        columns
    }

    /// The statement's last parameters.
    pub fn params(&self) -> [Param<'_>; 2] {
        [&self.required, &self.refused]
    }
}

/// Formats a list as a PostgreSQL array literal.
fn array(versions: &[i64]) -> String {
    let mut text = String::from("{");
    for (place, version) in versions.iter().enumerate() {
        if place > 0 {
            text.push(',');
        }
        text.push_str(&version.to_string());
    }
    text.push('}');
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn conditions_become_two_columns_of_arrays() {
        let conditions = [
            Precondition::default(),
            Precondition { required: Some(vec![1, 23]), refused: Some(vec![]) },
            Precondition { required: None, refused: Some(vec![7]) },
        ];
        let columns = Preconditions::of(conditions.iter());
        assert_eq!(columns.required, [None, Some("{1,23}".to_owned()), None]);
        assert_eq!(columns.refused, [None, Some("{}".to_owned()), Some("{7}".to_owned())]);
    }
}
