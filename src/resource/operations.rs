//! The database operations of a resource, as named in the database metrics.

use crate::db::operation::DbOperation;

/// The operations of one resource.
#[derive(Debug)]
pub struct DbOperations {
    /// Read rows by key.
    pub get: DbOperation,
    /// Check whether rows exist.
    pub exists: DbOperation,
    /// Insert rows.
    pub create: DbOperation,
    /// Replace rows.
    pub replace: DbOperation,
    /// Update some columns of rows.
    pub patch: DbOperation,
    /// Delete rows.
    pub delete: DbOperation,
    /// Read pages and chunks of lists.
    pub list: DbOperation,
    /// Count rows.
    pub count: DbOperation,
    /// Estimate the number of rows.
    pub estimate: DbOperation,
    /// Compute statistics.
    pub statistics: DbOperation,
    /// Copy rows in bulk.
    pub bulk: DbOperation,
    /// Read histories.
    pub history: DbOperation,
    /// Restore rows.
    pub restore: DbOperation,
    /// Remove expired history entries.
    pub prune: DbOperation,
}

impl DbOperations {
    /// The operations of a resource with this name.
    pub fn of(name: &'static str) -> Self {
        let operation = |operation| DbOperation::new(operation, name);
        Self {
            get: operation("get"),
            exists: operation("exists"),
            create: operation("create"),
            replace: operation("replace"),
            patch: operation("patch"),
            delete: operation("delete"),
            list: operation("list"),
            count: operation("count"),
            estimate: operation("estimate"),
            statistics: operation("statistics"),
            bulk: operation("bulk"),
            history: operation("history"),
            restore: operation("restore"),
            prune: operation("prune"),
        }
    }
}
