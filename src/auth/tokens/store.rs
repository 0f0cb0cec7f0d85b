//! Every SQL statement on tokens of the API's own.

use jiff::Timestamp;
use tokio_postgres::{GenericClient, Row};
use uuid::Uuid;

use crate::db::error::StoreError;
use crate::db::listen::Topic;
use crate::db::operation::DbOperation;
use crate::db::pool::Pool;

/// How changes are announced, and what is kept up to date.
pub const CHANGES: Topic = Topic {
    listen: "listen api_tokens_changed",
    table: "api_tokens_generation",
    current: "select generation from api_tokens_generation",
};

/// One row, whether or not there is such a token.
const FIND: &str = "select generation, id, hash, scopes, expires_at, revoked_at is not null \
     from api_tokens_generation left join api_tokens on hash = $1";

const INSERT: &str = "insert into api_tokens (id, name, hash, scopes, created_by, expires_at, lifetime) \
     values ($1, $2, $3, $4, $5, now() + make_interval(secs => $6), $6) returning";
const LIST: &str = "from api_tokens order by id";
const ONE: &str = "from api_tokens where id = $1 for update";
/// A token that was revoked before, or has expired, stays as it was.
const REVOKE: &str = "update api_tokens set revoked_at = coalesce(revoked_at, now()), \
     revoked_by = case when revoked_at is null then $2 else revoked_by end where id = $1 returning";
/// It ends after this many seconds, or when it would have anyway.
const END_SOON: &str = "update api_tokens set expires_at = least(expires_at, now() + make_interval(secs => $2)) \
     where id = $1 and revoked_at is null";

/// In the order of their keys, in which every statement locks rows.
const COUNT: &str = "with used as materialized ( \
         select id, uses, at from unnest($1::uuid[], $2::bigint[], $3::timestamptz[]) as used (id, uses, at) \
     ), held as materialized ( \
         select id from api_tokens where id = any($1) order by id for update \
     ) update api_tokens as t set uses = t.uses + used.uses, last_used_at = greatest(t.last_used_at, used.at) \
     from held join used using (id) where t.id = held.id";

const COLUMNS: &str =
    " id, name, scopes, created_at, created_by, expires_at, revoked_at, revoked_by, last_used_at, uses, lifetime ";

/// What is known of a token that somebody has sent.
#[derive(Debug)]
pub struct Found {
    /// The state of all tokens that this is of.
    pub generation: Uuid,
    /// The token, if there is one.
    pub token: Option<Known>,
}

/// A token as it is checked.
#[derive(Debug)]
pub struct Known {
    /// Its name in logs and history.
    pub id: Uuid,
    /// What was stored of it.
    pub hash: Vec<u8>,
    /// As they were written.
    pub scopes: String,
    /// When it ends.
    pub expires_at: Option<Timestamp>,
    /// Whether it was revoked.
    pub is_revoked: bool,
}

/// A token as it is shown; never itself.
#[derive(Debug, Clone, PartialEq)]
pub struct Listed {
    /// What it is called in commands, logs and history.
    pub id: Uuid,
    /// What people call it.
    pub name: String,
    /// What it allows.
    pub scopes: String,
    /// When it was made.
    pub created_at: Timestamp,
    /// By whom; nobody for whoever has access to the database.
    pub created_by: Option<String>,
    /// When it ends.
    pub expires_at: Option<Timestamp>,
    /// When it was revoked.
    pub revoked_at: Option<Timestamp>,
    /// By whom.
    pub revoked_by: Option<String>,
    /// About when it was used last.
    pub last_used_at: Option<Timestamp>,
    /// About how many requests it came with.
    pub uses: i64,
    /// How many seconds it was made for; for good without.
    pub lifetime: Option<f64>,
}

/// A token to be stored.
#[derive(Debug)]
pub struct New<'a> {
    /// What people call it.
    pub name: &'a str,
    /// What is stored of it.
    pub hash: [u8; 32],
    /// What it allows.
    pub scopes: &'a str,
    /// By whom it is made.
    pub created_by: Option<&'a str>,
    /// How many seconds it lives; for good without.
    pub seconds: Option<f64>,
}

