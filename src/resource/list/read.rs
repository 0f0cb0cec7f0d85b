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
use crate::db::error::StoreError;
use crate::db::pool::retried;
use crate::db::reads::Reader;
use crate::http::budget::{Holder, Refused};
use crate::http::reply;
use crate::resource::context::Context;

/// Rows per chunk of a list without a limit: about 400 KiB of JSON. Twice as many are not faster, and a slow client occupies
/// the memory of two chunks.
const CHUNK: usize = 2000;
/// Approximate size of a row in bytes.
const ROW_BYTES: usize = 200;
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
            let held = match sources.context.buffers.reserve(Holder::Several, estimate(request.limit)).await {
                Ok(held) => held,
                Err(refused) => return Ok(Err(refused)),
            };
            let (body, page) = match request.limit {
                Some(limit) => page(&sources.reader, &request, limit).await?,
                None => chunk(&sources, &request, None, 0).await?,
            };
            Ok(Ok(Arc::new(First { body: reply::buffer(body, held), page, consistency: sources.reader.consistency() })))
        }
    };
    sources.context.lists.get(key, consistency, read).await
}

/// Estimated size of a first page or chunk in bytes.
pub fn estimate(limit: Option<usize>) -> usize {
    limit.map_or(reply::CHUNK_BYTES, |rows| rows * ROW_BYTES)
}

async fn page(reader: &Reader, request: &ListRequest, limit: usize) -> Result<(Vec<u8>, Page), StoreError> {
    let (position, backwards) = match &request.start {
        Start::First => (None, false),
        Start::After(position) => (Some(position), false),
        Start::Before(position) => (Some(position), true),
    };
    retried(|| async {
        let mut writer = PageWriter::new(request, limit, 0);
        request.shape.begin(&mut writer.out);
        let more = if backwards {
            writer.rows_before(reader, position).await?
        } else {
            writer.rows_after(reader, position).await?
        };
        request.shape.end(&mut writer.out);
        let came_from = position.is_some() && writer.rows > 0;
        if backwards { writer.finish(more, came_from) } else { writer.finish(came_from, more) }
    })
    .await
}

/// The chunk of an unlimited list after a position, or its first one; `room` is its expected size.
///
/// # Errors
/// The pool's.
pub async fn chunk(
    sources: &Sources,
    request: &ListRequest,
    after_position: Option<&CursorPosition>,
    room: usize,
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
    let rows = match is_plain(&request.filter, &request.order) {
        true if context.buffers.are_scarce() => CHUNK_WHEN_SCARCE,
        true if is_contended => CHUNK_WHEN_BUSY,
        _ => CHUNK,
    };
    retried(|| async {
        let mut writer = PageWriter { first, ..PageWriter::new(request, rows, room) };
        if first {
            request.shape.begin(&mut writer.out);
        }
        let after = writer.rows_after(reader, after_position.or(start)).await?;
        if !after {
            request.shape.end(&mut writer.out);
        }
        writer.finish(!first, after)
    })
    .await
}

/// Serialises rows up to a limit.
struct PageWriter<'a> {
    request: &'a ListRequest,
    limit: usize,
    out: Vec<u8>,
    /// Whether the next row is the first of the response.
    first: bool,
    rows: usize,
    begin: Option<CursorPosition>,
    last: Option<Row>,
}

impl<'a> PageWriter<'a> {
    fn new(request: &'a ListRequest, limit: usize, room: usize) -> Self {
        Self { request, limit, out: Vec::with_capacity(room), first: true, rows: 0, begin: None, last: None }
    }

    /// Writes the rows after a position; returns whether there are more than the limit.
    async fn rows_after(&mut self, reader: &Reader, position: Option<&CursorPosition>) -> Result<bool, StoreError> {
        let ListRequest { filter, order, .. } = self.request;
        let (resource, limit) = (self.request.shape.resource, self.limit);
        let mut more = false;
        // One extra row shows whether there are more.
        let each = &mut |row| {
            more = self.rows == limit;
            if more { Ok(()) } else { self.row(row) }
        };
        rows_after(resource, reader, filter, order, position, limit + 1, each).await?;
        Ok(more)
    }

    /// Writes the last rows before a position; returns whether there are more than the limit.
    async fn rows_before(&mut self, reader: &Reader, position: Option<&CursorPosition>) -> Result<bool, StoreError> {
        let mut rows = Vec::new();
        let keep = &mut |row| {
            rows.push(row);
            Ok(())
        };
        let order = self.request.order.reversed();
        rows_after(self.request.shape.resource, reader, &self.request.filter, &order, position, self.limit + 1, keep)
            .await?;
        let more = rows.len() > self.limit;
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

    fn finish(self, before: bool, after: bool) -> Result<(Vec<u8>, Page), StoreError> {
        let ends = match self.begin.zip(self.last) {
            Some((begin, last)) => {
                Some((begin, cursor::position(&self.request.order, |column| row::value(&last, column))?))
            }
            None => None,
        };
        Ok((self.out, Page { rows: self.rows, ends, before, after }))
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
