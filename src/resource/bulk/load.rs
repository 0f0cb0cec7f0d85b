//! Stores the rows of a body: after acquiring a turn, on one connection, in one transaction.
//!
//! A load starts when the body is complete, or earlier if the body arrives faster than PostgreSQL stores it. If the sender then
//! falls behind, the load is aborted and restarted once the body is complete. So no turn, connection or transaction waits for a
//! sender.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use serde_json::json;
use tokio::time::{Instant, timeout_at};
use tokio_postgres::Client;
use uuid::Uuid;
use warp::http::{HeaderMap, StatusCode};

use super::super::actor::Actor;
use super::super::problem::problem;
use super::faults::Faults;
use super::rows::{BodyFormat, Loader};
use super::store::{Copied, Loading};
use crate::auth::principal::Principal;
use crate::db::attempt::Attempt;
use crate::db::error::StoreError;
use crate::http::body::{CSV, JSON, charset};
use crate::http::budget::{Holder, Reservation};
use crate::http::client::Client as Sender;
use crate::http::prefer::unknown;
use crate::http::problem::Problem;
use crate::http::route::Route;
use crate::http::spool::{Read, Reader, Spool};
use crate::idempotency::answer::Answer;
use crate::idempotency::once::too_many;
use crate::idempotency::request::{Fingerprint, Request, key};
use crate::idempotency::store::Claim;
use crate::resource::context::Context;

/// Maximum total time that a load waits for its sender: enough for a few pauses of a fast sender.
const SENDER_WAIT_MAX: Duration = Duration::from_millis(500);
/// Added to the deadline so that PostgreSQL's own timeout error normally arrives first.
const GRACE: Duration = Duration::from_secs(1);

/// A bulk request without its body.
pub struct BulkRequest<'a> {
    /// The request headers.
    pub headers: &'a HeaderMap,
    /// The format of the rows.
    pub body_format: BodyFormat,
    /// The client that sends the rows.
    pub client: Sender,
    /// The idempotency key.
    pub key: Option<String>,
    /// Whether the keys of the rows are needed for the response.
    pub with_keys: bool,
    /// The actor recorded in the history.
    pub changed_by: Actor,
    /// Fingerprint of what has been received; the body is stored while it arrives.
    fingerprint: Mutex<Fingerprint>,
    begun: Instant,
}

