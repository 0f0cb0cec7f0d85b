//! Executes a request once, and replays the first response to its retries.

use std::future::Future;
use std::time::Duration;

use tokio_postgres::{Client, Transaction};
use warp::http::header::RETRY_AFTER;
use warp::reply::Response;

use super::answer::Answer;
use super::key_limit::KeyLimit;
use super::request::Request;
use super::store::{self, Claim, Kept};
use crate::db::attempt::Attempt;
use crate::db::error::StoreError;
use crate::db::operation::DbOperation;
use crate::db::pool::Pool;
use crate::db::wait_time::Waiting;
use crate::http::body::SMALL;
use crate::http::budget::Holder;
use crate::http::client::Client as Sender;
use crate::http::problem::{Code, Problem};
use crate::http::reply::{self, Buffers};

/// The work of an idempotent request.
pub trait Work: Send {
    /// The operation, as named in metrics.
    fn operation(&self) -> &'static DbOperation;

    /// Runs in the transaction.
    fn run(self, transaction: &Transaction<'_>) -> impl Future<Output = Result<Answer, StoreError>> + Send;
}

/// Executes idempotent requests.
#[derive(Clone)]
pub struct Once {
    pool: Pool,
    ttl: Duration,
    key_limit: KeyLimit,
    /// The memory for long responses.
    buffers: Buffers,
}

/// The outcome of a request.
enum Outcome {
    First(Answer),
    Replayed(Kept),
    Reused,
    InFlight,
    TooMany,
}

impl Once {
    /// Stores responses for `ttl`, limited per principal by `key_limit`; long ones are held in `buffers` while they are sent.
    pub fn new(pool: Pool, ttl: Duration, key_limit: KeyLimit, buffers: Buffers) -> Self {
        Self { pool, ttl, key_limit, buffers }
    }

    /// Whether the owner of this key has reached the limit.
    pub fn is_full(&self, key: &str) -> bool {
        self.key_limit.is_reached(key)
    }

    /// How long responses are stored.
    pub fn ttl(&self) -> Duration {
        self.ttl
    }

    /// Runs the work unless it was done before; then the first response is sent again. `problem` converts a store error to a
    /// problem.
    ///
    /// # Errors
    /// 422 when the key was used for another request, 409 while the first attempt is in progress, and the work's own.
    pub async fn run(
        &self,
        request: &Request,
        work: impl Work,
        problem: impl Fn(StoreError) -> Problem,
    ) -> Result<Response, Problem> {
        let outcome = self.attempt(request, work).await.map_err(|error| problem(error).with_key())?;
        metrics::counter!("idempotency_requests_total", "result" => outcome.label()).increment(1);
        match outcome {
            Outcome::First(mut answer) => {
                if answer.body.len() > SMALL {
                    answer.body = self.buffers.hold(request.client, answer.body);
                }
                answer.into_response(false)
            }
            Outcome::Replayed(kept) => self.replay((&request.key, request.client), kept, problem).await,
            Outcome::Reused => Err(reused()),
            Outcome::InFlight => Err(in_flight()),
            Outcome::TooMany => Err(too_many()),
        }
    }

    /// Sends a stored response again; the memory for a long one is reserved before it is read.
    ///
    /// # Errors
    /// 429 or 503 if there is no memory for it, 409 when it has been removed since, and the pool's.
    pub async fn replay(
        &self,
        (key, client): (&str, Sender),
        mut kept: Kept,
        problem: impl Fn(StoreError) -> Problem,
    ) -> Result<Response, Problem> {
        if let Some(length) = kept.unread {
            // Twice its length: while it is copied out of the database's message.
            let held = self.buffers.reserve(Holder::Client(client), length * 2).await.map_err(reply::no_buffer)?;
            match store::body(&self.pool, key, &kept.fingerprint, length).await {
                Ok(body) => kept.answer.body = reply::buffer(body, held),
                Err(StoreError::Missing) => return Err(in_flight()),
                Err(error) => return Err(problem(error).with_key()),
            }
        }
        kept.answer.into_response(true)
    }

    async fn attempt(&self, request: &Request, work: impl Work) -> Result<Outcome, StoreError> {
        let _waiting = Waiting::begin();
        let mut session = self.pool.session().await?;
        let mut timed = work.operation().begin();
        let (deadline, attempt) = (session.deadline(), session.attempt());
        let work = execute(session.client_mut(), &attempt, request, self, work);
        let outcome = timed.around(tokio::time::timeout(deadline, work)).await;
        let outcome = attempt.classify(session.finish(outcome));
        timed.record_outcome(&outcome);
        outcome
    }
}

/// If this is dropped, its transaction is rolled back too, only later.
async fn execute(
    client: &mut Client,
    attempt: &Attempt,
    request: &Request,
    once: &Once,
    work: impl Work,
) -> Result<Outcome, StoreError> {
    let transaction = client.transaction().await?;
    let outcome = claim_and_work(&transaction, request, once, work).await;
    match &outcome {
        Ok(Outcome::First(_)) => attempt.commit(transaction).await?,
        // Awaited, so that the key is free when the client receives the error.
        _ => transaction.rollback().await?,
    }
    outcome
}

async fn claim_and_work(
    transaction: &Transaction<'_>,
    request: &Request,
    once: &Once,
    work: impl Work,
) -> Result<Outcome, StoreError> {
    match store::claim(transaction, &request.key, once.ttl).await? {
        Claim::InFlight => Ok(Outcome::InFlight),
        Claim::Kept(kept) if kept.fingerprint != request.fingerprint => Ok(Outcome::Reused),
        Claim::Kept(kept) => Ok(Outcome::Replayed(kept)),
        Claim::New if once.is_full(&request.key) => Ok(Outcome::TooMany),
        Claim::New => {
            let answer = work.run(transaction).await?;
            store::keep(transaction, &request.key, &request.fingerprint, &answer).await?;
            Ok(Outcome::First(answer))
        }
    }
}

impl Outcome {
    fn label(&self) -> &'static str {
        match self {
            Self::First(_) => "first",
            Self::Replayed(_) => "replayed",
            Self::Reused => "reused",
            Self::InFlight => "in_flight",
            Self::TooMany => "too_many",
        }
    }
}

/// The problem for a key that was used for another request.
pub fn reused() -> Problem {
    Problem::new(
        Code::IdempotencyKeyReused,
        "this Idempotency-Key was used for another request (method, path, media type and body must be the same); \
         use a new key for a new request",
    )
}

/// The problem for a principal that has reached the limit.
pub fn too_many() -> Problem {
    Problem::new(
        Code::TooManyRequests,
        "this principal has too many stored Idempotency-Keys; nothing was done, send the request without one, or wait until \
        older ones expire. The operator sets IDEMPOTENCY_MAX_KEYS and IDEMPOTENCY_TTL",
    )
    .with_header(RETRY_AFTER, "60")
}

/// The problem while the first attempt is in progress.
pub fn in_flight() -> Problem {
    Problem::new(
        Code::IdempotencyInFlight,
        "the first request with this Idempotency-Key is still in progress; wait as long as Retry-After says, and send it \
        again to get its response",
    )
    .with_header(RETRY_AFTER, "1")
}
