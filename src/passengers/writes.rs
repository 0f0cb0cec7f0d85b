//! The statements that change passengers, each for many at once.
//!
//! Writes of a kind that arrive together share a statement (`db::batch`). A batch that the database undoes is retried row
//! by row, so one bad row never fails its neighbours. In one statement every key is distinct, because two changes of one
//! row would race; deletions need not be, for the second finds nothing. Each change draws a new version.

use bytes::Bytes;
use tokio_postgres::{Row, Transaction};
use uuid::Uuid;

use super::columns::{Columns, PatchColumns};
use super::model::Passenger;
use super::patch::Patch;
use super::store::{Stored, all_failed, passenger};
use crate::db::error::StoreError;
use crate::db::pool::Pool;
use crate::db::session::Param;
use crate::db::version::{Condition, Conditions};

const CREATE: &str = "insert into passengers (uuid, survived, passenger_class, name, sex, age, \
     siblings_or_spouses_aboard, parents_or_children_aboard, fare) values ($1, $2, $3, $4, $5, $6, $7, $8, $9) \
     returning uuid, version";

const CREATE_MANY: &str = "insert into passengers (uuid, survived, passenger_class, name, sex, age, \
     siblings_or_spouses_aboard, parents_or_children_aboard, fare) \
     select * from unnest($1::uuid[], $2::bool[], $3::int2[], $4::text[], $5::text[], $6::float8[], $7::int4[], \
     $8::int4[], $9::float8[]) returning uuid, version";

const REPLACE: &str = "update passengers set survived = $2, passenger_class = $3, name = $4, sex = $5, age = $6, \
     siblings_or_spouses_aboard = $7, parents_or_children_aboard = $8, fare = $9, \
     version = nextval('passengers_version_seq') where uuid = $1 \
     and ($10::int8[] is null or version = any($10)) and ($11::int8[] is null or version <> all($11)) \
     returning uuid, version";

const REPLACE_MANY: &str = "update passengers p set survived = d.survived, passenger_class = d.passenger_class, \
     name = d.name, sex = d.sex, age = d.age, siblings_or_spouses_aboard = d.siblings_or_spouses_aboard, \
     parents_or_children_aboard = d.parents_or_children_aboard, fare = d.fare, \
     version = nextval('passengers_version_seq') \
     from unnest($1::uuid[], $2::bool[], $3::int2[], $4::text[], $5::text[], $6::float8[], $7::int4[], $8::int4[], \
     $9::float8[], $10::text[], $11::text[]) as d (uuid, survived, passenger_class, name, sex, age, \
     siblings_or_spouses_aboard, parents_or_children_aboard, fare, required, refused) \
     where p.uuid = d.uuid and (d.required is null or p.version = any(d.required::int8[])) \
     and (d.refused is null or p.version <> all(d.refused::int8[])) returning p.uuid, p.version";

/// A null leaves the column as it is; only the age can be null, so it has a flag. Each change builds on the row as it is
/// at that moment, so that no concurrent change of another field is lost.
const PATCH_MANY: &str = "update passengers p set survived = coalesce(d.survived, p.survived), \
     passenger_class = coalesce(d.passenger_class, p.passenger_class), name = coalesce(d.name, p.name), \
     sex = coalesce(d.sex, p.sex), age = case when d.sets_age then d.age else p.age end, \
     siblings_or_spouses_aboard = coalesce(d.siblings_or_spouses_aboard, p.siblings_or_spouses_aboard), \
     parents_or_children_aboard = coalesce(d.parents_or_children_aboard, p.parents_or_children_aboard), \
     fare = coalesce(d.fare, p.fare), version = nextval('passengers_version_seq') \
     from unnest($1::uuid[], $2::bool[], $3::int2[], $4::text[], $5::text[], $6::bool[], $7::float8[], $8::int4[], \
     $9::int4[], $10::float8[], $11::text[], $12::text[]) as d (uuid, survived, passenger_class, name, sex, sets_age, \
     age, siblings_or_spouses_aboard, parents_or_children_aboard, fare, required, refused) \
     where p.uuid = d.uuid and (d.required is null or p.version = any(d.required::int8[])) \
     and (d.refused is null or p.version <> all(d.refused::int8[])) \
     returning p.uuid, p.survived, p.passenger_class, p.name, p.sex, p.age, p.siblings_or_spouses_aboard, \
     p.parents_or_children_aboard, p.fare, p.version";

const DELETE_MANY: &str = "delete from passengers p \
     using unnest($1::uuid[], $2::text[], $3::text[]) with ordinality as d (uuid, required, refused, place) \
     where p.uuid = d.uuid and (d.required is null or p.version = any(d.required::int8[])) \
     and (d.refused is null or p.version <> all(d.refused::int8[])) returning d.place";

const WHICH_EXIST: &str = "select uuid from passengers where uuid = any($1)";

