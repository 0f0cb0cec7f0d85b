//! `POST` with one row or many.

use std::sync::Arc;

use bytes::Bytes;
use futures_util::future::try_join;
use futures_util::{Stream, StreamExt, stream};
use tokio_postgres::Row;
use warp::http::HeaderMap;
use warp::http::header::{HeaderValue, VARY};
use warp::reply::Response;

use super::super::list::read::CHUNK_MAX_BYTES;
use super::super::list::request::FORMATS;
use super::super::list::shape::Shape;
use super::super::problem::problem;
use super::super::row;
use super::load::{self, BulkRequest, Keys, Loaded};
use super::store;
use crate::auth::principal::Principal;
use crate::csv::notes::UnknownColumns;
use crate::db::error::{StoreError, ended_early};
use crate::db::pool::retried;
use crate::http::body::{self, BodyBuffer, CSV, JSON, NDJSON, Pace};
use crate::http::budget::Reservation;
use crate::http::coding::{Broken, announced};
use crate::http::format::Format;
use crate::http::json::{BOM, without_bom};
use crate::http::prefer;
use crate::http::problem::{Code, Problem};
use crate::http::reply::{self, Chunks, Room};
use crate::http::route::Route;
use crate::http::spool::Spool;
use crate::idempotency::once::{in_flight, reused};
use crate::idempotency::store::Claim;
use crate::resource::context::Context;

/// Accepted media types; the first may contain one row or many.
const ACCEPTED: &[&str] = &[JSON, CSV, NDJSON];
/// Number of rows read back at a time for a response.
const BATCH: usize = 1000;

/// Hint for a CSV body that consists of a single line.
const LOST_LINES: &str =
    "the body is a single line: curl -d removes line ends from a file; send it with --data-binary @file";

/// The content of a body.
pub enum Posted {
    /// One row, not parsed yet.
    One(Bytes),
    /// Many rows, already stored; the response.
    Many(Response),
}

/// Reads a body that contains one row, or creates the many rows that it contains.
///
/// # Errors
/// 415 for another media type; 413, 408 and 400 as for every body; 406 for a response format that is not offered; 422 that
/// lists the errors of the rows; 503 when the database does not respond.
pub async fn receive(
    route: Route,
    (headers, principal): (&HeaderMap, &Principal),
    body: impl Stream<Item = Result<Bytes, Broken>>,
    context: &Arc<Context>,
) -> Result<Posted, Problem> {
    let media_type = body::media_type(headers, ACCEPTED)?;
    let is_short = announced(headers).is_some_and(|length| length <= context.body_limits.bytes as u64);
    // Boxed so that the usual single row does not carry the size of these futures.
    if is_short && media_type == JSON {
        let bytes = body::read_json(headers, body, &context.body_limits).await?;
        if !is_array(&bytes) {
            return Ok(Posted::One(bytes));
        }
        let whole = stream::iter([Ok(bytes)]);
        return Box::pin(many(BulkRequest::new(route, (headers, principal), JSON)?, whole, context))
            .await
            .map(Posted::Many);
    }
    Box::pin(one_or_many(BulkRequest::new(route, (headers, principal), media_type)?, Box::pin(body), context)).await
}

/// Handles a body that is long, of unknown length, or not JSON.
async fn one_or_many(
    request: BulkRequest<'_>,
    mut body: impl Stream<Item = Result<Bytes, Broken>> + Unpin,
    context: &Arc<Context>,
) -> Result<Posted, Problem> {
    if request.body_format.media_type != JSON {
        return many(request, body, context).await.map(Posted::Many);
    }
    // The first non-blank byte distinguishes one row from many. The limit of a single row applies to leading blanks, because it
    // is not known yet that there are many rows.
    let mut begun = BodyBuffer::begin(request.headers, &context.bulk.limits, 0)?;
    let mut pace = Pace::begin(&context.body_limits);
    while let Some(chunk) = pace.next(&mut body).await? {
        let is_blank = begun.as_slice().len() > BOM.len() && chunk.trim_ascii_start().is_empty();
        begun.push(chunk)?;
        if is_blank && begun.as_slice().len() > context.body_limits.bytes {
            return Err(context.body_limits.too_large());
        }
        if !is_blank && first_byte(begun.as_slice()).is_some() {
            break;
        }
    }
    let many_are_there = is_array(begun.as_slice());
    let body = stream::iter([Ok(begun.into_bytes())]).chain(body);
    if many_are_there {
        return many(request, body, context).await.map(Posted::Many);
    }
    body::read_json(request.headers, body, &context.body_limits).await.map(Posted::One)
}

fn is_array(bytes: &[u8]) -> bool {
    first_byte(bytes) == Some(b'[')
}

/// The first non-blank byte of a JSON text, if it has arrived.
fn first_byte(bytes: &[u8]) -> Option<u8> {
    if BOM.starts_with(bytes) {
        return None;
    }
    without_bom(bytes).trim_ascii_start().first().copied()
}

