//! `POST /v1/passengers` with one passenger or many.
//!
//! A connection is taken when the first piece of rows is full or the body has ended, so that a small body never waits for
//! its client with a connection in hand. A large one may; so few connections are given to bulk bodies, and there is a
//! deadline for all of it.

use std::sync::Arc;
use std::time::Duration;

use bytes::{Buf, Bytes};
use futures_util::{Stream, StreamExt, stream};
use tokio::sync::Semaphore;
use tokio::time::{Instant, timeout, timeout_at};
use uuid::Uuid;
use warp::http::header::{HeaderValue, VARY};
use warp::http::{HeaderMap, StatusCode};
use warp::reply::Response;

use super::super::list::format::{Format, Shape};
use super::super::routes::problem;
use super::super::store::passenger;
use super::rows::Loader;
use super::store::{self, Loading};
use crate::app::State;
use crate::db::error::StoreError;
use crate::http::body::{self, BodyLimits, CSV, JSON, NDJSON};
use crate::http::prefer;
use crate::http::problem::Problem;
use crate::http::reply::{self, Pieces};
use crate::http::route::Route;
use crate::idempotency::once::{Answer, in_flight, reused};
use crate::idempotency::request::{Fingerprint, Request, key};
use crate::idempotency::store::Claim;

/// What can be posted; the first may hold one passenger or many.
const TAKEN: &[&str] = &[JSON, CSV, NDJSON];
/// Beyond the deadline, so that PostgreSQL's own answer about it normally comes first.
const GRACE: Duration = Duration::from_secs(1);
/// Rows of an answer read back at a time.
const BATCH: usize = 1000;

/// The bounds of bulk bodies.
pub struct Bulk {
    limits: BodyLimits,
    slots: Semaphore,
    /// Longest wait for a slot.
    wait: Duration,
}

impl Bulk {
    /// With a body's limits, in front of a pool of this size in which nobody waits longer than `wait`.
    pub fn new(limits: BodyLimits, pool_size: u32, wait: Duration) -> Self {
        // Two keep PostgreSQL busy; a small pool must have connections left for everybody else.
        let slots = if pool_size >= 4 { 2 } else { 1 };
        Self { limits, slots: Semaphore::new(slots), wait }
    }
}

/// What a body held.
pub enum Posted {
    /// One passenger, still to be read.
    One(Bytes),
    /// Many: this is the answer.
    Many(Response),
}

/// Reads a body that holds one passenger, or creates the many that it holds.
///
/// # Errors
/// 415 for another media type, 413, 408 and 400 as for every body, 406 for a form of the answer that is not on offer, 422
/// that lists the faults of the rows, 503 when the database does not answer.
pub async fn receive<B: Buf>(
    route: Route,
    headers: &HeaderMap,
    body: impl Stream<Item = Result<B, warp::Error>>,
    state: &Arc<State>,
) -> Result<Posted, Problem> {
    let media_type = body::media_type(headers, TAKEN)?;
    let is_short = body::announced(headers).is_some_and(|length| length <= state.body_limits.bytes as u64);
    // Boxes, so that the usual single passenger carries none of this with it.
    if is_short && media_type == JSON {
        let bytes = body::read_json(headers, body, state.body_limits).await?;
        if !is_array(&bytes) {
            return Ok(Posted::One(bytes));
        }
        let whole = stream::iter([Ok(bytes)]);
        return Box::pin(many(Asked::new(route, headers, JSON)?, whole, state)).await.map(Posted::Many);
    }
    let body = body.map(|chunk| chunk.map(|mut chunk| chunk.copy_to_bytes(chunk.remaining())));
    state.bulk.limits.check_length(headers)?;
    Box::pin(one_or_many(Asked::new(route, headers, media_type)?, Box::pin(body), state)).await
}

