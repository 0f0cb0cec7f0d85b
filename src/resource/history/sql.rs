//! The SQL of histories: makes statements that change rows write the history as well, and reads it.
//!
//! A change becomes a common table expression whose rows are inserted into the history. An existing row is locked and read
//! first, because PostgreSQL before release 18 returns only the new values of an update.

use super::super::array_element::element_of;
use super::super::column::{Column, leak};
use super::super::identifier::quoted;

/// How the changes of a statement are recorded.
#[derive(Debug, Clone, Copy)]
pub struct Change {
    /// The name of the operation.
    pub operation: &'static str,
    /// The number of the parameter with the actor: a text, or an array of them for many rows. The next parameter is the request
    /// id.
    pub actor: usize,
    /// Whether it changes one row, whose key is the first parameter, rather than many.
    pub is_one: bool,
}

/// Builds statements that change rows of a table.
#[derive(Debug, Clone, Copy)]
pub struct Recorder<'a> {
    /// The table.
    pub table: &'a str,
    /// Whether the statements write a history.
    pub is_on: bool,
}

impl Recorder<'_> {
    /// An `insert`, given without `returning`; it returns keys and versions.
    pub fn insert(self, change: Change, insert: &str) -> String {
        if !self.is_on {
            return format!("{insert}returning uuid, version");
        }
        let entries = self.entries(change, "null", "version", "null");
        format!("with changed as ({insert}returning uuid, version) {entries} returning uuid, version_after")
    }

    /// An `update` of the table as `p`; it returns keys and versions, or `columns` and versions.
    pub fn update(self, change: Change, set: &str, condition: &str, columns: &[Column]) -> String {
        let table = quoted(self.table);
        let names = |before: &str| {
            let names = columns.iter().map(|column| format!("{before}{}", column.sql)).collect::<Vec<_>>();
            if names.is_empty() { format!("{before}uuid") } else { names.join(", ") }
        };
        let (all, mine) = (names(""), names("p."));
        if !self.is_on {
            return format!("update {table} p set {set}{condition}returning {mine}, p.version");
        }
        let entries = self.entries(change, "\"old.version\"", "version", "\"old.before\"");
        let changed = format!(
            "with old as (select p.uuid, p.version, row_to_json(p.*) as before from {table} p{condition}\
             order by p.uuid for no key update of p), \
             changed as (update {table} p set {set} from old where p.uuid = old.uuid \
             returning {mine}, p.version, old.version as \"old.version\", old.before as \"old.before\")"
        );
        if columns.is_empty() {
            format!("{changed} {entries} returning uuid, version_after")
        } else {
            format!("{changed}, kept as ({entries}) select {all}, version from changed")
        }
    }

    /// A `delete` from the table as `p`; it returns keys.
    pub fn delete(self, change: Change, condition: &str) -> String {
        let table = quoted(self.table);
        if !self.is_on {
            return format!("delete from {table} p{condition}returning p.uuid");
        }
        let entries = self.entries(change, "version", "null", "before");
        format!(
            "with changed as (delete from {table} p{condition}returning p.uuid, p.version, row_to_json(p.*) as before) \
             {entries} returning uuid"
        )
    }

    /// The statement part that inserts the entries of the changed rows.
    fn entries(self, change: Change, version_before: &str, version_after: &str, before: &str) -> String {
        let Change { operation, actor, is_one } = change;
        let recorded =
            |parameter| if is_one { format!("${parameter}::text") } else { element_of("changed", parameter, "text") };
        let (actor, request_id) = (recorded(actor), recorded(actor + 1));
        format!(
            "insert into {} (uuid, operation, changed_by, request_id, version_before, version_after, before) \
             select uuid, '{operation}', {actor}, {request_id}, {version_before}, {version_after}, {before} from changed",
            of(self.table)
        )
    }
}

/// The history table of a table, quoted for SQL.
pub fn of(table: &str) -> String {
    quoted(&name(table))
}

/// The name of the history table.
pub fn name(table: &str) -> String {
    format!("{table}_history")
}

