//! Reads what a history holds.

use jiff::Timestamp;
use tokio_postgres::Row;
use uuid::Uuid;

use super::super::definition::Resource;
use super::super::row::{JSON_BYTES, Stored};
use super::super::value::{Raw, Value, timestamp_of};
use super::sql::HistoryStatements;
use super::state::State;
use crate::db::error::StoreError;
use crate::db::pool::Pool;
use crate::db::reads::Reader;

/// Which entries of a row are read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Start {
    /// The newest.
    Newest,
    /// Those older than this one.
    OlderThan(i64),
    /// Those newer than this one, the oldest of them.
    NewerThan(i64),
}

/// One entry of a history.
#[derive(Debug)]
pub struct Entry {
    /// Its place among those of the row.
    pub id: i64,
    row: Row,
}

/// What a row was at an instant.
#[derive(Debug)]
pub enum Past {
    /// It was there.
    There(Stored),
    /// It was made only later.
    CreatedLater(Timestamp),
    /// It had been deleted.
    Deleted(Timestamp),
    /// The history does not reach back so far; it is whole since then, if that is known.
    NotKept(Option<Timestamp>),
    /// The entry that keeps this version holds no values of a row any more.
    Damaged(i64),
    /// Somebody changed the row without an entry, at a time that nobody knows.
    Unrecorded,
}

impl Entry {
    fn of(row: Row) -> Result<Self, StoreError> {
        Ok(Self { id: row.try_get(0)?, row })
    }

    /// The version that the change ended, whose values it keeps.
    pub fn ended(&self) -> Option<i64> {
        self.row.try_get(4).ok().flatten()
    }

    /// Appends it as JSON.
    ///
    /// # Errors
    /// [`StoreError::Internal`] or [`StoreError::Unreadable`] when the row is none of a history.
    pub fn write_json(&self, resource: &Resource, uuid: Uuid, out: &mut Vec<u8>) -> Result<(), StoreError> {
        let operation: &str = self.row.try_get(1)?;
        let (by, request_id): (Option<&str>, Option<&str>) = (self.row.try_get(3)?, self.row.try_get(7)?);
        let text = |text: Option<&str>, out: &mut Vec<u8>| {
            text.map_or(Value::Null, |text| Value::Text(text.into())).write_json(out);
        };
        let number =
            |place| Ok::<_, StoreError>(self.row.try_get::<_, Option<i64>>(place)?.map_or(Value::Null, Value::Integer));
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

/// The entries of a row, newest first, at most `limit`, and whether there are more on that side.
///
/// # Errors
/// The pool's, or [`StoreError::Missing`] when there is neither such a row nor an entry of one.
pub async fn page(
    (resource, history): (&'static Resource, &'static HistoryStatements),
    (reader, pool): (&Reader, &Pool),
    uuid: Uuid,
    start: Start,
    limit: usize,
) -> Result<(Vec<Entry>, bool), StoreError> {
    debug_assert!(resource.sql.history.is_some());
    let (sql, from) = match start {
        Start::Newest => (history.older, i64::MAX),
        Start::OlderThan(id) => (history.older, id),
        Start::NewerThan(id) => (history.newer, id),
    };
    // One more than asked for tells whether there are more.
    let most = i64::try_from(limit + 1).unwrap_or(i64::MAX);
    let rows = reader.read(&resource.db.history, sql, &[&uuid, &from, &most]).await?;
    let mut entries = rows.into_iter().map(Entry::of).collect::<Result<Vec<_>, _>>()?;
    if entries.is_empty() && !is_known((resource, history), pool, uuid).await? {
        return Err(StoreError::Missing);
    }
    let more = entries.len() > limit;
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

/// The row as it was at an instant: what the first change after it ended, or as it is if there is none.
///
/// # Errors
/// The pool's, or [`StoreError::Missing`] when there is neither such a row nor an entry of one.
pub async fn at_time(
    resource: &Resource,
    history: &HistoryStatements,
    pool: &Pool,
    uuid: Uuid,
    time: Timestamp,
) -> Result<Past, StoreError> {
    // One statement, so that no change comes between what is read of the history and of the table.
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
    // An entry from before the instant is there still, so every later one is.
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
            read => read.map(Past::There),
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

/// The instant in a column.
fn instant(row: &Row, place: usize) -> Result<Option<Timestamp>, StoreError> {
    let Raw(raw) = row.try_get(place)?;
    Ok(raw.and_then(|raw| raw.try_into().ok()).and_then(timestamp_of))
}