/// The same for a body that is long, of unknown length, or no JSON.
async fn one_or_many(
    asked: Asked<'_>,
    mut body: impl Stream<Item = Result<Bytes, warp::Error>> + Unpin,
    state: &Arc<State>,
) -> Result<Posted, Problem> {
    if asked.media_type != JSON {
        return many(asked, body, state).await.map(Posted::Many);
    }
    // The first byte that is no blank tells one passenger from many.
    let mut begun = Vec::new();
    let reading = async {
        while let Some(chunk) = body.next().await {
            let decides = !matches!(&chunk, Ok(bytes) if bytes.iter().all(u8::is_ascii_whitespace));
            begun.push(chunk);
            if decides || begun.len() > state.body_limits.bytes {
                break;
            }
        }
    };
    timeout(state.body_limits.timeout, reading).await.map_err(|_| state.body_limits.too_slow())?;
    let many_are_there = begun.iter().flatten().any(|bytes: &Bytes| is_array(bytes));
    let body = stream::iter(begun).chain(body);
    if many_are_there {
        return many(asked, body, state).await.map(Posted::Many);
    }
    body::read_json(asked.headers, body, state.body_limits).await.map(Posted::One)
}

fn is_array(bytes: &[u8]) -> bool {
    bytes.trim_ascii_start().first() == Some(&b'[')
}

/// What was asked for besides the body.
struct Asked<'a> {
    headers: &'a HeaderMap,
    media_type: &'static str,
    /// The name of a request that is to be carried out once.
    key: Option<&'a str>,
    fingerprint: Fingerprint,
}

impl<'a> Asked<'a> {
    fn new(route: Route, headers: &'a HeaderMap, media_type: &'static str) -> Result<Self, Problem> {
        Ok(Self { headers, media_type, key: key(headers)?, fingerprint: Fingerprint::begin(route.0, "", headers) })
    }
}

/// Creates what the body holds, all or none.
async fn many(
    asked: Asked<'_>,
    body: impl Stream<Item = Result<Bytes, warp::Error>> + Unpin,
    state: &Arc<State>,
) -> Result<Response, Problem> {
    let preferred = prefer::preference(asked.headers, "return");
    // The answer to a request with a key is kept with it, so it is always the short one.
    let representation = preferred == Some("representation") && asked.key.is_none();
    let format = Format::negotiate(asked.headers)?;
    let limits = state.bulk.limits;
    let mut incoming = Incoming {
        body,
        limits,
        deadline: Instant::now() + limits.timeout,
        received: 0,
        ended: false,
        loader: Loader::new(asked.media_type, representation),
        key: asked.key,
        fingerprint: asked.fingerprint,
    };
    let more = incoming.next_piece().await?;
    let loaded = if incoming.loader.is_good() { load(state, &mut incoming, more).await? } else { Loaded::Faulty };
    let (mut response, applied) = match loaded {
        Loaded::Stored(answer, keys) if representation => {
            let shape = Shape { format, columns: None };
            let pieces = Stored { state: state.clone(), shape, keys, told: 0 };
            match reply::in_pieces(format.content_type(), pieces).await {
                Ok(response) => (response, Some("return=representation")),
                // They are stored, whatever became of reading them again: a preference may go unheeded.
                Err(_) => (answer.into_response(false)?, None),
            }
        }
        Loaded::Stored(answer, _) => {
            (answer.into_response(false)?, (preferred == Some("minimal")).then_some("return=minimal"))
        }
        Loaded::Known(Claim::Kept { fingerprint, answer }) => {
            // The whole body tells whether it is the same request.
            while incoming.next_piece().await? {
                incoming.loader.take();
            }
            if fingerprint != incoming.fingerprint.finish() {
                return Err(reused());
            }
            return answer.into_response(true);
        }
        Loaded::Known(_) => return Err(in_flight()),
        Loaded::Faulty => {
            // The rest is read for its faults, without a connection.
            while incoming.next_piece().await? {}
            return Err(incoming.loader.into_faults().finish().err().unwrap_or_else(Problem::internal));
        }
    };
    *response.status_mut() = StatusCode::CREATED;
    let headers = response.headers_mut();
    headers.insert(VARY, HeaderValue::from_static("accept, prefer"));
    if let Some(applied) = applied {
        prefer::applied(headers, applied);
    }
    Ok(response)
}

/// What came of a body.
enum Loaded {
    /// All of it is stored: the short answer, and the keys if they were wanted.
    Stored(Answer, Vec<Uuid>),
    /// Nothing is stored, because a row is at fault.
    Faulty,
    /// Nothing is stored, because its key was used before.
    Known(Claim),
}

