//! The handlers of lists: a page, the whole list, and statistics.

use std::sync::Arc;

use serde::Serialize;
use tokio_postgres::Row;
use uuid::Uuid;
use warp::http::HeaderMap;
use warp::http::header::{CONTENT_RANGE, HeaderValue, LINK, VARY};
use warp::reply::Response;

use super::super::routes::problem;
use super::super::store::passenger;
use super::column::Value;
use super::cursor::{self, Place};
use super::filter::Filter;
use super::order::Order;
pub use super::request::PAGE_DEFAULT;
use super::request::{self, ListRequest, Start};
use super::{stats, store};
use crate::app::State;
use crate::db::error::StoreError;
use crate::http::prefer;
use crate::http::problem::Problem;
use crate::http::query::Query;
use crate::http::reply::{self, Pieces};

/// Rows read at a time for a list without a limit: about 200 KiB of JSON, and few enough that a slow reader costs little
/// memory.
const BATCH: usize = 1000;

/// Answers with a list; without `limit` it has `default` rows, or all of them, streamed.
///
/// # Errors
/// 400 for parameters, 406 for the form, 503 when the database does not answer.
pub async fn list(
    path: &'static str,
    default: Option<usize>,
    raw: String,
    headers: HeaderMap,
    state: Arc<State>,
) -> Result<Response, Problem> {
    let (request, query) = request::read_list(&raw, &headers, default)?;
    let counted = count(&state, &request.filter, &headers).await.map_err(problem)?;
    let unbroken = request.start == Start::First;
    let (mut response, length) = match request.limit {
        Some(limit) => {
            let page = Page::read(&state, &request, limit).await.map_err(problem)?;
            let response = reply::ok(request.shape.format.content_type(), page.body(&request).map_err(problem)?);
            (page.linked(response, path, &query, &request.order).map_err(problem)?, Some(page.rows.len()))
        }
        None => (whole(state, request).await.map_err(problem)?, None),
    };
    let headers = response.headers_mut();
    headers.insert(VARY, HeaderValue::from_static("accept"));
    if let Some((total, preference)) = counted {
        let range = match length.filter(|length| unbroken && *length > 0) {
            Some(length) => format!("0-{}/{total}", length - 1),
            None => format!("*/{total}"), // behind a cursor nobody knows how many rows came before
        };
        headers.insert(CONTENT_RANGE, HeaderValue::from_str(&range).expect("digits and punctuation"));
        prefer::applied(headers, preference);
    }
    Ok(response)
}

/// How many rows there are, if the client wants to know, and which of its wishes that meets.
async fn count(state: &State, filter: &Filter, headers: &HeaderMap) -> Result<Option<(i64, &'static str)>, StoreError> {
    Ok(match prefer::preference(headers, "count") {
        Some("exact") => Some((store::count(&state.pool, filter).await?, "count=exact")),
        Some("estimated") => Some((store::estimate(&state.pool, filter).await?, "count=estimated")),
        _ => None,
    })
}

/// Rows behind a place; the list that everybody asks for is a prepared statement.
async fn rows(
    state: &State,
    filter: &Filter,
    order: &Order,
    from: Option<&Place>,
    limit: usize,
) -> Result<Vec<Row>, StoreError> {
    if filter.0.is_empty() && *order == Order::default() {
        let after = match from.map(Vec::as_slice) {
            Some([Some(Value::Uuid(uuid))]) => *uuid,
            _ => Uuid::nil(),
        };
        return state.passengers.page(after, i64::try_from(limit).unwrap_or(i64::MAX)).await;
    }
    store::rows(&state.pool, filter, order, from, limit).await
}

/// A page, and whether there is something on either side of it.
struct Page {
    rows: Vec<Row>,
    before: bool,
    after: bool,
}

