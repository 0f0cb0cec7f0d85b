//! SQL for the differences that are not resolved automatically. It runs as printed, also on a table with rows, unless a row
//! violates the new rule or its value cannot be converted.

use super::super::column::Column;
use super::super::definition::Resource;
use super::super::examples::example;
use super::super::identifier::quoted;
use super::table::{Table, TableColumn};
use super::{check, constraint, ddl, literal, text};

/// Adds a column that may not be null and has no default: existing rows get an example value, which is returned as well.
pub fn add(resource: &Resource, column: &Column, alter: &str) -> (String, Vec<String>) {
    let example = column.docs.example.clone().unwrap_or_else(|| example(column));
    let json = example.to_string();
    let value = column.read_json(&json).map(|value| literal(&value));
    let value = value.unwrap_or_else(|| text(example.as_str().unwrap_or(&json)));
    let (sql, sql_type) = (column.sql, column.sql_type());
    let rule = check(column).map(|rule| format!(", add constraint {} check ({rule})", constraint(resource, column)));
    let statements = vec![
        format!("{alter} add column {sql} {sql_type} not null default {value}{}", rule.unwrap_or_default()),
        format!("{alter} alter column {sql} drop default"),
    ];
    (value, statements)
}

/// The columns of the table that may be a missing one under its previous name, with the statements that rename each and its
/// constraint.
pub fn renames(resource: &Resource, column: &Column, table: &Table, alter: &str) -> Vec<(String, Vec<String>)> {
    let is_described = |name: &str| name == "version" || resource.columns.iter().any(|known| known.identifier == name);
    let fits = |(name, known): &(&String, &TableColumn)| !is_described(name) && known.sql_type == column.sql_type();
    let rename = |(name, _): (&String, &TableColumn)| {
        let mut statements = vec![format!("{alter} rename column {} to {}", quoted(name), column.sql)];
        let rule = format!("{}_{name}", resource.table);
        if table.checks.contains_key(&rule) {
            statements.push(format!("{alter} rename constraint {} to {}", quoted(&rule), constraint(resource, column)));
        }
        (name.clone(), statements)
    };
    table.columns.iter().filter(fits).map(rename).collect()
}

/// Changes the type of a column. Its constraint, default and text indexes are those of the old type; the next start creates
/// indexes again.
pub fn retype(resource: &Resource, column: &Column, known: &TableColumn, table: &Table, alter: &str) -> Vec<String> {
    let (sql, sql_type) = (column.sql, column.sql_type());
    let is_text = known.sql_type == "text" || sql_type == "text";
    let indexes = table.indexes.iter().filter(|index| index.column == column.identifier && is_text);
    let mut statements: Vec<String> = indexes.map(|index| format!("drop index {}", index.name)).collect();
    let mut actions = Vec::new();
    if table.checks.contains_key(&format!("{}_{}", resource.table, column.identifier)) {
        actions.push(format!("drop constraint {}", constraint(resource, column)));
    }
    if known.has_default {
        actions.push(format!("alter column {sql} drop default"));
    }
    actions.push(format!("alter column {sql} type {sql_type} using {}", conversion(sql, &known.sql_type, sql_type)));
    if !column.default.is_null() {
        actions.push(format!("alter column {sql} set default {}", literal(&column.default)));
    }
    if let Some(rule) = check(column) {
        actions.push(format!("add constraint {} check ({rule})", constraint(resource, column)));
    }
    statements.push(format!("{alter} {}", actions.join(", ")));
    statements
}

/// An expression that converts a column between two types.
fn conversion(sql: &str, from: &str, to: &str) -> String {
    let is_number = |sql_type: &str| {
        matches!(sql_type, "smallint" | "integer" | "bigint" | "real" | "double precision")
            || sql_type.starts_with("numeric")
    };
    match (from, to) {
        ("boolean", to) if is_number(to) => format!("{sql}::integer::{to}"),
        (from, "boolean") if is_number(from) => format!("{sql} <> 0"),
        ("timestamp with time zone", "date") => format!("({sql} at time zone 'UTC')::date"),
        ("date", "timestamp with time zone") => format!("{sql}::timestamp at time zone 'UTC'"),
        (from, to) if from == "text" || to == "text" || is_number(from) && is_number(to) => format!("{sql}::{to}"),
        _ => format!("{sql}::text::{to}"),
    }
}

/// Renames a table that was not created by this program, and creates the resource's own.
pub fn replace(resource: &Resource) -> Vec<String> {
    let (table, before) = (resource.table, format!("{}_before", resource.table));
    let mut statements = vec![
        format!("alter table {} rename to {}", quoted(table), quoted(&before)),
        format!("alter index if exists {table}_pkey rename to {before}_pkey"),
        format!("alter sequence if exists {table}_version_seq rename to {before}_version_seq"),
    ];
    statements.extend(ddl(resource));
    statements
}