impl<'a> BulkRequest<'a> {
    /// Reads the headers of a bulk request.
    ///
    /// # Errors
    /// 400 for a malformed key, 415 for an unknown charset.
    pub fn new(
        route: Route,
        (headers, principal): (&'a HeaderMap, &Principal),
        media_type: &'static str,
    ) -> Result<Self, Problem> {
        Ok(Self {
            headers,
            body_format: BodyFormat {
                media_type,
                charset: if media_type == CSV { charset(headers)? } else { None },
                unknown: unknown(headers),
            },
            client: Sender::of(headers),
            key: key(headers, principal)?,
            with_keys: false,
            changed_by: Actor::of(principal, headers),
            fingerprint: Mutex::new(Fingerprint::begin(route.0, "", headers)),
            begun: Instant::now(),
        })
    }

    /// Adds a chunk of the body to its fingerprint.
    pub fn add(&self, chunk: &[u8]) {
        self.fingerprint.lock().unwrap_or_else(PoisonError::into_inner).update(chunk);
    }

    /// The fingerprint of what has been received.
    pub fn fingerprint(&self) -> [u8; 16] {
        self.fingerprint.lock().unwrap_or_else(PoisonError::into_inner).finish()
    }
}

/// The result of loading a body.
pub enum Loaded {
    /// All rows are stored: the short response, and the keys if they were requested.
    Stored(Answer, Keys),
    /// Nothing is stored because rows are invalid.
    Faulty(Faults),
    /// Nothing is stored because the idempotency key was used before.
    Known(Claim),
}

/// The keys of the stored rows and the memory reserved for them.
pub struct Keys {
    /// The keys, in row order.
    pub keys: Vec<Uuid>,
    /// Notes on values that were converted.
    pub notes: Vec<String>,
    _held: Option<Reservation>,
}

/// The result of one attempt.
enum LoadOutcome {
    Loaded(Loaded),
    /// Nothing is stored because the sender fell behind.
    Late,
}

/// Stores the rows of a body that may still be being received.
///
/// # Errors
/// 503 when no turn or connection is available, or PostgreSQL does not respond in time.
pub async fn load(context: &Context, request: &BulkRequest<'_>, spool: &Spool) -> Result<Loaded, Problem> {
    spool.readable().await;
    let holder = Holder::Client(request.client);
    // Only a complete body waits for a turn.
    if let Ok(turn) = context.bulk.turns.take(holder, 1)
        && let LoadOutcome::Loaded(loaded) = try_load(context, request, spool, turn).await?
    {
        return Ok(loaded);
    }
    spool.ended().await;
    let turn = context.bulk.turns.wait(holder, 1, Instant::now() + context.bulk.wait).await;
    let turn = turn.map_err(|refused| refused.problem("turns to store many rows"))?;
    match try_load(context, request, spool, turn).await? {
        LoadOutcome::Loaded(loaded) => Ok(loaded),
        LoadOutcome::Late => Err(Problem::internal()), // a complete body is never late
    }
}

/// Reads the body from its start and stores its rows.
async fn try_load(
    context: &Context,
    request: &BulkRequest<'_>,
    spool: &Spool,
    turn: Reservation,
) -> Result<LoadOutcome, Problem> {
    let mut rows = BodyRows {
        reader: spool.reader(),
        sender_wait: SENDER_WAIT_MAX,
        loader: Loader::new(context.resource, &request.body_format, request.with_keys),
    };
    // The first chunk is validated before a connection is acquired; a body that starts with an error never acquires one.
    let more = match rows.next_chunk().await? {
        Next::Chunk => true,
        Next::End => false,
        Next::Late => return Ok(LoadOutcome::Late),
    };
    if rows.loader.is_valid()
        && let Some(outcome) = store(context, request, &mut rows, more).await?
    {
        return Ok(outcome);
    }
    drop(turn);
    rows.into_faults().await.map(|faults| LoadOutcome::Loaded(Loaded::Faulty(faults)))
}

/// Stores the rows; `None` when one is invalid. `more` states whether rows follow the first chunk.
async fn store(
    context: &Context,
    request: &BulkRequest<'_>,
    rows: &mut BodyRows<'_>,
    more: bool,
) -> Result<Option<LoadOutcome>, Problem> {
    let mut session = context.pool.session().await.map_err(|error| problem(context.resource, error))?;
    let mut timed = context.resource.db.bulk.begin();
    let attempt = session.attempt();
    let work = copy(context, (session.client_mut(), &attempt), request, rows, more);
    let work = timed.around(timeout_at(request.begun + context.bulk.limits.timeout + GRACE, work));
    let stored = work.await.unwrap_or_else(|_| {
        let late = StoreError::unavailable("a bulk body was not stored in time");
        attempt.classify(Err(late)).map_err(|error| problem(context.resource, error))
    });
    if stored.is_ok() {
        timed.record_outcome(&Ok(())); // an invalid body is not a database failure
    }
    if matches!(stored, Ok(Some(LoadOutcome::Loaded(Loaded::Stored(..))))) {
        session.mark_idle(); // otherwise a copy or transaction may still be in progress
    }
    if request.key.is_some() { stored.map_err(Problem::with_key) } else { stored }
}

/// Stores the rows on a connection.
async fn copy(
    context: &Context,
    (client, attempt): (&mut Client, &Attempt),
    request: &BulkRequest<'_>,
    rows: &mut BodyRows<'_>,
    mut more: bool,
) -> Result<Option<LoadOutcome>, Problem> {
    let key = request.key.as_deref().map(|key| (key, context.once.ttl()));
    let mut loading = match Loading::begin(context.resource, client, context.bulk.limits.timeout, key)
        .await
        .map_err(|error| problem(context.resource, error))?
    {
        Ok(_) if request.key.as_deref().is_some_and(|key| context.once.is_full(key)) => return Err(too_many()),
        Ok(loading) => loading,
        Err(known) => return Ok(Some(LoadOutcome::Loaded(Loaded::Known(known)))),
    };
    let mut held = None;
    while more {
        loading.send(rows.loader.take()).await.map_err(|error| problem(context.resource, error))?;
        hold(&mut held, rows.loader.keys() * size_of::<Uuid>(), request.client, context)?;
        more = match rows.next_chunk().await? {
            Next::Chunk => true,
            Next::End => false,
            Next::Late => return Ok(Some(LoadOutcome::Late)),
        };
        if !rows.loader.is_valid() {
            return Ok(None);
        }
    }
    let notes = rows.loader.notes();
    let between = rows.loader.keys_between();
    let (rest, count, keys) = rows.loader.finish();
    loading.send(rest).await.map_err(|error| problem(context.resource, error))?;
    let answer = Answer::new(status(count), JSON, stored(count, &notes).into());
    let keyed =
        request.key.clone().map(|key| Request { key, fingerprint: request.fingerprint(), client: request.client });
    let copied = Copied { between, count, actor: &request.changed_by };
    let committed =
        loading.commit(context.resource, copied, attempt, keyed.as_ref().map(|keyed| (keyed, &answer))).await;
    attempt.classify(committed).map_err(|error| problem(context.resource, error))?;
    context.growth.add(count);
    Ok(Some(LoadOutcome::Loaded(Loaded::Stored(answer, Keys { keys, notes, _held: held }))))
}

/// The short response: the number of rows, and notes on converted values.
fn stored(count: u64, notes: &[String]) -> String {
    if notes.is_empty() { json!({"count": count}) } else { json!({"count": count, "notes": notes}) }.to_string()
}

/// The status for this number of created rows.
pub fn status(count: u64) -> StatusCode {
    if count == 0 { StatusCode::OK } else { StatusCode::CREATED }
}

/// Reserves memory for the keys, of which there may be a million; a refusal here still rolls everything back.
fn hold(held: &mut Option<Reservation>, bytes: usize, client: Sender, context: &Context) -> Result<(), Problem> {
    let before = held.as_ref().map_or(0, Reservation::bytes);
    if bytes <= before {
        return Ok(());
    }
    // A vector doubles its capacity.
    let more = bytes.next_power_of_two() - before;
    match held {
        Some(held) => held.grow(more),
        None => context.body_limits.memory.take(Holder::Client(client), more).map(|taken| *held = Some(taken)),
    }
    .map_err(|refused| refused.problem("memory for the response"))
}

/// The rows of a body, split and validated as they are read.
struct BodyRows<'a> {
    reader: Reader<'a>,
    sender_wait: Duration,
    loader: Loader,
}

/// Why reading stopped.
enum Next {
    /// A chunk is full, or a row is invalid.
    Chunk,
    /// End of the body.
    End,
    /// The sender fell behind.
    Late,
}

impl BodyRows<'_> {
    async fn next_chunk(&mut self) -> Result<Next, Problem> {
        loop {
            match self.reader.next(&mut self.sender_wait).await? {
                Read::Bytes(bytes) => self.loader.push(&bytes),
                Read::End => {
                    self.loader.end();
                    return Ok(Next::End);
                }
                Read::Late => return Ok(Next::Late),
            }
            if self.loader.is_full() || !self.loader.is_valid() {
                return Ok(Next::Chunk);
            }
        }
    }

    /// Reads the rest to collect its errors, however slowly it arrives: nothing is held for it any more.
    async fn into_faults(mut self) -> Result<Faults, Problem> {
        while matches!(self.next_chunk().await?, Next::Chunk) {
            self.sender_wait = Duration::MAX;
        }
        Ok(self.loader.into_faults())
    }
}
