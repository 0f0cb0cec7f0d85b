//! The SQL statements on stored responses. They run in the caller's transaction.

use std::collections::HashSet;
use std::time::Duration;

use futures_util::future::try_join;
use tokio_postgres::types::Type;
use tokio_postgres::{GenericClient, Row};

use super::answer::Answer;
use crate::db::error::StoreError;
use crate::db::operation::DbOperation;
use crate::db::pool::Pool;
use crate::db::session::Param;
use crate::http::body::SMALL;

/// One transaction at a time holds a key; the lock is released after its commit is visible. The seed separates these locks from
/// other hashes of texts ("idem" in ASCII).
const LOCK: &str = "select pg_try_advisory_xact_lock(hashtextextended($1, 1768186221))";

/// The sum prevents the use of the index on times: the key's index finds at most one row, whatever the statistics. A long body
/// is not read.
const FIND: &str = "select fingerprint, status, content_type, location, etag, octet_length(body), \
     case when octet_length(body) <= $3 then body end from idempotency_keys \
     where key = $1 and created_at + make_interval(secs => $2) > now()";

/// The body of a stored response, unless the key has been reused since.
const BODY: &str = "select body from idempotency_keys where key = $1 and fingerprint = $2 and octet_length(body) = $3";

/// An existing row has expired, because otherwise `FIND` would have returned it.
const KEEP: &str = "insert into idempotency_keys (key, fingerprint, status, content_type, location, etag, body) \
     values ($1, $2, $3, $4, $5, $6, $7) on conflict (key) do update set fingerprint = excluded.fingerprint, \
     created_at = now(), status = excluded.status, content_type = excluded.content_type, \
     location = excluded.location, etag = excluded.etag, body = excluded.body";

/// The oldest expired keys, in key order, in which every statement locks rows. An advisory lock lets one replica at a time
/// delete them. A key reused in the meantime is checked again and kept.
const DELETE_EXPIRED: &str = "delete from idempotency_keys where key = any(array( \
         select key from idempotency_keys where created_at <= now() - make_interval(secs => $1) \
         order by created_at limit $2 \
     )) and created_at + make_interval(secs => $1) <= now() and (select pg_try_advisory_xact_lock(1768186222)) returning 1";

/// Principals with at least this many keys. Keys with an owner are adjacent in the index.
const OWNERS_AT_LIMIT: &str = "select left(key, 23) from idempotency_keys where key >= E'\\x01' and key < E'\\x02' \
     group by left(key, 23) having count(*) >= $1";

static REPLAY: DbOperation = DbOperation::new("replay", "idempotency-keys");
static COUNT: DbOperation = DbOperation::new("count", "idempotency-keys");
static EXPIRE: DbOperation = DbOperation::new("expire", "idempotency-keys");

/// The state of a key.
#[derive(Debug)]
pub enum Claim {
    /// Unused; claimed until the end of the transaction.
    New,
    /// Used before.
    Kept(Kept),
    /// Another transaction is using it.
    InFlight,
}

/// The response to a completed request.
#[derive(Debug)]
pub struct Kept {
    /// The fingerprint of the request.
    pub fingerprint: Vec<u8>,
    /// The response.
    pub answer: Answer,
    /// The length of its body if it is longer than [`SMALL`]; the body has not been read then, and the response has none.
    pub unread: Option<usize>,
}

/// Claims a key for this transaction, or returns its state.
///
/// # Errors
/// The database's.
pub async fn claim(transaction: &impl GenericClient, key: &str, ttl: Duration) -> Result<Claim, StoreError> {
    // The second statement sees what was committed before the first acquired the lock. Both are pipelined.
    let seconds = ttl.as_secs_f64();
    let small = i32::try_from(SMALL).unwrap_or(i32::MAX);
    let lock = [(&key as Param<'_>, Type::TEXT)];
    let find = [(&key as Param<'_>, Type::TEXT), (&seconds, Type::FLOAT8), (&small, Type::INT4)];
    let (locked, found) =
        try_join(transaction.query_typed_one(LOCK, &lock), transaction.query_typed_opt(FIND, &find)).await?;
    match found {
        // If another transaction holds the lock, it is a retry as well.
        Some(row) => kept(&row).map(Claim::Kept),
        None if locked.try_get(0)? => Ok(Claim::New),
        None => Ok(Claim::InFlight),
    }
}

fn kept(row: &Row) -> Result<Kept, StoreError> {
    let (length, body): (i32, Option<&[u8]>) = (row.try_get(5)?, row.try_get(6)?);
    let answer = Answer {
        status: row.try_get(1)?,
        content_type: row.try_get(2)?,
        location: row.try_get(3)?,
        etag: row.try_get(4)?,
        body: body.unwrap_or_default().to_vec().into(),
    };
    let unread = if body.is_some() { None } else { Some(usize::try_from(length).unwrap_or_default()) };
    Ok(Kept { fingerprint: row.try_get(0)?, answer, unread })
}

/// The body of a stored response of this length.
///
/// # Errors
/// The pool's, or [`StoreError::Missing`] when the response has been removed.
pub async fn body(pool: &Pool, key: &str, fingerprint: &[u8], length: usize) -> Result<Vec<u8>, StoreError> {
    let length = i32::try_from(length).map_err(|_| StoreError::Missing)?;
    let rows = pool.read(&REPLAY, BODY, &[&key, &fingerprint, &length]).await?;
    Ok(rows.first().ok_or(StoreError::Missing)?.try_get(0)?)
}

/// Stores the response to a request whose key was claimed in this transaction.
///
/// # Errors
/// The database's.
pub async fn keep(
    transaction: &impl GenericClient,
    key: &str,
    fingerprint: &[u8; 16],
    answer: &Answer,
) -> Result<(), StoreError> {
    let Answer { status, content_type, location, etag, body } = answer;
    let (fingerprint, body) = (fingerprint.as_slice(), body.as_ref());
    let values: [(Param<'_>, Type); 7] = [
        (&key, Type::TEXT),
        (&fingerprint, Type::BYTEA),
        (status, Type::INT2),
        (content_type, Type::TEXT),
        (location, Type::TEXT),
        (etag, Type::TEXT),
        (&body, Type::BYTEA),
    ];
    transaction.query_typed(KEEP, &values).await?;
    Ok(())
}

/// The owners of at least `most` keys.
///
/// # Errors
/// The pool's.
pub async fn owners_at_limit(pool: &Pool, most: i64) -> Result<HashSet<String>, StoreError> {
    let rows = pool.read(&COUNT, OWNERS_AT_LIMIT, &[&most]).await?;
    rows.iter().map(|row| Ok(row.try_get(0)?)).collect()
}

/// Deletes at most `limit` expired keys and returns their number.
///
/// # Errors
/// The pool's.
pub async fn delete_expired(pool: &Pool, ttl: Duration, limit: i64) -> Result<usize, StoreError> {
    Ok(pool.write(&EXPIRE, DELETE_EXPIRED, &[&ttl.as_secs_f64(), &limit]).await?.len())
}
