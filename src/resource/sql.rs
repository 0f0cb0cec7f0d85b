//! The SQL statements of a resource, built once from its columns. Columns are always listed: `select *` would break prepared
//! plans when one is added.
//!
//! If the resource has a history, statements that change rows take the actor as their last parameters and write the history in
//! the same statement (`history::sql`).

use super::array_element::element;
use super::column::{Column, leak};
use super::history::sql::{Change, HistoryStatements, Recorder};
use super::identifier::quoted;
use super::kind::Kind;

/// The statements of a resource.
#[derive(Debug)]
pub struct Statements {
    /// Rows by key, with their versions; ordered by key, so that no index except the key's qualifies: in others the key is the
    /// second column.
    pub get: &'static str,
    /// The same rows without versions.
    pub get_rows: &'static str,
    /// Inserts one row.
    pub create: &'static str,
    /// Inserts many rows.
    pub create_many: &'static str,
    /// Replaces one row.
    pub replace: &'static str,
    /// Replaces many rows.
    pub replace_many: &'static str,
    /// Updates some columns of many rows. Null leaves a column unchanged; a nullable column is preceded by a flag. Each change
    /// applies to the current row, so that no concurrent change of another column is lost.
    pub patch_many: &'static str,
    /// Deletes many rows.
    pub delete_many: &'static str,
    /// Which of the given keys exist.
    pub which_exist: &'static str,
    /// The start of a list statement.
    pub list: &'static str,
    /// A page in key order.
    pub page: &'static str,
    /// The start of a count statement.
    pub count: &'static str,
    /// The start of an estimate: it is read from the plan, and nothing is executed.
    pub estimate: &'static str,
    /// The `from` clause of statistics.
    pub from: &'static str,
    /// `COPY` into the table.
    pub copy_in: &'static str,
    /// `COPY` of all rows as importable CSV.
    pub copy_out: &'static str,
    /// The statements of the history, if there is one.
    pub history: Option<HistoryStatements>,
}

/// The rows with keys in `$1` that meet their conditions, which are two arrays of texts.
fn where_met(required: usize) -> String {
    let (required, refused) = (element(required, "text"), element(required + 1, "text"));
    format!(
        " where p.uuid = any($1::uuid[]) and ({required} is null or p.version = any({required}::int8[])) and \
         ({refused} is null or p.version <> all({refused}::int8[])) "
    )
}

/// The row with key `$1` if it meets its conditions, which are two arrays of versions.
fn where_one_met(required: usize) -> String {
    let refused = required + 1;
    format!(
        " where p.uuid = $1 and (${required}::int8[] is null or p.version = any(${required})) and \
         (${refused}::int8[] is null or p.version <> all(${refused})) "
    )
}

impl Statements {
    /// The statements of a table whose first column is the key, and of its history if it has one.
    pub fn of(table: &str, columns: &[Column], has_history: bool) -> Self {
        let names = |before: &str| {
            columns.iter().map(|column| format!("{before}{}", column.sql)).collect::<Vec<_>>().join(", ")
        };
        let all = names("");
        let fields = &columns[1..];
        let table_sql = quoted(table);
        let next = format!("nextval('{table}_version_seq')");
        let numbers = (1..=columns.len()).map(|number| format!("${number}")).collect::<Vec<_>>().join(", ");
        let arrays = columns.iter().map(|column| format!("${}::{}[]", column.position + 1, column.array_type()));
        let arrays = arrays.collect::<Vec<_>>().join(", ");
        let set = |value: &dyn Fn(&Column) -> String| {
            let each = fields.iter().map(|column| format!("{} = {}", column.sql, value(column)));
            each.chain([format!("version = {next}")]).collect::<Vec<_>>().join(", ")
        };
        let next_parameter = columns.len() + 1;
        let values = set(&|column| format!("${}", column.position + 1));
        let recorder = Recorder { table, is_on: has_history };
        let replace = recorder.update(
            Change { operation: "replace", actor: next_parameter + 2, is_one: true },
            &values,
            &where_one_met(next_parameter),
            &[],
        );
        let replace_many = recorder.update(
            Change { operation: "replace", actor: next_parameter + 2, is_one: false },
            &set(&|column| element(column.position + 1, column.array_type())),
            &where_met(next_parameter),
            &[],
        );
        let mut parameter = 1;
        let mut patch_values = Vec::new();
        for column in fields {
            parameter += 1;
            patch_values.push(if column.nullable {
                parameter += 1;
                let (flag, value) = (element(parameter - 1, "bool"), element(parameter, column.array_type()));
                format!("case when {flag} then {value} else p.{} end", column.sql)
            } else {
                format!("coalesce({}, p.{})", element(parameter, column.array_type()), column.sql)
            });
        }
        let patch_many = recorder.update(
            Change { operation: "patch", actor: parameter + 3, is_one: false },
            &set(&|column| patch_values[column.position - 1].clone()),
            &where_met(parameter + 1),
            columns,
        );
        let insert = |rows: &str| format!("insert into {table_sql} ({all}) {rows} ");
        let create_one = Change { operation: "create", actor: next_parameter, is_one: true };
        let create_many = Change { is_one: false, ..create_one };
        let copied = columns.iter().map(copied).collect::<Vec<_>>().join(", ");
        Self {
            get: leak(format!("select {all}, version from {table_sql} where uuid = any($1) order by uuid")),
            get_rows: leak(format!("select {all} from {table_sql} where uuid = any($1) order by uuid")),
            create: leak(recorder.insert(create_one, &insert(&format!("values ({numbers})")))),
            create_many: leak(recorder.insert(create_many, &insert(&format!("select * from unnest({arrays})")))),
            replace: leak(replace),
            replace_many: leak(replace_many),
            patch_many: leak(patch_many),
            delete_many: leak(recorder.delete(Change { operation: "delete", actor: 4, is_one: false }, &where_met(2))),
            which_exist: leak(format!("select uuid from {table_sql} where uuid = any($1) order by uuid")),
            list: leak(format!("select {all} from {table_sql}")),
            page: leak(format!("select {all} from {table_sql} where uuid > $1 order by uuid limit $2")),
            count: leak(format!("select count(*) from {table_sql}")),
            estimate: leak(format!("explain (format json) select from {table_sql}")),
            from: leak(format!(" from {table_sql}")),
            copy_in: leak(format!("copy {table_sql} ({all}) from stdin (format binary)")),
            copy_out: leak(format!(
                "copy (select {copied} from {table_sql} order by uuid) to stdout (format csv, header true)"
            )),
            history: has_history.then(|| {
                let restore = Change { operation: "restore", ..create_one };
                let over = recorder.update(restore, &values, " where p.uuid = $1 ", &[]);
                let anew =
                    recorder.insert(restore, &insert(&format!("values ({numbers}) on conflict (uuid) do nothing")));
                HistoryStatements::of(table, &over, &anew)
            }),
        }
    }
}

/// A column in the format of export, which import reads, under its header.
fn copied(column: &Column) -> String {
    let (sql, name) = (column.sql, column.name);
    let value = match column.kind {
        // CSV output of a boolean is `t` or `f`; a cast to text would be slower than the case expression.
        Kind::Boolean => format!("case when {sql} then 'true' when not {sql} then 'false' end"),
        // In UTC and ISO 8601, whatever the session's settings.
        Kind::DateTime => {
            format!("to_char({sql} at time zone 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS.US\"Z\"')")
        }
        Kind::Date => format!("to_char({sql}, 'YYYY-MM-DD')"),
        _ if sql == name => return sql.to_owned(),
        _ => sql.to_owned(),
    };
    format!("{value} as \"{name}\"")
}
