//! All SQL statements on API tokens.

use jiff::Timestamp;
use tokio_postgres::{GenericClient, Row};
use uuid::Uuid;

use crate::db::error::StoreError;
use crate::db::listen::Topic;
use crate::db::operation::DbOperation;
use crate::db::pool::Pool;

/// The notification of changes, and the value that is followed.
pub const CHANGES: Topic = Topic {
    listen: "listen api_tokens_changed",
    table: "api_tokens_generation",
    current: "select generation from api_tokens_generation",
};

/// Returns one row, even if there is no such token.
const FIND: &str = "select generation, id, hash, scopes, expires_at, revoked_at is not null \
     from api_tokens_generation left join api_tokens on hash = $1";

const INSERT: &str = "insert into api_tokens (id, name, hash, scopes, created_by, expires_at, lifetime) \
     values ($1, $2, $3, $4, $5, now() + make_interval(secs => $6), $6) returning";
const LIST: &str = "from api_tokens order by id";
const PAGE: &str = "from api_tokens where id > $1 order by id limit $2";
const ONE: &str = "from api_tokens where id = $1 for update";
/// A token that is already revoked stays unchanged.
const REVOKE: &str = "update api_tokens set revoked_at = coalesce(revoked_at, now()), \
     revoked_by = case when revoked_at is null then $2 else revoked_by end where id = $1 returning";
/// Lets a token expire after this many seconds, unless it expires earlier.
const END_SOON: &str = "update api_tokens set expires_at = least(expires_at, now() + make_interval(secs => $2)) \
     where id = $1 and revoked_at is null";

/// Locks rows in the order of their keys, as every statement does.
const COUNT: &str = "with used as materialized ( \
         select id, uses, at from unnest($1::uuid[], $2::bigint[], $3::timestamptz[]) as used (id, uses, at) \
     ), held as materialized ( \
         select id from api_tokens where id = any($1) order by id for update \
     ) update api_tokens as t set uses = t.uses + used.uses, last_used_at = greatest(t.last_used_at, used.at) \
     from held join used using (id) where t.id = held.id";

const COLUMNS: &str =
    " id, name, scopes, created_at, created_by, expires_at, revoked_at, revoked_by, last_used_at, uses, lifetime ";

/// The result of a lookup.
#[derive(Debug)]
pub struct Found {
    /// The generation of the token table that the result belongs to.
    pub generation: Uuid,
    /// The token, if there is one.
    pub token: Option<Known>,
}

/// A token as needed for authentication.
#[derive(Debug)]
pub struct Known {
    /// The id used in logs and history.
    pub id: Uuid,
    /// The stored hash.
    pub hash: Vec<u8>,
    /// The scopes, as stored.
    pub scopes: String,
    /// When it expires.
    pub expires_at: Option<Timestamp>,
    /// Whether it was revoked.
    pub is_revoked: bool,
}

/// A token as listed, without its secret.
#[derive(Debug, Clone, PartialEq)]
pub struct Listed {
    /// The id used in commands, logs and history.
    pub id: Uuid,
    /// The name for people.
    pub name: String,
    /// The permitted scopes.
    pub scopes: String,
    /// When it was created.
    pub created_at: Timestamp,
    /// The principal that created it; `None` if it was created with direct access to the database.
    pub created_by: Option<String>,
    /// When it expires.
    pub expires_at: Option<Timestamp>,
    /// When it was revoked.
    pub revoked_at: Option<Timestamp>,
    /// The principal that revoked it.
    pub revoked_by: Option<String>,
    /// Approximately when it was last used.
    pub last_used_at: Option<Timestamp>,
    /// The approximate number of requests made with it.
    pub uses: i64,
    /// Its lifetime in seconds; unlimited if `None`.
    pub lifetime: Option<f64>,
}

/// A token to be stored.
#[derive(Debug)]
pub struct New<'a> {
    /// The name for people.
    pub name: &'a str,
    /// The hash to store.
    pub hash: [u8; 32],
    /// The permitted scopes.
    pub scopes: &'a str,
    /// The principal that creates it.
    pub created_by: Option<&'a str>,
    /// The lifetime in seconds; unlimited if `None`.
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
/// Reading and changing tokens by administrators.
pub static MANAGE: DbOperation = DbOperation::new("manage", "tokens");

/// Finds the token with this hash.
///
/// # Errors
/// As the pool.
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
/// As the database.
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
/// As the database.
pub async fn list(client: &impl GenericClient) -> Result<Vec<Listed>, StoreError> {
    client.query(&format!("select{COLUMNS}{LIST}"), &[]).await?.iter().map(Listed::of).collect()
}

/// At most `limit` tokens with greater ids, the oldest first.
///
/// # Errors
/// As the database.
pub async fn page(client: &impl GenericClient, after: Uuid, limit: i64) -> Result<Vec<Listed>, StoreError> {
    client.query(&format!("select{COLUMNS}{PAGE}"), &[&after, &limit]).await?.iter().map(Listed::of).collect()
}

/// The token with this id, locked until the end of the transaction.
///
/// # Errors
/// As the database.
pub async fn one(client: &impl GenericClient, id: Uuid) -> Result<Option<Listed>, StoreError> {
    client.query_opt(&format!("select{COLUMNS}{ONE}"), &[&id]).await?.as_ref().map(Listed::of).transpose()
}

/// Revokes a token; `None` if there is no such token.
///
/// # Errors
/// As the database.
pub async fn revoke(client: &impl GenericClient, id: Uuid, by: Option<&str>) -> Result<Option<Listed>, StoreError> {
    client.query_opt(&format!("{REVOKE}{COLUMNS}"), &[&id, &by]).await?.as_ref().map(Listed::of).transpose()
}

/// Lets a token expire after this many seconds.
///
/// # Errors
/// As the database.
pub async fn end_soon(client: &impl GenericClient, id: Uuid, seconds: f64) -> Result<(), StoreError> {
    client.execute(END_SOON, &[&id, &seconds]).await?;
    Ok(())
}

/// Adds usage counts; the lists have one element per token.
///
/// # Errors
/// As the pool.
pub async fn count(pool: &Pool, ids: &[Uuid], uses: &[i64], at: &[Timestamp]) -> Result<(), StoreError> {
    pool.write(&COUNT_USES, COUNT, &[&ids, &uses, &at]).await?;
    Ok(())
}
