//! Reads histories.

use jiff::Timestamp;
use tokio_postgres::Row;
use uuid::Uuid;

use super::super::definition::Resource;
use super::super::row::{JSON_BYTES, Stored};
use super::super::value::{Raw, Value, timestamp_of};
use super::sql::HistoryStatements;
use super::state::State;
use crate::db::error::{StoreError, ended_early};
use crate::db::pool::{Pool, retried};
use crate::db::reads::Reader;
use crate::db::session::Query;
use crate::http::reply::Room;

/// Which entries of a row to read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Start {
    /// The newest.
    Newest,
    /// Those older than this one.
    OlderThan(i64),
    /// Those newer than this one, oldest first.
    NewerThan(i64),
}

/// One entry of a history.
#[derive(Debug)]
pub struct Entry {
    /// Its id; orders the entries of a row.
    pub id: i64,
    row: Row,
}

/// The state of a row at an instant.
#[derive(Debug)]
pub enum Past {
    /// It existed.
    Existing(Stored),
    /// It was created later.
    CreatedLater(Timestamp),
    /// It had been deleted.
    Deleted(Timestamp),
    /// The history does not reach back that far; it is complete since this time, if known.
    NotKept(Option<Timestamp>),
    /// The entry of this version does not hold readable values.
    Damaged(i64),
    /// The row was changed without an entry, at an unknown time.
    Unrecorded,
}

impl Entry {
    fn of(row: Row) -> Result<Self, StoreError> {
        Ok(Self { id: row.try_get(0)?, row })
    }

    /// The version before the change, whose values the entry holds.
    pub fn ended(&self) -> Option<i64> {
        self.row.try_get(4).ok().flatten()
    }

    /// Appends it as JSON.
    ///
    /// # Errors
    /// [`StoreError::Internal`] or [`StoreError::Unreadable`] when the row is not a valid history entry.
    pub fn write_json(&self, resource: &Resource, uuid: Uuid, out: &mut Vec<u8>) -> Result<(), StoreError> {
        let operation: &str = self.row.try_get(1)?;
        let (by, request_id): (Option<&str>, Option<&str>) = (self.row.try_get(3)?, self.row.try_get(7)?);
        let text = |text: Option<&str>, out: &mut Vec<u8>| {
            text.map_or(Value::Null, |text| Value::Text(text.into())).write_json(out);
        };
        let number =
            |index| Ok::<_, StoreError>(self.row.try_get::<_, Option<i64>>(index)?.map_or(Value::Null, Value::Integer));
        out.extend_from_slice(b"{\"operation\":");
        Value::Text(operation.into()).write_json(out);
        out.extend_from_slice(b",\"changedAt\":");
        Value::DateTime(instant(&self.row, 2)?.ok_or(UNREADABLE)?).write_json(out);
        out.extend_from_slice(b",\"changedBy\":");
        text(by, out);
        out.extend_from_slice(b",\"requestId\":");
        text(request_id, out);
        out.extend_from_slice(b",\"versionBefore\":");
        number(4)?.write_json(out);
        out.extend_from_slice(b",\"versionAfter\":");
        number(5)?.write_json(out);
        out.extend_from_slice(b",\"before\":");
        match self.row.try_get::<_, Option<&str>>(6)? {
            None => out.extend_from_slice(b"null"),
            Some(before) => State::read(before)?.write_json(resource, uuid, out),
        }
        out.push(b'}');
        Ok(())
    }
}