/// A kind of write whose items become one statement.
pub trait Write: Sized + Send + Sync + 'static {
    /// The row that is written.
    fn uuid(&self) -> Uuid;

    /// What is asked of its version.
    fn condition(&self) -> &Condition;

    /// Runs the statement for items of distinct keys; a row, beginning with its key, for each that was written.
    fn run(pool: &Pool, items: &[Self]) -> impl Future<Output = Result<Vec<Row>, StoreError>> + Send;

    /// What was written, as the statement's row tells.
    ///
    /// # Errors
    /// [`StoreError::Internal`] when the row is not the statement's.
    fn stored(&self, row: &Row) -> Result<Stored, StoreError>;
}

/// A passenger to be stored anew.
pub struct Creation(pub Passenger<'static>);

impl Creation {
    /// Stores it as a part of somebody's transaction.
    ///
    /// # Errors
    /// The database's.
    pub async fn run_in(&self, transaction: &Transaction<'_>) -> Result<Stored, StoreError> {
        let row = transaction.query_one(CREATE, &params(&self.0, &self.0.details.sex.as_str())).await?;
        self.stored(&row)
    }
}

/// A passenger to be replaced.
pub struct Replacement {
    /// The new state under the old key.
    pub passenger: Passenger<'static>,
    /// What is asked of the old state.
    pub condition: Condition,
}

/// A passenger some of whose fields are to be set.
pub struct Amendment {
    /// Whose.
    pub uuid: Uuid,
    /// What to set.
    pub patch: Patch<'static>,
    /// What is asked of the old state.
    pub condition: Condition,
}

/// A passenger to be removed.
pub struct Removal {
    /// Whose.
    pub uuid: Uuid,
    /// What is asked of the state that is removed.
    pub condition: Condition,
}

impl Write for Creation {
    fn uuid(&self) -> Uuid {
        self.0.uuid
    }

    fn condition(&self) -> &Condition {
        &Condition::NONE
    }

    async fn run(pool: &Pool, items: &[Self]) -> Result<Vec<Row>, StoreError> {
        if let [Self(passenger)] = items {
            return pool.write(CREATE, &params(passenger, &passenger.details.sex.as_str())).await;
        }
        let columns = Columns::of(items.iter().map(|Self(passenger)| passenger));
        pool.write(CREATE_MANY, &columns.params()).await
    }

    fn stored(&self, row: &Row) -> Result<Stored, StoreError> {
        stored(&self.0, row)
    }
}

impl Write for Replacement {
    fn uuid(&self) -> Uuid {
        self.passenger.uuid
    }

    fn condition(&self) -> &Condition {
        &self.condition
    }

    async fn run(pool: &Pool, items: &[Self]) -> Result<Vec<Row>, StoreError> {
        if let [Self { passenger, condition: Condition { required, refused } }] = items {
            let sex = passenger.details.sex.as_str();
            let [uuid, survived, class, name, sex, age, siblings, parents, fare] = params(passenger, &sex);
            let params = [uuid, survived, class, name, sex, age, siblings, parents, fare, required, refused];
            return pool.write(REPLACE, &params).await;
        }
        let columns = Columns::of(items.iter().map(|item| &item.passenger));
        let conditions = Conditions::of(items.iter().map(Self::condition));
        pool.write(REPLACE_MANY, &[&columns.params()[..], &conditions.params()].concat()).await
    }

    fn stored(&self, row: &Row) -> Result<Stored, StoreError> {
        stored(&self.passenger, row)
    }
}

impl Write for Amendment {
    fn uuid(&self) -> Uuid {
        self.uuid
    }

    fn condition(&self) -> &Condition {
        &self.condition
    }

    async fn run(pool: &Pool, items: &[Self]) -> Result<Vec<Row>, StoreError> {
        let columns = PatchColumns::of(items.iter().map(|item| (item.uuid, &item.patch)));
        let conditions = Conditions::of(items.iter().map(Self::condition));
        pool.write(PATCH_MANY, &[&columns.params()[..], &conditions.params()].concat()).await
    }

    fn stored(&self, row: &Row) -> Result<Stored, StoreError> {
        Ok(Stored { document: document(&passenger(row)?), version: row.try_get(9)? })
    }
}

/// Writes items whose keys may repeat, in rounds in which they do not.
pub async fn write_many<W: Write>(pool: Pool, items: Vec<W>) -> Vec<Result<Stored, StoreError>> {
    let mut outcomes: Vec<Option<Result<Stored, StoreError>>> = items.iter().map(|_| None).collect();
    let mut waiting: Vec<(usize, W)> = items.into_iter().enumerate().collect();
    while !waiting.is_empty() {
        let mut keys = Vec::with_capacity(waiting.len());
        let (round, later): (Vec<_>, Vec<_>) = waiting.into_iter().partition(|(_, item)| {
            let is_new = !keys.contains(&item.uuid());
            keys.push(item.uuid());
            is_new
        });
        let (places, round): (Vec<usize>, Vec<W>) = round.into_iter().unzip();
        for (place, outcome) in places.into_iter().zip(write_distinct(&pool, &round).await) {
            outcomes[place] = Some(outcome);
        }
        waiting = later;
    }
    outcomes.into_iter().map(|outcome| outcome.expect("each item was in one round")).collect()
}

/// Stores new passengers, whose keys are always distinct.
pub async fn create_many(pool: Pool, items: Vec<Creation>) -> Vec<Result<Stored, StoreError>> {
    write_distinct(&pool, &items).await
}

/// Writes items of distinct keys in one statement, or one by one where the database undid that.
async fn write_distinct<W: Write>(pool: &Pool, items: &[W]) -> Vec<Result<Stored, StoreError>> {
    match W::run(pool, items).await {
        Ok(rows) => outcomes(pool, items, &rows).await,
        Err(error) if items.len() > 1 && error.is_rolled_back() => {
            let mut outcomes = Vec::with_capacity(items.len());
            for item in items {
                // One item is retried in no smaller part.
                outcomes.extend(Box::pin(write_distinct(pool, std::slice::from_ref(item))).await);
            }
            outcomes
        }
        Err(error) => all_failed(items.len(), &error),
    }
}

async fn outcomes<W: Write>(pool: &Pool, items: &[W], rows: &[Row]) -> Vec<Result<Stored, StoreError>> {
    // Sorted rather than hashed: most often there is one.
    let mut written: Vec<(Uuid, &Row)> = rows.iter().map(|row| (row.get(0), row)).collect();
    written.sort_unstable_by_key(|(uuid, _)| *uuid);
    let mut outcomes = Vec::with_capacity(items.len());
    for item in items {
        outcomes.push(match written.binary_search_by_key(&item.uuid(), |(uuid, _)| *uuid) {
            Ok(place) => item.stored(written[place].1),
            Err(_) => Err(StoreError::Missing),
        });
    }
    let stated = items.iter().map(|item| (item.uuid(), item.condition()));
    tell_stale_from_missing(pool, stated, &mut outcomes).await;
    outcomes
}

/// Removes passengers; of several removals of one that exists the first succeeds, as if they had come one after another.
pub async fn delete_many(pool: Pool, items: Vec<Removal>) -> Vec<Result<(), StoreError>> {
    let keys: Vec<Uuid> = items.iter().map(|item| item.uuid).collect();
    let conditions = Conditions::of(items.iter().map(|item| &item.condition));
    let rows = match pool.write(DELETE_MANY, &[&[&keys as Param<'_>], &conditions.params()[..]].concat()).await {
        Ok(rows) => rows,
        Err(error) => return all_failed(items.len(), &error),
    };
    let mut outcomes: Vec<Result<(), StoreError>> = items.iter().map(|_| Err(StoreError::Missing)).collect();
    for row in rows {
        let place: i64 = row.get(0); // counted from 1
        if let Some(outcome) = usize::try_from(place - 1).ok().and_then(|place| outcomes.get_mut(place)) {
            *outcome = Ok(());
        }
    }
    let stated = items.iter().map(|item| (item.uuid, &item.condition));
    tell_stale_from_missing(&pool, stated, &mut outcomes).await;
    outcomes
}

/// A write that met no row either found none or found one of another version. Looking afterwards is as good as at once:
/// what was stale and is gone by now is missing, and a version that was never right cannot become it.
async fn tell_stale_from_missing<'a, O>(
    pool: &Pool,
    items: impl Iterator<Item = (Uuid, &'a Condition)>,
    outcomes: &mut [Result<O, StoreError>],
) {
    if outcomes.iter().all(Result::is_ok) {
        return;
    }
    let unclear: Vec<(usize, Uuid)> = items
        .enumerate()
        .filter(|(place, (_, condition))| matches!(outcomes[*place], Err(StoreError::Missing)) && !condition.is_none())
        .map(|(place, (uuid, _))| (place, uuid))
        .collect();
    if unclear.is_empty() {
        return;
    }
    let keys: Vec<Uuid> = unclear.iter().map(|(_, uuid)| *uuid).collect();
    let existing = pool.read(WHICH_EXIST, &[&keys]).await;
    let existing: Result<Vec<Uuid>, StoreError> = existing.map(|rows| rows.iter().map(|row| row.get(0)).collect());
    for (place, uuid) in unclear {
        match &existing {
            Ok(existing) if existing.contains(&uuid) => outcomes[place] = Err(StoreError::Stale),
            Ok(_) => {}
            Err(error) => outcomes[place] = Err(error.clone()),
        }
    }
}

/// The parameters of the statements for one row; the sex as text, which somebody must own.
fn params<'a>(passenger: &'a Passenger<'_>, sex: &'a &'static str) -> [Param<'a>; 9] {
    let Passenger { uuid, details } = passenger;
    [
        uuid,
        &details.survived,
        &details.passenger_class,
        &details.name,
        sex,
        &details.age,
        &details.siblings_or_spouses_aboard,
        &details.parents_or_children_aboard,
        &details.fare,
    ]
}

/// What was just written, with the version that the statement's row tells; no trigger changes another column.
fn stored(passenger: &Passenger<'_>, row: &Row) -> Result<Stored, StoreError> {
    Ok(Stored { document: document(passenger), version: row.try_get(1)? })
}

fn document(passenger: &Passenger<'_>) -> Bytes {
    let mut buffer = Vec::with_capacity(Passenger::JSON_BYTES);
    passenger.write_json(&mut buffer);
    buffer.into()
}
