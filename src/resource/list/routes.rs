//! The handlers of lists: a page, the whole list, and statistics.

use std::sync::Arc;

use warp::http::HeaderMap;
use warp::http::header::{CONTENT_RANGE, HeaderValue, VARY};
use warp::reply::Response;

use super::super::definition::Resource;
use super::super::problem::problem;
use super::cursor::{self, CursorPosition};
use super::filter::Filter;
use super::first::{ListKey, Page};
use super::order::Order;
use super::read::{self, Sources};
pub use super::request::PAGE_DEFAULT;
use super::request::{self, ListRequest, Start};
use super::{stats, store};
use crate::db::error::StoreError;
use crate::db::position::Consistency;
use crate::db::reads::Reader;
use crate::http::budget::{Holder, Reservation};
use crate::http::client::Client;
use crate::http::format::Format;
use crate::http::link;
use crate::http::prefer;
use crate::http::problem::{Code, Problem};
use crate::http::query::Query;
use crate::http::reply::{self, Chunks};

/// Returns a list; without `limit` it has `default` rows, or all of them, streamed.
///
/// # Errors
/// 400 for parameters, 406 for the format, 503 when the database does not respond.
pub async fn list(
    path: &'static str,
    default: Option<usize>,
    raw: String,
    headers: HeaderMap,
    sources: Sources,
) -> Result<Response, Problem> {
    let resource = sources.context.resource;
    let failed = |error| problem(resource, error);
    let (request, query) = request::read_list(resource, &raw, &headers, default)?;
    sources.reader.raise(request.consistency);
    let counted = count(resource, &sources.reader, &request.filter, &headers).await.map_err(failed)?;
    let request = Arc::new(request);
    let client = Client::of(&headers);
    // Each client is charged for its lists even if they are shared; the memory itself is reserved once, where the list is read.
    let held = sources
        .context
        .buffers
        .reserve(Holder::Part(client), read::estimate(&sources.context, request.limit))
        .await
        .map_err(reply::no_buffer)?;
    let needs_position = sources.reader.consistency() != Consistency::Eventual;
    let key = ListKey { query: raw.clone(), format: request.shape.format, limit: request.limit, needs_position };
    let first = read::first(&sources, key, request.clone()).await.map_err(failed)?.map_err(reply::no_buffer)?;
    sources.reader.raise(first.consistency);
    let body = reply::part(first.body.clone(), held);
    if request.shape.format == Format::Object && (first.page.rows != 1 || first.page.is_cut) {
        let rows = if first.page.rows == 0 { "no row" } else { "more than one row" };
        let detail = format!("{} requires exactly one row, and the list has {rows}", Format::Object.media_type());
        return Err(Problem::new(Code::NotAcceptable, detail));
    }
    let content_type = request.shape.format.content_type();
    let (mut response, length) = if request.limit.is_some() {
        let page = reply::ok(content_type, body);
        let links = Links { path, query: &query, order: &request.order };
        (with_links(page, &first.page, &links, &sources.reader).await?, Some(first.page.rows))
    } else {
        let buffers = sources.context.buffers.clone();
        let rest = next_position(&first.page).map(|position| {
            let mut sources = sources;
            sources.reader.wait_midway();
            RemainingChunks { position, sources, request: request.clone() }
        });
        (reply::begun(&buffers, client, content_type, body, rest), None)
    };
    let unbroken = request.start == Start::First;
    let headers = response.headers_mut();
    headers.insert(VARY, HeaderValue::from_static("accept"));
    if let Some((total, preference)) = counted {
        let range = match length.filter(|length| unbroken && *length > 0) {
            Some(length) => format!("0-{}/{total}", length - 1),
            None => format!("*/{total}"), // after a cursor the number of preceding rows is unknown
        };
        headers.insert(CONTENT_RANGE, HeaderValue::from_str(&range).expect("digits and punctuation"));
        prefer::applied(headers, preference);
    }
    Ok(response)
}

/// The number of rows, if the client prefers a count, and the preference that was applied.
async fn count(
    resource: &'static Resource,
    reader: &Reader,
    filter: &Filter,
    headers: &HeaderMap,
) -> Result<Option<(i64, &'static str)>, StoreError> {
    Ok(match prefer::preference(headers, "count") {
        Some("exact") => Some((store::count(resource, reader, filter).await?, "count=exact")),
        Some("estimated") => Some((store::estimate(resource, reader, filter).await?, "count=estimated")),
        _ => None,
    })
}

/// Data for links to pages.
struct Links<'a> {
    path: &'static str,
    query: &'a Query<'a>,
    order: &'a Order,
}

/// Adds links to the previous and next page.
async fn with_links(response: Response, page: &Page, links: &Links<'_>, reader: &Reader) -> Result<Response, Problem> {
    let Links { path, query, order } = links;
    let Some((first, last)) = page.ends.as_ref().filter(|_| page.before || page.after) else { return Ok(response) };
    let consistency = reader.consistency_after().await;
    let sides = [(page.after, last, "after", "next"), (page.before, first, "before", "prev")];
    let pages = sides.into_iter().filter(|(is_there, ..)| *is_there).map(|(_, position, parameter, relation)| {
        (query.replacing(&["after", "before"], parameter, &cursor::encode(order, position, consistency)), relation)
    });
    link::with_links(response, path, pages)
}

/// The chunks after the first of an unlimited list.
struct RemainingChunks {
    sources: Sources,
    request: Arc<ListRequest>,
    /// The position of the last row written.
    position: CursorPosition,
}

impl Chunks for RemainingChunks {
    async fn next(&mut self, room: usize, held: &Reservation) -> Result<(Vec<u8>, bool), StoreError> {
        let (chunk, page) = read::chunk(&self.sources, &self.request, Some(&self.position), (room, held)).await?;
        if let Some(position) = next_position(&page) {
            self.position = position;
        }
        Ok((chunk, page.after))
    }
}

/// The position after which there are more rows, if any.
fn next_position(page: &Page) -> Option<CursorPosition> {
    let (_, last) = page.ends.as_ref().filter(|_| page.after)?;
    Some(last.clone())
}

/// Returns statistics over groups of rows.
///
/// # Errors
/// 400 for parameters, 503 when the database does not respond.
pub async fn statistics(resource: &'static Resource, raw: String, reader: Reader) -> Result<Response, Problem> {
    let failed = |error| problem(resource, error);
    let (filter, by) = request::read_statistics(resource, &raw)?;
    let rows = store::statistics(resource, &reader, &filter, &by).await.map_err(failed)?;
    let groups =
        rows.iter().map(|row| stats::group(resource, row, &by)).collect::<Result<Vec<_>, _>>().map_err(failed)?;
    Ok(reply::json(&serde_json::json!({ "groups": groups })))
}