/// The entries of a row, newest first, at most `limit` and as many as there is room for, and whether more follow in that
/// direction.
///
/// # Errors
/// The pool's, or [`StoreError::Missing`] when neither the row nor an entry of it exists.
pub async fn page(
    (resource, history): (&'static Resource, &'static HistoryStatements),
    (reader, pool): (&Reader, &Pool),
    uuid: Uuid,
    start: Start,
    (limit, room): (usize, Room<'_>),
) -> Result<(Vec<Entry>, bool), StoreError> {
    debug_assert!(resource.sql.history.is_some());
    let (sql, from) = match start {
        Start::Newest => (history.older, i64::MAX),
        Start::OlderThan(id) => (history.older, id),
        Start::NewerThan(id) => (history.newer, id),
    };
    // One extra row shows whether there are more.
    let most = i64::try_from(limit + 1).unwrap_or(i64::MAX);
    let (mut entries, is_cut) = retried(|| async {
        let (mut entries, mut bytes) = (Vec::new(), 0);
        let keep = &mut |row: Row| {
            // Its bytes, and as many as JSON.
            bytes += 2 * row.raw_size_bytes();
            if !entries.is_empty() && room.is_full(bytes) {
                return Err(StoreError::Enough);
            }
            entries.push(Entry::of(row)?);
            Ok(())
        };
        let query = Query::Prepared(sql, &[&uuid, &from, &most]);
        let is_cut = ended_early(reader.for_each(&resource.db.history, query, keep).await)?;
        Ok((entries, is_cut))
    })
    .await?;
    if entries.is_empty() && !is_known((resource, history), pool, uuid).await? {
        return Err(StoreError::Missing);
    }
    let more = is_cut || entries.len() > limit;
    entries.truncate(limit);
    if matches!(start, Start::NewerThan(_)) {
        entries.reverse();
    }
    Ok((entries, more))
}

async fn is_known(
    (resource, history): (&Resource, &HistoryStatements),
    pool: &Pool,
    uuid: Uuid,
) -> Result<bool, StoreError> {
    let rows = pool.read(&resource.db.exists, history.is_known, &[&uuid]).await?;
    Ok(rows.first().ok_or(StoreError::Missing)?.try_get(0)?)
}

/// The row in one of its versions.
///
/// # Errors
/// The pool's, or [`StoreError::Missing`] when that version is not kept.
pub async fn at_version(
    resource: &Resource,
    history: &HistoryStatements,
    pool: &Pool,
    uuid: Uuid,
    version: i64,
) -> Result<Stored, StoreError> {
    let rows = pool.read(&resource.db.history, history.at_version, &[&uuid, &version]).await?;
    stored(resource, uuid, rows.first().ok_or(StoreError::Missing)?.try_get(0)?, version)
}

/// The row at an instant: the state before the first later change, or the current row if there is none.
///
/// # Errors
/// The pool's, or [`StoreError::Missing`] when neither the row nor an entry of it exists.
pub async fn at_time(
    resource: &Resource,
    history: &HistoryStatements,
    pool: &Pool,
    uuid: Uuid,
    time: Timestamp,
) -> Result<Past, StoreError> {
    // One statement, so that history and table are read from one snapshot.
    let rows = pool.read(&resource.db.history, history.at_time, &[&uuid, &Value::DateTime(time)]).await?;
    let named = |name: &str| rows.iter().find(|row| row.try_get(5).is_ok_and(|found: &str| found == name));
    let (next, current, last) = (named("next"), named("row"), named("last"));
    let Some(any) = rows.first() else { return Err(StoreError::Missing) };
    let whole_since = instant(any, 4)?;
    if let Some(next) = next
        && next.try_get::<_, &str>(2)? == "create"
    {
        return Ok(Past::CreatedLater(instant(next, 3)?.ok_or(UNREADABLE)?));
    }
    // If an entry from before the instant still exists, so does every later one.
    if last.is_none() && whole_since.is_none_or(|since| since > time) {
        return Ok(Past::NotKept(whole_since));
    }
    let (before, version): (Option<&str>, Option<i64>) = match next.or(current) {
        Some(state) => (state.try_get(0)?, state.try_get(1)?),
        None => (None, None),
    };
    if let Some(last) = last
        && last.try_get::<_, Option<i64>>(6)? != version
    {
        return Ok(Past::Unrecorded);
    }
    match (before, version, last) {
        (Some(before), Some(version), _) => match stored(resource, uuid, before, version) {
            Err(StoreError::Unreadable { .. }) => Ok(Past::Damaged(version)),
            read => read.map(Past::Existing),
        },
        (_, _, Some(last)) => Ok(Past::Deleted(instant(last, 3)?.ok_or(UNREADABLE)?)),
        (_, _, None) => Ok(Past::NotKept(whole_since)),
    }
}

const UNREADABLE: StoreError = StoreError::Unreadable { column: "changed_at" };

fn stored(resource: &Resource, uuid: Uuid, before: &str, version: i64) -> Result<Stored, StoreError> {
    let mut document = Vec::with_capacity(JSON_BYTES);
    State::read(before)?.write_json(resource, uuid, &mut document);
    Ok(Stored { document: document.into(), version })
}

/// Decodes the timestamp in a column.
fn instant(row: &Row, index: usize) -> Result<Option<Timestamp>, StoreError> {
    let Raw(raw) = row.try_get(index)?;
    Ok(raw.and_then(|raw| raw.try_into().ok()).and_then(timestamp_of))
}