impl Page {
    async fn read(state: &State, request: &ListRequest, limit: usize) -> Result<Self, StoreError> {
        let ListRequest { filter, order, start, .. } = request;
        let (from, backwards) = match start {
            Start::First => (None, false),
            Start::After(place) => (Some(place), false),
            Start::Before(place) => (Some(place), true),
        };
        // One row more than asked for tells whether there are more.
        let mut rows = if backwards {
            rows(state, filter, &order.reversed(), from, limit + 1).await?
        } else {
            rows(state, filter, order, from, limit + 1).await?
        };
        let more = rows.len() > limit;
        rows.truncate(limit);
        if backwards {
            rows.reverse();
        }
        let came_from = from.is_some() && !rows.is_empty();
        let (before, after) = if backwards { (more, came_from) } else { (came_from, more) };
        Ok(Self { rows, before, after })
    }

    fn body(&self, request: &ListRequest) -> Result<Vec<u8>, StoreError> {
        let mut body = Vec::new();
        request.shape.begin(&mut body);
        for (index, row) in self.rows.iter().enumerate() {
            request.shape.row(index == 0, &passenger(row)?, &mut body);
        }
        request.shape.end(&mut body);
        Ok(body)
    }

    /// Tells where the pages on either side are (RFC 8288).
    fn linked(
        &self,
        mut response: Response,
        path: &str,
        query: &Query<'_>,
        order: &Order,
    ) -> Result<Response, StoreError> {
        let sides =
            [(self.after, self.rows.last(), "after", "next"), (self.before, self.rows.first(), "before", "prev")];
        let mut links = Vec::new();
        for (_, row, parameter, relation) in sides.into_iter().filter(|(is_there, ..)| *is_there) {
            let Some(row) = row else { continue };
            let cursor = cursor::encode(order, &cursor::place(order, &passenger(row)?));
            let query = query.with_instead(&["after", "before"], parameter, &cursor);
            links.push(format!("<{path}?{query}>; rel=\"{relation}\""));
        }
        if !links.is_empty() {
            let links = HeaderValue::from_str(&links.join(", ")).expect("a query is percent-encoded");
            response.headers_mut().insert(LINK, links);
        }
        Ok(response)
    }
}

async fn whole(state: Arc<State>, request: ListRequest) -> Result<Response, StoreError> {
    let place = match &request.start {
        Start::After(place) => Some(place.clone()),
        Start::First | Start::Before(_) => None,
    };
    let content_type = request.shape.format.content_type();
    reply::in_pieces(content_type, Whole { state, request, place, first: true }).await
}

/// A list without a limit, under way.
struct Whole {
    state: Arc<State>,
    request: ListRequest,
    /// Where the last row written stands.
    place: Option<Place>,
    first: bool,
}

impl Pieces for Whole {
    async fn next(&mut self, out: &mut Vec<u8>) -> Result<bool, StoreError> {
        let ListRequest { filter, order, shape, .. } = &self.request;
        let rows = rows(&self.state, filter, order, self.place.as_ref(), BATCH).await?;
        if self.first {
            shape.begin(out);
        }
        for row in &rows {
            shape.row(self.first, &passenger(row)?, out);
            self.first = false;
        }
        if let Some(last) = rows.last() {
            self.place = Some(cursor::place(order, &passenger(last)?));
        }
        let more = rows.len() == BATCH;
        if !more {
            shape.end(out);
        }
        Ok(more)
    }
}

/// `GET /v1/passengers/stats`: count, survival and means of each group.
///
/// # Errors
/// 400 for parameters, 503 when the database does not answer.
pub async fn statistics(raw: String, state: Arc<State>) -> Result<Response, Problem> {
    #[derive(Serialize)]
    struct Statistics {
        groups: Vec<stats::Group>,
    }
    let (filter, by) = request::read_statistics(&raw)?;
    let rows = store::statistics(&state.pool, &filter, &by).await.map_err(problem)?;
    let groups = rows.iter().map(|row| stats::group(row, &by)).collect::<Result<_, _>>().map_err(problem)?;
    Ok(reply::json(&Statistics { groups }))
}
