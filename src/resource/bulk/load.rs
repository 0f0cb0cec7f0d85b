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

use super::super::by::By;
use super::super::problem::problem;
use super::faults::Faults;
use super::rows::{Form, Loader};
use super::store::{Copied, Loading};
use crate::auth::principal::Principal;
use crate::db::attempt::Attempt as Fate;
use crate::db::error::StoreError;
use crate::http::body::{CSV, JSON, charset};
use crate::http::budget::{Held, Holder};
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
const PATIENCE: Duration = Duration::from_millis(500);
/// Added to the deadline so that PostgreSQL's own timeout error normally arrives first.
const GRACE: Duration = Duration::from_secs(1);

/// A bulk request without its body.
pub struct Asked<'a> {
    /// The request headers.
    pub headers: &'a HeaderMap,
    /// The format of the rows.
    pub form: Form,
    /// The client that sends the rows.
    pub client: Sender,
    /// The idempotency key.
    pub key: Option<String>,
    /// Whether the keys of the rows are needed for the response.
    pub with_keys: bool,
    /// The actor recorded in the history.
    pub changed_by: By,
    /// Fingerprint of what has been received; the body is stored while it arrives.
    fingerprint: Mutex<Fingerprint>,
    begun: Instant,
}

impl<'a> Asked<'a> {
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
            form: Form {
                media_type,
                charset: if media_type == CSV { charset(headers)? } else { None },
                unknown: unknown(headers),
            },
            client: Sender::of(headers),
            key: key(headers, principal)?,
            with_keys: false,
            changed_by: By::of(principal, headers),
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
    _held: Option<Held>,
}

/// The result of one attempt.
enum Attempt {
    Loaded(Loaded),
    /// Nothing is stored because the sender fell behind.
    Late,
}

/// Stores the rows of a body that may still be being received.
///
/// # Errors
/// 503 when no turn or connection is available, or PostgreSQL does not respond in time.
pub async fn load(context: &Context, asked: &Asked<'_>, spool: &Spool) -> Result<Loaded, Problem> {
    spool.readable().await;
    let holder = Holder::Client(asked.client);
    // Only a complete body waits for a turn.
    if let Ok(turn) = context.bulk.turns.take(holder, 1)
        && let Attempt::Loaded(loaded) = attempt(context, asked, spool, turn).await?
    {
        return Ok(loaded);
    }
    spool.ended().await;
    let turn = context.bulk.turns.wait(holder, 1, Instant::now() + context.bulk.wait).await;
    let turn = turn.map_err(|refused| refused.problem("turns to store many rows"))?;
    match attempt(context, asked, spool, turn).await? {
        Attempt::Loaded(loaded) => Ok(loaded),
        Attempt::Late => Err(Problem::internal()), // a complete body is never late
    }
}

/// Reads the body from its start and stores its rows.
async fn attempt(context: &Context, asked: &Asked<'_>, spool: &Spool, turn: Held) -> Result<Attempt, Problem> {
    let mut rows = Rows {
        reader: spool.reader(),
        patience: PATIENCE,
        loader: Loader::new(context.resource, &asked.form, asked.with_keys),
    };
    // The first chunk is validated before a connection is acquired; a body that starts with an error never acquires one.
    let more = match rows.next_piece().await? {
        Next::Chunk => true,
        Next::End => false,
        Next::Late => return Ok(Attempt::Late),
    };
    if rows.loader.is_good()
        && let Some(attempt) = store(context, asked, &mut rows, more).await?
    {
        return Ok(attempt);
    }
    drop(turn);
    rows.into_faults().await.map(|faults| Attempt::Loaded(Loaded::Faulty(faults)))
}

