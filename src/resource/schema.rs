//! The table of a description: its DDL, and how an existing table differs from it.
//!
//! Changes that lose nothing are made automatically (`Difference::safe`): creating the table, adding a column that is nullable
//! or has a default, widening a rule, adding an index. Any other difference is reported with the SQL that would resolve it.
//! Rules are compared by what they allow rather than by text, because PostgreSQL displays them in its own form.

mod compare;
mod history;
mod remedy;
mod rule;
mod table;

use super::column::{Column, IndexKind};
use super::definition::Resource;
use super::identifier::quoted;
use super::kind::Kind;
use super::value::Value;
pub use compare::{Difference, SchemaError, differences, update};
pub use table::Table;

/// The statements that create the table of a resource, in order.
pub fn ddl(resource: &Resource) -> Vec<String> {
    let (table, quoted_table) = (resource.table, quoted(resource.table));
    let mut statements = vec![format!("create sequence {table}_version_seq minvalue 2 cache 32")];
    let mut lines: Vec<String> = vec!["uuid uuid not null".to_owned()];
    lines.extend(resource.fields().iter().map(definition));
    lines.push(format!("version bigint not null default nextval('{table}_version_seq')"));
    for column in resource.fields() {
        if let Some(rule) = check(column) {
            lines.push(format!("constraint {} check ({rule})", constraint(resource, column)));
        }
    }
    statements.push(format!("create table {quoted_table} (\n    {}\n)", lines.join(",\n    ")));
    statements.push(format!("alter sequence {table}_version_seq owned by {quoted_table}.version"));
    // The service draws versions in its own statements. The trigger is for rows updated by hand.
    statements.push(format!(
        "create function {table}_draw_version() returns trigger language plpgsql set search_path from current as $$\n\
         begin\n    new.version := nextval('{table}_version_seq');\n    return new;\nend\n$$"
    ));
    statements.push(format!(
        "create trigger {table}_version before update on {quoted_table} for each row \
         when (new.version = old.version) execute function {table}_draw_version()"
    ));
    for column in resource.fields() {
        statements.extend(indexes(resource, column, "create index"));
    }
    // Last, because PostgreSQL prefers the newest of equally cheap indexes.
    statements.push(format!("alter table {quoted_table} add constraint {table}_pkey primary key (uuid)"));
    if resource.sql.history.is_some() {
        statements.extend(history::ddl(resource));
    }
    statements
}

/// The definition of a column in `create table` and `alter table … add column`.
fn definition(column: &Column) -> String {
    let nullability = if column.nullable { "" } else { " not null" };
    let default =
        if column.default.is_null() { String::new() } else { format!(" default {}", literal(&column.default)) };
    format!("{} {}{nullability}{default}", column.sql, column.sql_type())
}

/// The name of a column's constraint.
fn constraint(resource: &Resource, column: &Column) -> String {
    quoted(&format!("{}_{}", resource.table, column.identifier))
}

/// A value as an SQL literal.
fn literal(value: &Value<'_>) -> String {
    match value {
        Value::Boolean(value) => value.to_string(),
        Value::Integer(value) => value.to_string(),
        other => text(&other.to_string()),
    }
}

/// A text as an SQL literal.
fn text(text: &str) -> String {
    let quoted = text.replace('\'', "''");
    if text.contains('\\') { format!("e'{}'", quoted.replace('\\', "\\\\")) } else { format!("'{quoted}'") }
}

