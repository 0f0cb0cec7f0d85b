//! The handlers of histories: a row's changes, its past states, and restoring one.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bytes::Bytes;
use futures_util::Stream;
use jiff::Timestamp;
use tokio_postgres::Transaction;
use uuid::Uuid;
use warp::http::header::{HeaderValue, IF_MATCH, VARY};
use warp::http::{HeaderMap, StatusCode};
use warp::reply::Response;

use super::super::actor::Actor;
use super::super::context::Context;
use super::super::definition::Resource;
use super::super::list::read::PAGE_MAX_BYTES;
use super::super::list::request::{PAGE_DEFAULT, PAGE_MAX};
use super::super::problem::problem;
use super::super::row::Stored;
use super::super::single_row::{parse_uuid, row_response};
use super::super::time::{Unzoned, read_date_time};
use super::restore::Restore;
use super::sql::HistoryStatements;
use super::store::{self, Entry, Past, Start};
use crate::auth::principal::Principal;
use crate::db::error::StoreError;
use crate::db::operation::DbOperation;
use crate::db::version::Precondition;
use crate::http::body::{JSON, read_json};
use crate::http::budget::Holder;
use crate::http::client::Client;
use crate::http::coding::Broken;
use crate::http::etag::{self, IfMatch};
use crate::http::format::Format;
use crate::http::json::members;
use crate::http::link;
use crate::http::problem::{Code, FieldError, Problem};
use crate::http::query::Query;
use crate::http::reply::{self, Room};
use crate::idempotency::answer::Answer;
use crate::idempotency::once::Work;
use crate::idempotency::request::Request;

/// The formats of a history.
pub const FORMATS: &[Format] = &[Format::Json, Format::Ndjson];
/// Approximate size of an entry in bytes.
const ENTRY_BYTES: usize = 400;

const PARAMETERS: &[&str] = &["limit", "after", "before"];
const CURSOR: &str = "is not a cursor of a history; take it from the header Link of a page, or leave it out";
const AT: &str = "must be a version, such as 7 of the ETag \"7\", or an RFC 3339 time, such as 2026-01-31T12:00:00Z";
const VERSION: &str = "must be a version, a whole number such as 7 of the ETag \"7\"";

/// Returns the changes of a row, newest first.
///
/// # Errors
/// 400 for the path and parameters, 404 when neither the row nor a change of it exists, 406, 503.
pub async fn history(segment: &str, raw: &str, headers: &HeaderMap, context: &Context) -> Result<Response, Problem> {
    let resource = context.resource;
    let uuid = parse_uuid(resource, segment)?;
    let mut query = Query::parse(raw, PARAMETERS);
    let limit = query.optional("limit", "must be a whole number between 1 and 1000", |text| {
        text.parse().ok().filter(|limit| (1..=PAGE_MAX).contains(limit))
    });
    let limit = limit.unwrap_or(PAGE_DEFAULT);
    let start = match (query.optional("after", CURSOR, decode), query.optional("before", CURSOR, decode)) {
        (Some(_), Some(_)) => {
            query.fault("before", "cannot be combined with after; keep one");
            Start::Newest
        }
        (Some(id), None) => Start::OlderThan(id),
        (None, Some(id)) => Start::NewerThan(id),
        (None, None) => Start::Newest,
    };
    query.finish()?;
    let format = Format::negotiate(headers, FORMATS)?;
    let client = Client::of(headers);
    let bytes = (limit * ENTRY_BYTES.max(context.rows.mean())).min(PAGE_MAX_BYTES);
    let held = context.buffers.reserve(Holder::Client(client), bytes).await.map_err(reply::no_buffer)?;
    let failed = |error| problem(resource, error);
    let sources = (&context.reads.on_primary(client.address()), &context.pool);
    let room = Room { held: &held, bytes: PAGE_MAX_BYTES };
    let page = store::page((resource, statements(resource)?), sources, uuid, start, (limit, room)).await;
    let (entries, more) = page.map_err(failed)?;
    let body = serialised(resource, uuid, &entries, format)?;
    let mut response = reply::ok(format.content_type(), reply::buffer(body, held));
    response.headers_mut().insert(VARY, HeaderValue::from_static("accept"));
    let is_newer = matches!(start, Start::NewerThan(_));
    if let (Some(first), Some(last)) = (entries.first(), entries.last()) {
        let sides = [
            (if is_newer { true } else { more }, last, "after", "next"),
            (if is_newer { more } else { start != Start::Newest }, first, "before", "prev"),
        ];
        let pages = sides.into_iter().filter(|(is_there, ..)| *is_there).map(|(_, entry, parameter, relation)| {
            (query.replacing(&["after", "before"], parameter, &encode(entry.id)), relation)
        });
        return link::with_links(response, &format!("/v1/{}/{uuid}/history", resource.name), pages);
    }
    Ok(response)
}

