//! What requests do with rows of a resource, as the metrics of the database name it.

use crate::db::operation::DbOperation;

/// The operations of one resource.
#[derive(Debug)]
pub struct DbOperations {
    /// Rows by key.
    pub get: DbOperation,
    /// Whether there are rows.
    pub exists: DbOperation,
    /// New rows.
    pub create: DbOperation,
    /// Rows anew.
    pub replace: DbOperation,
    /// Some columns of rows.
    pub patch: DbOperation,
    /// Rows that go.
    pub delete: DbOperation,
    /// Pages and chunks of lists.
    pub list: DbOperation,
    /// How many rows there are.
    pub count: DbOperation,
    /// About how many.
    pub estimate: DbOperation,
    /// Numbers about groups.
    pub statistics: DbOperation,
    /// Many new rows, as they arrive.
    pub bulk: DbOperation,
    /// What rows were.
    pub history: DbOperation,
    /// Rows as they were.
    pub restore: DbOperation,
    /// Entries of the history that have passed their time.
    pub prune: DbOperation,
}

impl DbOperations {
    /// Those of a resource of this name.
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