/// The name of the table whose only row states since when the history is complete.
pub fn since(table: &str) -> String {
    format!("{table}_history_since")
}

/// The statements of a history.
#[derive(Debug)]
pub struct HistoryStatements {
    /// The entries of one row older than one of them, newest first.
    pub older: &'static str,
    /// The entries of one row newer than one of them, oldest first.
    pub newer: &'static str,
    /// Whether the row or an entry of it exists.
    pub is_known: &'static str,
    /// The values of a row in a version, if they are kept.
    pub at_version: &'static str,
    /// The state of a row at an instant: the first change after it, the row, and the last change before it.
    pub at_time: &'static str,
    /// Locks the row until the end of the transaction and returns its version.
    pub lock: &'static str,
    /// The last change of a row.
    pub last: &'static str,
    /// Replaces the values of an existing row.
    pub restore_over: &'static str,
    /// Inserts a row that no longer exists; does nothing if it does.
    pub restore_anew: &'static str,
    /// Inserts the entries of rows copied by this transaction, with keys between two bounds.
    pub copied: &'static str,
    /// Inserts the entries of all rows copied by this transaction.
    pub imported: &'static str,
    /// Removes the oldest expired entries. An advisory lock lets one replica at a time do this. Returns the number of entries,
    /// and updates since when the history is complete.
    pub prune: &'static str,
}

impl HistoryStatements {
    /// The statements of a table's history.
    pub fn of(table: &str, restore_over: &str, restore_anew: &str) -> Self {
        let (history, rows, since_table) = (of(table), quoted(table), quoted(&since(table)));
        let entry = format!(
            "select id, operation, changed_at, changed_by, version_before, version_after, before::text, request_id \
            from {history}"
        );
        let copied = format!(
            "insert into {history} (uuid, operation, changed_by, request_id, version_after) \
             select uuid, 'create', $3::text, $4::text, version from {rows} where uuid between $1 and $2 and \
             xmin = pg_current_xact_id()::xid"
        );
        let since = format!("(select complete_since from {since_table})");
        let event = |name: &str, condition: &str| {
            format!(
                "(select before::text, version_before, operation, changed_at, {since}, '{name}', version_after from {history} \
                 where uuid = $1 and {condition} limit 1)"
            )
        };
        Self {
            older: leak(format!("{entry} where uuid = $1 and id < $2 order by uuid desc, id desc limit $3")),
            newer: leak(format!("{entry} where uuid = $1 and id > $2 order by uuid, id limit $3")),
            is_known: leak(format!(
                "select exists (select from {rows} where uuid = $1) or exists (select from {history} where uuid = $1)"
            )),
            at_version: leak(format!(
                "(select before::text from {history} where uuid = $1 and version_before = $2 order by uuid, id limit 1) \
                 union all select row_to_json(p.*)::text from {rows} p where uuid = $1 and version = $2"
            )),
            at_time: leak(format!(
                "{} union all select row_to_json(p.*)::text, version, null, null, {since}, 'row', null from {rows} p \
                 where uuid = $1 union all {}",
                event("next", "changed_at > $2 order by uuid, id"),
                event("last", "changed_at <= $2 order by uuid desc, id desc"),
            )),
            lock: leak(format!("select version from {rows} where uuid = $1 for no key update")),
            last: leak(format!("{entry} where uuid = $1 order by uuid desc, id desc limit 1")),
            restore_over: leak(restore_over),
            restore_anew: leak(restore_anew),
            imported: leak(
                copied.replace("uuid between $1 and $2 and ", "").replace("$3::text, $4::text", "null, null"),
            ),
            copied: leak(copied),
            prune: leak(format!(
                "with pruned as (delete from {history} where ctid = any(array(select ctid from {history} \
                 where changed_at <= now() - make_interval(secs => $1) order by changed_at limit $2)) \
                 and (select pg_try_advisory_xact_lock(1751741300, hashtext('{table}'))) returning changed_at), \
                 updated as (update {since_table} set complete_since = greatest(complete_since, (select max(changed_at) \
                 from pruned)) where exists (select from pruned)) select count(*) from pruned"
            )),
        }
    }
}
