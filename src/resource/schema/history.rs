//! The tables of a history, which follow a description as the resource's own table does.
//!
//! No column of them is of a resource: values are kept as JSON, so columns that come and go leave old entries as they are. JSON and
//! not `jsonb`, which knows no negative zero.

use super::super::definition::Resource;
use super::super::history::sql::{name, of, since};
use super::super::identifier::quoted;

/// The columns of a history with their types, as the catalog shows them.
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

/// Those that a history may be without, because it was made before there were any. They may be null and have no default, so adding
/// one rewrites nothing, and a release from before it goes on writing.
pub const LATER: &[&str] = &["request_id"];

/// The statements that make the tables of a resource's history, in order.
pub fn ddl(resource: &Resource) -> Vec<String> {
    let (history, name, since) = (of(resource.table), name(resource.table), quoted(&since(resource.table)));
    vec![
        // The clock is read while the row is locked; the time of the transaction's beginning would order changes otherwise
        // than they were made.
        format!(
            "create table if not exists {history} (\n    id bigint generated always as identity,\n    \
             changed_at timestamp with time zone not null default clock_timestamp(),\n    version_before bigint,\n    \
             version_after bigint,\n    uuid uuid not null,\n    operation text not null,\n    changed_by text,\n    before json,\n    \
             request_id text\n)"
        ),
        format!("create index if not exists {} on {history} (changed_at)", quoted(&format!("{name}_by_changed_at"))),
        // Last, because among equally cheap indexes PostgreSQL takes the newest.
        format!("alter table {history} add constraint {} primary key (uuid, id)", quoted(&format!("{name}_pkey"))),
        format!(
            "create table if not exists {since} (\n    only_row boolean primary key default true check (only_row),\n    \
             complete_since timestamp with time zone not null default clock_timestamp()\n)"
        ),
        format!("insert into {since} default values on conflict do nothing"),
    ]
}