/// Creates the rows of the body, all or none.
async fn many(
    mut request: BulkRequest<'_>,
    mut body: impl Stream<Item = Result<Bytes, Broken>> + Unpin,
    context: &Arc<Context>,
) -> Result<Response, Problem> {
    let preferred = prefer::preference(request.headers, "return");
    // The response to a request with a key is stored with the key, so it is always the short one.
    let representation = preferred == Some("representation") && request.key.is_none();
    let format = Format::negotiate(request.headers, FORMATS)?;
    request.with_keys = representation;
    let bulk = &context.bulk;
    let spool = Spool::default();
    let mut inspector = BodyInspector::default();
    let receiving = spool.receive(request.headers, &mut body, &bulk.limits, &bulk.disk, |chunk| {
        request.add(chunk);
        inspector.inspect(chunk);
    });
    // A failure of either ends both; the disk space is held until both have ended.
    let (_disk, loaded) = try_join(receiving, load::load(context, &request, &spool)).await?;
    if inspector.is_blank() {
        return Err(Problem::new(Code::InvalidJson, "the body is empty; send at least one row"));
    }
    let (mut response, applied) = match loaded {
        Loaded::Stored(answer, keys) if representation => {
            let resource = context.resource;
            let shape = Shape { resource, format, columns: None };
            let status = load::status(keys.keys.len() as u64);
            let notes = keys.notes.clone();
            let chunks = StoredRows { context: context.clone(), shape, keys, sent: 0, has_row: false };
            match reply::in_chunks(&context.buffers, request.client, format.content_type(), chunks, |error| {
                problem(resource, error)
            })
            .await
            {
                Ok(mut response) => {
                    *response.status_mut() = status;
                    prefer::add_notes(response.headers_mut(), &notes);
                    (response, Some("return=representation"))
                }
                // The rows are stored even if reading them back failed; a preference may be ignored.
                Err(_) => (answer.into_response(false)?, None),
            }
        }
        Loaded::Stored(answer, _) => {
            (answer.into_response(false)?, (preferred == Some("minimal")).then_some("return=minimal"))
        }
        // The body is complete by now, so its fingerprint identifies the request.
        Loaded::Known(Claim::Kept(kept)) if kept.fingerprint != request.fingerprint() => return Err(reused()),
        Loaded::Known(Claim::Kept(kept)) => {
            let key = (request.key.as_deref().unwrap_or_default(), request.client);
            return context.once.replay(key, kept, |error| problem(context.resource, error)).await;
        }
        Loaded::Known(_) => return Err(in_flight()),
        Loaded::Faulty(faults) => {
            let problem = faults.finish().err().unwrap_or_else(Problem::internal);
            return Err(if inspector.has_lost_lines(request.body_format.media_type) {
                problem.with_hint(LOST_LINES)
            } else {
                problem
            });
        }
    };
    let headers = response.headers_mut();
    headers.insert(VARY, HeaderValue::from_static("accept, prefer"));
    if request.body_format.unknown == UnknownColumns::Ignored {
        prefer::applied(headers, prefer::LENIENT);
    }
    if let Some(applied) = applied {
        prefer::applied(headers, applied);
    }
    Ok(response)
}

/// Properties of a body observed while it arrives, for more specific error messages.
#[derive(Default)]
struct BodyInspector {
    /// A non-blank byte has arrived.
    has_content: bool,
    has_line_end: bool,
    has_object_behind_object: bool,
}

impl BodyInspector {
    fn inspect(&mut self, chunk: &[u8]) {
        if !self.has_content {
            self.has_content = !chunk.iter().all(u8::is_ascii_whitespace);
        }
        if !self.has_line_end {
            self.has_line_end = chunk.iter().any(|byte| matches!(byte, b'\r' | b'\n'));
            self.has_object_behind_object |= chunk.windows(2).any(|two| two == b"}{");
        }
    }

    fn is_blank(&self) -> bool {
        !self.has_content
    }

    /// Whether line ends were probably removed.
    fn has_lost_lines(&self, media_type: &str) -> bool {
        !self.has_line_end && (media_type == CSV || (media_type == NDJSON && self.has_object_behind_object))
    }
}

/// The stored rows, sent back to the client in chunks.
struct StoredRows {
    context: Arc<Context>,
    shape: Shape,
    keys: Keys,
    sent: usize,
    /// Whether a row was written: those of the first chunk may have been deleted since.
    has_row: bool,
}

impl Chunks for StoredRows {
    async fn next(&mut self, room: usize, held: &Reservation) -> Result<(Vec<u8>, bool), StoreError> {
        let Context { resource, pool, rows, .. } = &*self.context;
        let first = self.sent == 0;
        let count = BATCH.min(CHUNK_MAX_BYTES / rows.mean()).max(1);
        // Keys are generated in row order and ascend.
        let keys = &self.keys.keys[self.sent..self.keys.keys.len().min(self.sent + count)];
        let memory = Room { held, bytes: CHUNK_MAX_BYTES };
        let (mut out, looked_up, has_row) = retried(|| async {
            let (mut out, mut last) = (Vec::with_capacity(room), None);
            if first {
                self.shape.begin(&mut out);
            }
            let each = &mut |row: Row| {
                if last.is_some() && memory.is_full(out.len()) {
                    return Err(StoreError::Enough);
                }
                self.shape.row(!self.has_row && last.is_none(), &row, &mut out)?;
                last = Some(row::key(&row)?);
                Ok(())
            };
            let is_cut = ended_early(store::stored(resource, pool, keys, each).await)?;
            let looked_up = if is_cut { keys.partition_point(|key| Some(*key) <= last) } else { keys.len() };
            Ok((out, looked_up, last.is_some()))
        })
        .await?;
        rows.measure(out.len(), looked_up);
        self.sent += looked_up;
        self.has_row |= has_row;
        let more = self.sent < self.keys.keys.len();
        if !more {
            self.shape.end(&mut out);
        }
        Ok((out, more))
    }
}
