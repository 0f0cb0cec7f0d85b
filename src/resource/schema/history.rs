//! The tables of a history, which are updated with the resource's own table.
//!
//! They have no columns of the resource: values are stored as JSON, so adding or removing columns does not change old entries.
//! The type is `json` rather than `jsonb`, which does not preserve negative zero.

use super::super::definition::Resource;
use super::super::history::sql::{name, of, since};
use super::super::identifier::quoted;

/// The columns of a history with their types, as displayed by the catalog.
pub const COLUMNS: &[(&str, &str)] = &[
    ("id", "bigint"),
    ("changed_at", "timestamp with time zone"),
    ("version_before", "bigint"),
    ("version_after", "bigint"),
    ("uuid", "uuid"),
    ("operation", "text"),
    ("changed_by", "text"),
    ("before", "json"),
    ("request_id", "text"),
];

/// Columns added in later releases. They are nullable without a default, so adding one does not rewrite the table, and an older
/// release can still write to it.
pub const LATER: &[&str] = &["request_id"];

/// The statements that create the tables of a resource's history, in order.
pub fn ddl(resource: &Resource) -> Vec<String> {
    let (history, name, since) = (of(resource.table), name(resource.table), quoted(&since(resource.table)));
    vec![
        // The clock is read while the row is locked; the transaction's start time could order changes differently from their
        // actual order.
        format!(
            "create table if not exists {history} (\n    id bigint generated always as identity,\n    \
             changed_at timestamp with time zone not null default clock_timestamp(),\n    version_before bigint,\n    \
             version_after bigint,\n    uuid uuid not null,\n    operation text not null,\n    changed_by text,\n    \
             before json,\n    request_id text\n)"
        ),
        format!("create index if not exists {} on {history} (changed_at)", quoted(&format!("{name}_by_changed_at"))),
        // Last, because PostgreSQL prefers the newest of equally cheap indexes.
        format!("alter table {history} add constraint {} primary key (uuid, id)", quoted(&format!("{name}_pkey"))),
        format!(
            "create table if not exists {since} (\n    only_row boolean primary key default true check (only_row),\n    \
             complete_since timestamp with time zone not null default clock_timestamp()\n)"
        ),
        format!("insert into {since} default values on conflict do nothing"),
    ]
}