/// The check constraint of a column, unless its type implies the rule.
fn check(column: &Column) -> Option<String> {
    let sql = column.sql;
    let number = |value: &dyn std::fmt::Display| {
        let value = value.to_string();
        if value.starts_with('-') { format!("'{value}'") } else { value }
    };
    match &column.kind {
        Kind::Boolean | Kind::Uuid => None,
        Kind::Integer { values: Some(values), .. } if !is_gapless(values) => {
            Some(format!("{sql} in ({})", values.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")))
        }
        Kind::Integer { bits, minimum, maximum, .. } => {
            let (least, greatest) = (i64::MIN >> (64 - bits), i64::MAX >> (64 - bits));
            match (*minimum > least, *maximum < greatest) {
                (true, true) => Some(format!("{sql} between {minimum} and {maximum}")),
                (true, false) => Some(format!("{sql} >= {minimum}")),
                (false, true) => Some(format!("{sql} <= {maximum}")),
                (false, false) => None,
            }
        }
        // NaN and infinity compare greater than every number in PostgreSQL, so the upper bound rejects them.
        Kind::Number { minimum: Some(minimum), maximum: Some(maximum) } => {
            Some(format!("{sql} between {} and {}", number(minimum), number(maximum)))
        }
        Kind::Number { minimum: Some(minimum), .. } => {
            Some(format!("{sql} >= {} and {sql} < 'infinity'", number(minimum)))
        }
        Kind::Number { maximum: Some(maximum), .. } => {
            Some(format!("{sql} > '-infinity' and {sql} <= {}", number(maximum)))
        }
        Kind::Number { .. } => Some(format!("{sql} > '-infinity' and {sql} < 'infinity'")),
        Kind::Decimal { minimum, maximum, .. } => Some(match (minimum, maximum) {
            (Some(minimum), Some(maximum)) => format!("{sql} between {} and {}", number(minimum), number(maximum)),
            (Some(minimum), None) => format!("{sql} >= {} and {sql} <> 'NaN'", number(minimum)),
            (None, Some(maximum)) => format!("{sql} <= {}", number(maximum)),
            (None, None) => format!("{sql} <> 'NaN'"),
        }),
        Kind::Text { min_length, max_length, pattern } => {
            let matching =
                pattern.as_ref().map(|pattern| format!(" and {sql} ~ {}", text(pattern))).unwrap_or_default();
            Some(format!("char_length({sql}) between {min_length} and {max_length}{matching}"))
        }
        Kind::Enum(texts) => {
            Some(format!("{sql} in ({})", texts.iter().map(|value| text(value)).collect::<Vec<_>>().join(", ")))
        }
        Kind::Date => Some(format!("{sql} between '0001-01-01' and '9999-12-31'")),
        Kind::DateTime => Some(format!("{sql} >= '0001-01-01 00:00:00+00' and {sql} < '10000-01-01 00:00:00+00'")),
    }
}

/// Whether ascending integers are consecutive.
fn is_gapless(values: &[i64]) -> bool {
    values.windows(2).all(|pair| pair[0].checked_add(1) == Some(pair[1]))
}

/// The statements that create the indexes of a column; `create` is the start of those that may be created concurrently.
fn indexes(resource: &Resource, column: &Column, create: &str) -> Vec<String> {
    let (table, quoted_table) = (resource.table, quoted(resource.table));
    let mut statements = Vec::new();
    if column.index >= IndexKind::Ordered {
        let name = quoted(&cut(&format!("{table}_by_{}", column.identifier)));
        // Many rows may share a value, so the index includes the key and a list can start anywhere without a sort. Texts repeat
        // less often, and are indexed by code point, as lists compare them.
        let keys = if column.is_text() { column.ordered_sql.to_owned() } else { format!("{}, uuid", column.sql) };
        statements.push(format!("{create} {name} on {quoted_table} ({keys})"));
    }
    if column.index == IndexKind::Trigram {
        let name = quoted(&cut(&format!("{table}_{}_trigrams", column.identifier)));
        // If the owner may not create the extension, the same queries scan the table instead.
        statements.push(format!(
            "do $$\nbegin\n    create extension if not exists pg_trgm;\n    create index {name} on {quoted_table} using gin \
             ({} gin_trgm_ops);\nexception\n    when insufficient_privilege or undefined_file or feature_not_supported or \
             undefined_object then\n        raise notice 'no index for patterns: %', sqlerrm;\nend\n$$",
            column.sql
        ));
    }
    statements
}

/// Truncates a name as PostgreSQL does.
fn cut(name: &str) -> String {
    name.chars().take(63).collect()
}
