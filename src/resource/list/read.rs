//! Reads a page or chunk of a list and serialises its rows as they arrive.
//!
//! Rows are serialised while PostgreSQL finds the next ones, and none is buffered except for pages read backwards. Identical
//! concurrent requests share the read of the first page or chunk.

use std::sync::Arc;
use std::time::Duration;

use tokio_postgres::Row;
use uuid::Uuid;

use super::super::definition::Resource;
use super::super::row;
use super::super::value::Value;
use super::cursor::{self, CursorPosition};
use super::filter::Filter;
use super::first::{First, ListKey, Page};
use super::order::Order;
use super::request::{ListRequest, Start};
use super::store;
use crate::db::error::{StoreError, ended_early};
use crate::db::pool::retried;
use crate::db::reads::Reader;
use crate::http::budget::{Holder, Refused, Reservation};
use crate::http::reply::{self, Room};
use crate::resource::context::Context;

/// Rows per chunk of a list without a limit: about 400 KiB of JSON. Twice as many are not faster, and a slow client occupies
/// the memory of two chunks.
const CHUNK: usize = 2000;
/// Size at which a chunk ends before it has so many rows; ordinary rows are far shorter.
pub const CHUNK_MAX_BYTES: usize = 4 * reply::CHUNK_BYTES;
/// Size at which a page ends before its limit: four times that of 1,000 rows of 1 KiB.
pub const PAGE_MAX_BYTES: usize = 4 << 20;
/// Rows per chunk while requests for single rows or pages are waiting: few enough that a processor is soon free for them.
const CHUNK_WHEN_BUSY: usize = 200;
/// Rows per chunk while memory for lists is scarce: a thousand slow clients hold two of them each.
const CHUNK_WHEN_SCARCE: usize = 100;
/// A resource counts as busy for this long after a request, because clients that send requests in a loop are idle in between.
const BUSY_WINDOW: Duration = Duration::from_millis(50);
/// How long a list pauses for other requests before each such chunk.
const PAUSE: Duration = Duration::from_millis(2);

/// The sources of a list.
#[derive(Clone)]
pub struct Sources {
    /// Reads on behalf of the client.
    pub reader: Reader,
    /// The resource's shared state.
    pub context: Arc<Context>,
}

/// The first page or chunk of the response to a request, read after this call.
///
/// # Errors
/// The pool's, or insufficient memory.
pub async fn first(
    sources: &Sources,
    key: ListKey,
    request: Arc<ListRequest>,
) -> Result<Result<Arc<First>, Refused>, StoreError> {
    let shared = sources.clone();
    let consistency = sources.reader.consistency();
    let read = move |consistency| {
        let sources = Sources { reader: shared.reader.with_consistency(consistency), context: shared.context.clone() };
        let request = request.clone();
        async move {
            let bytes = estimate(&sources.context, request.limit);
            let held = match sources.context.buffers.reserve(Holder::Several, bytes).await {
                Ok(held) => held,
                Err(refused) => return Ok(Err(refused)),
            };
            let (body, page) = match request.limit {
                Some(limit) => page(&sources, &request, limit, &held).await?,
                None => chunk(&sources, &request, None, (0, &held)).await?,
            };
            Ok(Ok(Arc::new(First { body: reply::buffer(body, held), page, consistency: sources.reader.consistency() })))
        }
    };
    sources.context.lists.get(key, consistency, read).await
}

/// Estimated size of a first page or chunk in bytes.
pub fn estimate(context: &Context, limit: Option<usize>) -> usize {
    limit.map_or(reply::CHUNK_BYTES, |rows| (rows * context.rows.mean()).min(PAGE_MAX_BYTES))
}

async fn page(
    Sources { reader, context }: &Sources,
    request: &ListRequest,
    limit: usize,
    held: &Reservation,
) -> Result<(Vec<u8>, Page), StoreError> {
    let (position, backwards) = match &request.start {
        Start::First => (None, false),
        Start::After(position) => (Some(position), false),
        Start::Before(position) => (Some(position), true),
    };
    retried(|| async {
        let mut writer = PageWriter::new(request, limit, (0, Room { held, bytes: PAGE_MAX_BYTES }));
        request.shape.begin(&mut writer.out);
        let more = if backwards {
            writer.rows_before(reader, position).await?
        } else {
            writer.rows_after(reader, position).await?
        };
        request.shape.end(&mut writer.out);
        let came_from = position.is_some() && writer.rows > 0;
        let (before, after) = if backwards { (more, came_from) } else { (came_from, more) };
        writer.finish(context, before, after)
    })
    .await
}