impl Listed {
    fn of(row: &Row) -> Result<Self, StoreError> {
        Ok(Self {
            id: row.try_get(0)?,
            name: row.try_get(1)?,
            scopes: row.try_get(2)?,
            created_at: row.try_get(3)?,
            created_by: row.try_get(4)?,
            expires_at: row.try_get(5)?,
            revoked_at: row.try_get(6)?,
            revoked_by: row.try_get(7)?,
            last_used_at: row.try_get(8)?,
            uses: row.try_get(9)?,
            lifetime: row.try_get(10)?,
        })
    }
}

static GET: DbOperation = DbOperation::new("get", "tokens");
static COUNT_USES: DbOperation = DbOperation::new("count_uses", "tokens");
/// Reading and changing tokens for those who manage them.
pub static MANAGE: DbOperation = DbOperation::new("manage", "tokens");

/// Looks for the token with this hash.
///
/// # Errors
/// The pool's.
pub async fn find(pool: &Pool, hash: &[u8; 32]) -> Result<Found, StoreError> {
    let rows = pool.read(&GET, FIND, &[&hash.as_slice()]).await?;
    let row = rows.first().ok_or_else(|| StoreError::unavailable("the generation of tokens has no row"))?;
    let id: Option<Uuid> = row.try_get(1)?;
    let token = match id {
        None => None,
        Some(id) => Some(Known {
            id,
            hash: row.try_get(2)?,
            scopes: row.try_get(3)?,
            expires_at: row.try_get(4)?,
            is_revoked: row.try_get(5)?,
        }),
    };
    Ok(Found { generation: row.try_get(0)?, token })
}

/// Stores a token.
///
/// # Errors
/// The database's.
pub async fn insert(client: &impl GenericClient, new: &New<'_>) -> Result<Listed, StoreError> {
    let New { name, hash, scopes, created_by, seconds } = new;
    let id = Uuid::now_v7();
    let sql = format!("{INSERT}{COLUMNS}");
    let row = client.query_one(&sql, &[&id, name, &hash.as_slice(), scopes, created_by, seconds]).await?;
    Listed::of(&row)
}

/// All tokens, the oldest first.
///
/// # Errors
/// The database's.
pub async fn list(client: &impl GenericClient) -> Result<Vec<Listed>, StoreError> {
    client.query(&format!("select{COLUMNS}{LIST}"), &[]).await?.iter().map(Listed::of).collect()
}

/// The token with this id, locked until the end of the transaction.
///
/// # Errors
/// The database's.
pub async fn one(client: &impl GenericClient, id: Uuid) -> Result<Option<Listed>, StoreError> {
    client.query_opt(&format!("select{COLUMNS}{ONE}"), &[&id]).await?.as_ref().map(Listed::of).transpose()
}

/// Revokes a token; nothing when there is none.
///
/// # Errors
/// The database's.
pub async fn revoke(client: &impl GenericClient, id: Uuid, by: Option<&str>) -> Result<Option<Listed>, StoreError> {
    client.query_opt(&format!("{REVOKE}{COLUMNS}"), &[&id, &by]).await?.as_ref().map(Listed::of).transpose()
}

/// Lets a token end after so many seconds.
///
/// # Errors
/// The database's.
pub async fn end_soon(client: &impl GenericClient, id: Uuid, seconds: f64) -> Result<(), StoreError> {
    client.execute(END_SOON, &[&id, &seconds]).await?;
    Ok(())
}

/// Adds to how often tokens were used; each list has an entry for each of them.
///
/// # Errors
/// The pool's.
pub async fn count(pool: &Pool, ids: &[Uuid], uses: &[i64], at: &[Timestamp]) -> Result<(), StoreError> {
    pool.write(&COUNT_USES, COUNT, &[&ids, &uses, &at]).await?;
    Ok(())
}
