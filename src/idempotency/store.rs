//! Every SQL statement on kept answers. They run on the transaction of whoever writes.

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

/// One transaction at a time holds a key; the lock ends with it, after its commit is visible. The number keeps these
/// locks apart from other hashes of texts ("idem" in ASCII).
const LOCK: &str = "select pg_try_advisory_xact_lock(hashtextextended($1, 1768186221))";

/// The sum keeps the index of times out of it: the key's finds at most one row, whatever the statistics say.
const FIND: &str = "select fingerprint, status, content_type, location, etag, body from idempotency_keys \
     where key = $1 and created_at + make_interval(secs => $2) > now()";

/// A row that is there has passed its time, or `FIND` would have found it.
const KEEP: &str = "insert into idempotency_keys (key, fingerprint, status, content_type, location, etag, body) \
     values ($1, $2, $3, $4, $5, $6, $7) on conflict (key) do update set fingerprint = excluded.fingerprint, \
     created_at = now(), status = excluded.status, content_type = excluded.content_type, \
     location = excluded.location, etag = excluded.etag, body = excluded.body";

/// The oldest keys that have passed their time, in their own order, in which every statement locks rows. One replica at a
/// time removes them, the others find the lock taken. A key that was used anew meanwhile is looked at once more, and stays.
const FORGET: &str = "delete from idempotency_keys where key = any(array( \
         select key from idempotency_keys where created_at <= now() - make_interval(secs => $1) \
         order by created_at limit $2 \
     )) and created_at + make_interval(secs => $1) <= now() and (select pg_try_advisory_xact_lock(1768186222)) returning 1";

/// Principals of whom more keys than this are kept. Keys with an owner stand together in the order of the index.
const CROWDED: &str = "select left(key, 23) from idempotency_keys where key >= E'\\x01' and key < E'\\x02' \
     group by left(key, 23) having count(*) >= $1";

static COUNT: DbOperation = DbOperation::new("count", "idempotency-keys");
static EXPIRE: DbOperation = DbOperation::new("expire", "idempotency-keys");

/// What is known of a key.
#[derive(Debug)]
pub enum Claim {
    /// Nobody has used it: it is ours until the end of the transaction.
    New,
    /// It was used; the fingerprint tells for which request.
    Kept {
        /// Of the request that was carried out.
        fingerprint: Vec<u8>,
        /// What it was answered with.
        answer: Answer,
    },
    /// Another transaction is at work with it.
    InFlight,
}

/// Takes a key for this transaction, or says what became of it.
///
/// # Errors
/// The database's.
pub async fn claim(transaction: &impl GenericClient, key: &str, ttl: Duration) -> Result<Claim, StoreError> {
    // The second statement sees what was committed before the first one had the lock. Both are on their way at once.
    let seconds = ttl.as_secs_f64();
    let (lock, find) = ([(&key as Param<'_>, Type::TEXT)], [(&key as Param<'_>, Type::TEXT), (&seconds, Type::FLOAT8)]);
    let (locked, found) =
        try_join(transaction.query_typed_one(LOCK, &lock), transaction.query_typed_opt(FIND, &find)).await?;
    match found {
        // Whoever has the lock besides us is a retry too.
        Some(row) => Ok(Claim::Kept { fingerprint: row.try_get(0)?, answer: answer(&row)? }),
        None if locked.try_get(0)? => Ok(Claim::New),
        None => Ok(Claim::InFlight),
    }
}

fn answer(row: &Row) -> Result<Answer, StoreError> {
    Ok(Answer {
        status: row.try_get(1)?,
        content_type: row.try_get(2)?,
        location: row.try_get(3)?,
        etag: row.try_get(4)?,
        body: row.try_get::<_, &[u8]>(5)?.to_vec().into(),
    })
}

/// Keeps the answer to a request whose key was claimed in this transaction.
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

/// The owners of at least so many keys.
///
/// # Errors
/// The pool's.
pub async fn crowded(pool: &Pool, most: i64) -> Result<HashSet<String>, StoreError> {
    let rows = pool.read(&COUNT, CROWDED, &[&most]).await?;
    rows.iter().map(|row| Ok(row.try_get(0)?)).collect()
}

/// Removes at most `limit` keys that have passed their time, and says how many.
///
/// # Errors
/// The pool's.
pub async fn forget(pool: &Pool, ttl: Duration, limit: i64) -> Result<usize, StoreError> {
    Ok(pool.write(&EXPIRE, FORGET, &[&ttl.as_secs_f64(), &limit]).await?.len())
}