/// The chunk of an unlimited list after a position, or its first one, with its expected size and its memory.
///
/// # Errors
/// The pool's.
pub async fn chunk(
    sources: &Sources,
    request: &ListRequest,
    after_position: Option<&CursorPosition>,
    (room, held): (usize, &Reservation),
) -> Result<(Vec<u8>, Page), StoreError> {
    let Sources { reader, context } = sources;
    let start = match &request.start {
        Start::After(position) => Some(position),
        Start::First | Start::Before(_) => None,
    };
    let first = after_position.is_none();
    // Lists count only while they are being read: this list's own start may lie within the window.
    let is_contended = !first && (context.store.is_busy(BUSY_WINDOW) || context.lists.is_busy());
    if is_contended {
        tokio::time::sleep(PAUSE).await; // a fixed pause, because waiting for the other requests to end could last forever
    }
    // Other lists may be sorted again for each chunk, so many small chunks would cost more than a few large ones.
    let (rows, bytes) = match is_plain(&request.filter, &request.order) {
        true if context.buffers.are_scarce() => (CHUNK_WHEN_SCARCE, reply::CHUNK_BYTES),
        true if is_contended => (CHUNK_WHEN_BUSY, CHUNK_MAX_BYTES),
        _ => (CHUNK, CHUNK_MAX_BYTES),
    };
    // A statement that returns more rows than fit must be cancelled.
    let rows = rows.min(bytes / context.rows.mean()).max(1);
    retried(|| async {
        let mut writer = PageWriter { first, ..PageWriter::new(request, rows, (room, Room { held, bytes })) };
        if first {
            request.shape.begin(&mut writer.out);
        }
        let after = writer.rows_after(reader, after_position.or(start)).await?;
        if !after {
            request.shape.end(&mut writer.out);
        }
        writer.finish(context, !first, after)
    })
    .await
}

/// Serialises rows up to a limit.
struct PageWriter<'a> {
    request: &'a ListRequest,
    limit: usize,
    room: Room<'a>,
    /// Whether rows within the limit were left out for lack of room.
    is_cut: bool,
    out: Vec<u8>,
    /// Whether the next row is the first of the response.
    first: bool,
    rows: usize,
    begin: Option<CursorPosition>,
    last: Option<Row>,
}

impl<'a> PageWriter<'a> {
    fn new(request: &'a ListRequest, limit: usize, (expected, room): (usize, Room<'a>)) -> Self {
        let out = Vec::with_capacity(expected);
        Self { request, limit, room, is_cut: false, out, first: true, rows: 0, begin: None, last: None }
    }

    /// Writes the rows after a position; returns whether there are more than the limit.
    async fn rows_after(&mut self, reader: &Reader, position: Option<&CursorPosition>) -> Result<bool, StoreError> {
        let ListRequest { filter, order, .. } = self.request;
        let (resource, limit) = (self.request.shape.resource, self.limit);
        let mut more = false;
        // One extra row shows whether there are more.
        let each = &mut |row| {
            more = self.rows == limit;
            if more {
                return Ok(());
            }
            if self.rows > 0 && self.room.is_full(self.out.len()) {
                return Err(StoreError::Enough);
            }
            self.row(row)
        };
        let is_cut = ended_early(rows_after(resource, reader, filter, order, position, limit + 1, each).await)?;
        self.is_cut = is_cut;
        Ok(more || is_cut)
    }

    /// Writes the last rows before a position; returns whether there are more than the limit.
    async fn rows_before(&mut self, reader: &Reader, position: Option<&CursorPosition>) -> Result<bool, StoreError> {
        let (mut rows, mut bytes) = (Vec::new(), 0);
        let keep = &mut |row: Row| {
            // Its bytes, and as many as JSON.
            bytes += 2 * row.raw_size_bytes();
            if !rows.is_empty() && self.room.is_full(bytes) {
                return Err(StoreError::Enough);
            }
            rows.push(row);
            Ok(())
        };
        let order = self.request.order.reversed();
        let (resource, filter) = (self.request.shape.resource, &self.request.filter);
        self.is_cut = ended_early(rows_after(resource, reader, filter, &order, position, self.limit + 1, keep).await)?;
        let more = self.is_cut || rows.len() > self.limit;
        rows.truncate(self.limit);
        rows.into_iter().rev().try_for_each(|row| self.row(row))?;
        Ok(more)
    }

    fn row(&mut self, row: Row) -> Result<(), StoreError> {
        self.request.shape.row(self.first, &row, &mut self.out)?;
        self.first = false;
        if self.rows == 0 {
            self.begin = Some(cursor::position(&self.request.order, |column| row::value(&row, column))?);
        }
        self.rows += 1;
        self.last = Some(row);
        Ok(())
    }

    fn finish(self, context: &Context, before: bool, after: bool) -> Result<(Vec<u8>, Page), StoreError> {
        context.rows.measure(self.out.len(), self.rows);
        let ends = match self.begin.zip(self.last) {
            Some((begin, last)) => {
                Some((begin, cursor::position(&self.request.order, |column| row::value(&last, column))?))
            }
            None => None,
        };
        Ok((self.out, Page { rows: self.rows, is_cut: self.is_cut, ends, before, after }))
    }
}

/// Whether a list is all rows in key order, which the key's index returns.
fn is_plain(filter: &Filter, order: &Order) -> bool {
    filter.0.is_empty() && order.is_of_key()
}

/// Passes the rows after a position to `each`; the most frequent list is a prepared statement.
async fn rows_after(
    resource: &'static Resource,
    reader: &Reader,
    filter: &Filter,
    order: &Order,
    position: Option<&CursorPosition>,
    limit: usize,
    each: &mut (impl FnMut(Row) -> Result<(), StoreError> + Send),
) -> Result<(), StoreError> {
    if is_plain(filter, order) {
        let after = match position.map(Vec::as_slice) {
            Some([Some(Value::Uuid(uuid))]) => *uuid,
            _ => Uuid::nil(),
        };
        return store::page(resource, reader, after, i64::try_from(limit).unwrap_or(i64::MAX), each).await;
    }
    store::rows(resource, reader, filter, order, position, limit, each).await
}