fn serialised(resource: &'static Resource, uuid: Uuid, entries: &[Entry], format: Format) -> Result<Vec<u8>, Problem> {
    let mut out = Vec::with_capacity(entries.len() * ENTRY_BYTES);
    let is_array = format == Format::Json;
    out.extend_from_slice(if is_array { b"[" } else { b"" });
    for (index, entry) in entries.iter().enumerate() {
        out.extend_from_slice(if is_array && index > 0 { b"," } else { b"" });
        entry
            .write_json(resource, uuid, &mut out)
            .map_err(|error| unreadable((resource, uuid), entry.ended(), error))?;
        out.extend_from_slice(if is_array { b"" } else { b"\n" });
    }
    out.extend_from_slice(if is_array { b"]" } else { b"" });
    Ok(out)
}

/// The problem for an entry whose values cannot be read; it is identified so that the operator can find it.
fn unreadable((resource, uuid): (&'static Resource, Uuid), version: Option<i64>, error: StoreError) -> Problem {
    match error {
        StoreError::Unreadable { .. } => damaged(resource, uuid, version),
        error => problem(resource, error),
    }
}

fn damaged(resource: &Resource, uuid: Uuid, version: Option<i64>) -> Problem {
    tracing::error!(resource = resource.name, %uuid, version, "a history entry does not contain the values of a row");
    let version = version.map_or("the last version".to_owned(), |version| format!("version {version}"));
    let singular = resource.singular;
    Problem::new(
        Code::Internal,
        format!(
            "the history entry with {version} of this {singular} is damaged in the database; the operator can repair or \
            remove it"
        ),
    )
}

/// The cursor of an entry.
pub fn encode(id: i64) -> String {
    URL_SAFE_NO_PAD.encode(format!("entry {id}"))
}

fn decode(text: &str) -> Option<i64> {
    let text = String::from_utf8(URL_SAFE_NO_PAD.decode(text).ok()?).ok()?;
    text.strip_prefix("entry ")?.parse().ok()
}

/// The statements of the history; it exists if these routes do.
fn statements(resource: &'static Resource) -> Result<&'static HistoryStatements, Problem> {
    resource.sql.history.as_ref().ok_or_else(Problem::internal)
}

/// Which state of a row is requested.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum At {
    Version(i64),
    Time(Timestamp),
}

fn read_at(text: &str) -> Result<At, String> {
    if !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()) {
        return text.parse().map(At::Version).map_err(|_| AT.to_owned());
    }
    read_date_time(text, Unzoned::Refused).map(At::Time).map_err(|fault| fault.of(AT))
}

/// The row as requested by the parameters: in a version, at a time, or its current state.
///
/// # Errors
/// 400 for parameters; 404 that states what happened to the row, or how far back its history reaches; 503.
pub async fn past_state(uuid: Uuid, raw: &str, context: &Context) -> Result<Stored, Problem> {
    let resource = context.resource;
    let failed = |error| problem(resource, error);
    let mut query = Query::parse(raw, &["at"]);
    let at = query.checked("at", read_at);
    query.finish()?;
    let history = statements(resource)?;
    match at {
        None => context.store.get(uuid).await.map_err(failed),
        Some(At::Version(version)) => {
            let stored = store::at_version(resource, history, &context.pool, uuid, version).await;
            stored.map_err(|error| match error {
                StoreError::Missing => version_missing(resource, uuid, version),
                error => unreadable((resource, uuid), Some(version), error),
            })
        }
        Some(At::Time(time)) => {
            let past = store::at_time(resource, history, &context.pool, uuid, time).await.map_err(failed)?;
            let singular = resource.singular;
            let missing = |detail: String| Err(Problem::new(Code::NotFound, detail));
            match past {
                Past::Existing(stored) => Ok(stored),
                Past::Damaged(version) => Err(damaged(resource, uuid, Some(version))),
                Past::CreatedLater(at) => {
                    missing(format!("this {singular} did not exist at {time}; it was created at {at}"))
                }
                Past::Deleted(at) => missing(format!(
                    "this {singular} did not exist at {time}; it was deleted at {at}, and {} lists its versions",
                    url(resource, uuid)
                )),
                Past::Unrecorded => missing(format!(
                    "the state of this {singular} at {time} is not kept; around then it was changed without a history entry"
                )),
                Past::NotKept(since) => missing(format!(
                    "the state of this {singular} at {time} is not kept; its history reaches back to {}",
                    since.map_or_else(|| "the first entry in it".to_owned(), |since| since.to_string())
                )),
            }
        }
    }
}

fn version_missing(resource: &Resource, uuid: Uuid, version: i64) -> Problem {
    let url = url(resource, uuid);
    Problem::new(
        Code::NotFound,
        format!("version {version} of this {} is not kept; GET {url} lists those that are", resource.singular),
    )
}

fn url(resource: &Resource, uuid: Uuid) -> String {
    format!("/v1/{}/{uuid}/history", resource.name)
}