/// Stores the rows as they arrive. `more` says whether the body goes on.
async fn load<S>(state: &State, incoming: &mut Incoming<'_, S>, mut more: bool) -> Result<Loaded, Problem>
where
    S: Stream<Item = Result<Bytes, warp::Error>> + Unpin,
{
    let slot = timeout(state.bulk.wait, state.bulk.slots.acquire()).await;
    let Ok(Ok(_slot)) = slot else {
        return Err(problem(StoreError::unavailable("every slot for bulk bodies is taken")));
    };
    let mut session = state.pool.session().await.map_err(problem)?;
    let deadline = incoming.deadline + GRACE;
    let key = incoming.key.map(|key| (key, state.once.ttl()));
    let attempt = session.attempt();
    let work = async {
        let begun = Loading::begin(session.client_mut(), incoming.limits.timeout, key).await.map_err(problem)?;
        let mut loading = match begun {
            Ok(loading) => loading,
            Err(known) => return Ok(Loaded::Known(known)),
        };
        while more {
            loading.send(incoming.loader.take()).await.map_err(problem)?;
            more = incoming.next_piece().await?;
            if !incoming.loader.is_good() {
                return Ok(Loaded::Faulty);
            }
        }
        let (rest, count, keys) = incoming.loader.finish();
        loading.send(rest).await.map_err(problem)?;
        let answer = Answer::new(StatusCode::CREATED, JSON, format!("{{\"count\":{count}}}").into());
        let fingerprint = incoming.fingerprint.finish();
        let request = key.map(|(key, _)| Request { key: key.to_owned(), fingerprint });
        let committed = loading.commit(&attempt, request.as_ref().map(|request| (request, &answer))).await;
        attempt.judge(committed).map_err(problem)?;
        Ok(Loaded::Stored(answer, keys))
    };
    let loaded = timeout_at(deadline, work).await.unwrap_or_else(|_| {
        let late = StoreError::unavailable("a bulk body was not stored in time");
        attempt.judge(Err(late)).map_err(problem)
    });
    if matches!(loaded, Ok(Loaded::Stored(..))) {
        session.settled(); // in every other case a copy or a transaction may still be at work
    }
    if key.is_some() { loaded.map_err(Problem::with_key) } else { loaded }
}

/// A body under way.
struct Incoming<'a, S> {
    body: S,
    limits: BodyLimits,
    deadline: Instant,
    received: usize,
    ended: bool,
    loader: Loader,
    key: Option<&'a str>,
    /// Of what has arrived.
    fingerprint: Fingerprint,
}

impl<S> Incoming<'_, S>
where
    S: Stream<Item = Result<Bytes, warp::Error>> + Unpin,
{
    /// Reads until a piece is full, a row is at fault, or the body ends; whether it goes on.
    async fn next_piece(&mut self) -> Result<bool, Problem> {
        while !self.ended {
            let chunk = timeout_at(self.deadline, self.body.next()).await.map_err(|_| self.limits.too_slow())?;
            let Some(chunk) = chunk else {
                self.loader.end();
                self.ended = true;
                break;
            };
            let chunk = chunk.map_err(|_| body::broken_off())?;
            self.received += chunk.len();
            if self.received > self.limits.bytes {
                return Err(self.limits.too_large());
            }
            self.fingerprint.update(&chunk);
            self.loader.push(&chunk);
            if self.loader.is_full() || !self.loader.is_good() {
                return Ok(true);
            }
        }
        Ok(false)
    }
}

/// The passengers as they are stored, told to whoever sent them.
struct Stored {
    state: Arc<State>,
    shape: Shape,
    keys: Vec<Uuid>,
    told: usize,
}

impl Pieces for Stored {
    async fn next(&mut self, room: usize) -> Result<(Vec<u8>, bool), StoreError> {
        let mut out = Vec::with_capacity(room);
        let first = self.told == 0;
        let end = self.keys.len().min(self.told + BATCH);
        // Keys are made in the order of the rows, and ascend.
        let rows = store::stored(&self.state.pool, &self.keys[self.told..end]).await?;
        if first {
            self.shape.begin(&mut out);
        }
        for (index, row) in rows.iter().enumerate() {
            self.shape.row(first && index == 0, &passenger(row)?, &mut out);
        }
        self.told = end;
        let more = end < self.keys.len();
        if !more {
            self.shape.end(&mut out);
        }
        Ok((out, more))
    }
}