/// Stores the rows; `None` when one is invalid. `more` states whether rows follow the first chunk.
async fn store(
    context: &Context,
    asked: &Asked<'_>,
    rows: &mut Rows<'_>,
    more: bool,
) -> Result<Option<Attempt>, Problem> {
    let mut session = context.pool.session().await.map_err(|error| problem(context.resource, error))?;
    let mut timed = context.resource.db.bulk.begin();
    let fate = session.attempt();
    let work = copy(context, (session.client_mut(), &fate), asked, rows, more);
    let work = timed.around(timeout_at(asked.begun + context.bulk.limits.timeout + GRACE, work));
    let stored = work.await.unwrap_or_else(|_| {
        let late = StoreError::unavailable("a bulk body was not stored in time");
        fate.judge(Err(late)).map_err(|error| problem(context.resource, error))
    });
    if stored.is_ok() {
        timed.judge(&Ok(())); // an invalid body is not a database failure
    }
    if matches!(stored, Ok(Some(Attempt::Loaded(Loaded::Stored(..))))) {
        session.settled(); // otherwise a copy or transaction may still be in progress
    }
    if asked.key.is_some() { stored.map_err(Problem::with_key) } else { stored }
}

/// Stores the rows on a connection.
async fn copy(
    context: &Context,
    (client, fate): (&mut Client, &Fate),
    asked: &Asked<'_>,
    rows: &mut Rows<'_>,
    mut more: bool,
) -> Result<Option<Attempt>, Problem> {
    let key = asked.key.as_deref().map(|key| (key, context.once.ttl()));
    let mut loading = match Loading::begin(context.resource, client, context.bulk.limits.timeout, key)
        .await
        .map_err(|error| problem(context.resource, error))?
    {
        Ok(_) if asked.key.as_deref().is_some_and(|key| context.once.is_full(key)) => return Err(too_many()),
        Ok(loading) => loading,
        Err(known) => return Ok(Some(Attempt::Loaded(Loaded::Known(known)))),
    };
    let mut held = None;
    while more {
        loading.send(rows.loader.take()).await.map_err(|error| problem(context.resource, error))?;
        hold(&mut held, rows.loader.keys() * size_of::<Uuid>(), asked.client, context)?;
        more = match rows.next_piece().await? {
            Next::Chunk => true,
            Next::End => false,
            Next::Late => return Ok(Some(Attempt::Late)),
        };
        if !rows.loader.is_good() {
            return Ok(None);
        }
    }
    let notes = rows.loader.notes();
    let between = rows.loader.keys_between();
    let (rest, count, keys) = rows.loader.finish();
    loading.send(rest).await.map_err(|error| problem(context.resource, error))?;
    let answer = Answer::new(status(count), JSON, stored(count, &notes).into());
    let request = asked.key.clone().map(|key| Request { key, fingerprint: asked.fingerprint() });
    let copied = Copied { between, count, by: &asked.changed_by };
    let committed =
        loading.commit(context.resource, copied, fate, request.as_ref().map(|request| (request, &answer))).await;
    fate.judge(committed).map_err(|error| problem(context.resource, error))?;
    context.growth.add(count);
    Ok(Some(Attempt::Loaded(Loaded::Stored(answer, Keys { keys, notes, _held: held }))))
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
fn hold(held: &mut Option<Held>, bytes: usize, client: Sender, context: &Context) -> Result<(), Problem> {
    let before = held.as_ref().map_or(0, Held::bytes);
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
struct Rows<'a> {
    reader: Reader<'a>,
    patience: Duration,
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

impl Rows<'_> {
    async fn next_piece(&mut self) -> Result<Next, Problem> {
        loop {
            match self.reader.next(&mut self.patience).await? {
                Read::Bytes(bytes) => self.loader.push(&bytes),
                Read::End => {
                    self.loader.end();
                    return Ok(Next::End);
                }
                Read::Late => return Ok(Next::Late),
            }
            if self.loader.is_full() || !self.loader.is_good() {
                return Ok(Next::Chunk);
            }
        }
    }

    /// Reads the rest to collect its errors, however slowly it arrives: nothing is held for it any more.
    async fn into_faults(mut self) -> Result<Faults, Problem> {
        while matches!(self.next_piece().await?, Next::Chunk) {
            self.patience = Duration::MAX;
        }
        Ok(self.loader.into_faults())
    }
}