/// Restores a deleted row, or a version of a row.
///
/// # Errors
/// 400 and 422 for the request, 404 when the wanted state is not kept, 409 when there is nothing to restore, 412 and 428 as for
/// every change.
pub async fn restore(
    (segment, principal): (&str, &Principal),
    headers: HeaderMap,
    body: impl Stream<Item = Result<Bytes, Broken>>,
    context: &Context,
) -> Result<Response, Problem> {
    let resource = context.resource;
    let uuid = parse_uuid(resource, segment)?;
    let names_state = headers.contains_key(IF_MATCH);
    let mut condition = etag::condition(&headers, IfMatch::Optional)?;
    let must_name_state = context.if_match == IfMatch::Required && !names_state;
    if must_name_state {
        // Without the row, no concurrent change can be lost.
        condition = Precondition { required: Some(Vec::new()), refused: None };
    }
    let body = read_json(&headers, body, &context.body_limits).await?;
    let version = read_version(&body)?;
    let _held = context.rows.reserve_change(&headers, body.len(), false).await?;
    let changed_by = Actor::of(principal, &headers);
    let restore = Restore { resource, uuid, version, condition, may_be_absent: !names_state, changed_by };
    let failed = |error| match (&error, version) {
        (StoreError::Stale, _) if must_name_state => etag::required(),
        (StoreError::Missing, Some(version)) => version_missing(resource, uuid, version),
        (StoreError::Unreadable { .. }, _) => unreadable((resource, uuid), version, error),
        (StoreError::Missing, None) => Problem::new(
            Code::NotFound,
            format!("no {} with this uuid was deleted, as far as its history is kept", resource.singular),
        ),
        (StoreError::Conflict { constraint }, None) if constraint.ends_with("_pkey") => Problem::new(
            Code::Conflict,
            format!(
                "this {} is not deleted; specify the version to restore, as in {{\"version\": 7}}: GET {} lists them",
                resource.singular,
                url(resource, uuid)
            ),
        ),
        _ => problem(resource, error),
    };
    let path = format!("/v1/{}/{uuid}/restore", resource.name);
    if let Some(request) = Request::read((&headers, principal), &path, "", &body)? {
        return Box::pin(context.once.run(&request, restore, failed)).await;
    }
    let stored = restore.run_alone(&context.pool).await.map_err(failed)?;
    Ok(row_response(StatusCode::OK, context.rows.hold(&headers, stored)))
}

impl Work for Restore {
    fn operation(&self) -> &'static DbOperation {
        &self.resource.db.restore
    }

    async fn run(self, transaction: &Transaction<'_>) -> Result<Answer, StoreError> {
        let stored = self.run_in(transaction).await?;
        let answer = Answer::new(StatusCode::OK, JSON, stored.document);
        Ok(Answer { etag: Some(etag::text(stored.version)), ..answer })
    }
}

/// The version in a body; an empty body has none.
fn read_version(body: &[u8]) -> Result<Option<i64>, Problem> {
    if body.iter().all(u8::is_ascii_whitespace) {
        return Ok(None);
    }
    let members = members(body, || "version".to_owned())?;
    let (mut version, mut errors) = (None, Vec::new());
    for (name, value) in &members.values {
        match (name.as_ref(), value.get().parse::<i64>()) {
            ("version", Ok(named)) => version = Some(named),
            ("version", Err(_)) => errors.push(FieldError::new("version", VERSION)),
            _ => errors.push(FieldError::new(name, "is unknown; the only field is version")),
        }
    }
    errors.extend(members.repeated.iter().map(|name| FieldError::new(name, "is a duplicate field; keep one")));
    if errors.is_empty() { Ok(version) } else { Err(Problem::fields(errors)) }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_cursor_is_decoded_and_other_texts_are_rejected(id in any::<i64>(), text in ".{0,30}") {
            prop_assert_eq!(decode(&encode(id)), Some(id));
            prop_assert_eq!(decode(&text), None);
        }
    }

    #[test]
    fn a_state_is_named_by_a_version_or_a_time() {
        assert_eq!(read_at("7"), Ok(At::Version(7)));
        let time = "2026-01-31T12:00:00Z".parse().expect("a time");
        assert_eq!(read_at("2026-01-31T13:00:00+01:00"), Ok(At::Time(time)));
        for bad in ["", "\"7\"", "-1", "99999999999999999999", "2026-01-31", "2026-01-31T12:00:00", "now", "7.0"] {
            assert!(read_at(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_body_names_a_version_or_nothing() {
        let read = |body: &str| read_version(body.as_bytes()).map_err(|_| ());
        assert_eq!([read(""), read("{}"), read("{\"version\": 7}")], [Ok(None), Ok(None), Ok(Some(7))]);
        for bad in ["[]", "7", "{\"version\": \"7\"}", "{\"version\": null}", "{\"version\": 7.5}", "{\"x\": 1}", "{"] {
            assert_eq!(read(bad), Err(()), "{bad}");
        }
    }
}
