//! The statements that change passengers, each for many at once.
//!
//! Writes of a kind that arrive together share a statement (`db::batch`). A batch that the database undoes is retried row
//! by row, so one bad row never fails its neighbours. Each change draws a new version.
//!
//! Invariant: the keys of one statement ascend and are distinct. Two changes of one row would race; and every statement
//! that locks many rows locks them in the order of their keys, so no two of them wait for each other.

use bytes::Bytes;
use tokio_postgres::{Row, Transaction};
use uuid::Uuid;

use super::columns::{Columns, PatchColumns};
use super::model::Passenger;
use super::patch::MergePatch;
use super::rows::{Stored, all_failed, passenger};
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

/// What an array holds for the row at hand, by its key's place among the ascending keys in `$1`.
///
/// A join with `unnest` would do the same, in an order that the planner chooses. Without a join there is one way to go: an
/// index scan over the keys, which a b-tree takes in ascending order, and so are the rows locked.
macro_rules! own {
    ($array:literal) => {
        concat!("(", $array, ")[width_bucket(p.uuid, $1)]")
    };
}

/// The rows of the keys in `$1` that meet their conditions, which are two arrays of texts.
macro_rules! where_met {
    ($required:literal, $refused:literal) => {
        concat!(
            " where p.uuid = any($1::uuid[]) and (",
            own!($required),
            " is null or p.version = any(",
            own!($required),
            "::int8[])) and (",
            own!($refused),
            " is null or p.version <> all(",
            own!($refused),
            "::int8[])) "
        )
    };
}

const REPLACE_MANY: &str = concat!(
    "update passengers p set survived = ",
    own!("$2::bool[]"),
    ", passenger_class = ",
    own!("$3::int2[]"),
    ", name = ",
    own!("$4::text[]"),
    ", sex = ",
    own!("$5::text[]"),
    ", age = ",
    own!("$6::float8[]"),
    ", siblings_or_spouses_aboard = ",
    own!("$7::int4[]"),
    ", parents_or_children_aboard = ",
    own!("$8::int4[]"),
    ", fare = ",
    own!("$9::float8[]"),
    ", version = nextval('passengers_version_seq')",
    where_met!("$10::text[]", "$11::text[]"),
    "returning p.uuid, p.version"
);

/// A null leaves the column as it is; only the age can be null, so it has a flag. Each change builds on the row as it is
/// at that moment, so that no concurrent change of another field is lost.
const PATCH_MANY: &str = concat!(
    "update passengers p set survived = coalesce(",
    own!("$2::bool[]"),
    ", p.survived), passenger_class = coalesce(",
    own!("$3::int2[]"),
    ", p.passenger_class), name = coalesce(",
    own!("$4::text[]"),
    ", p.name), sex = coalesce(",
    own!("$5::text[]"),
    ", p.sex), age = case when ",
    own!("$6::bool[]"),
    " then ",
    own!("$7::float8[]"),
    " else p.age end, siblings_or_spouses_aboard = coalesce(",
    own!("$8::int4[]"),
    ", p.siblings_or_spouses_aboard), parents_or_children_aboard = coalesce(",
    own!("$9::int4[]"),
    ", p.parents_or_children_aboard), fare = coalesce(",
    own!("$10::float8[]"),
    ", p.fare), version = nextval('passengers_version_seq')",
    where_met!("$11::text[]", "$12::text[]"),
    "returning p.uuid, p.survived, p.passenger_class, p.name, p.sex, p.age, p.siblings_or_spouses_aboard, \
     p.parents_or_children_aboard, p.fare, p.version"
);

const DELETE_MANY: &str =
    concat!("delete from passengers p", where_met!("$2::text[]", "$3::text[]"), "returning p.uuid");

const WHICH_EXIST: &str = "select uuid from passengers where uuid = any($1) order by uuid";

/// A kind of write whose items become one statement.
pub trait Write: Sized + Send + Sync + 'static {
    /// What is told of a row that was written.
    type Done: Send;

    /// Whether a row that was written is no longer there.
    const REMOVES: bool = false;

    /// The row that is written.
    fn uuid(&self) -> Uuid;

    /// What is asked of its version.
    fn condition(&self) -> &Condition;

    /// Runs the statement for items whose keys ascend; a row, beginning with its key, for each that was written.
    fn run(pool: &Pool, items: &[Self]) -> impl Future<Output = Result<Vec<Row>, StoreError>> + Send;

    /// What was written, as the statement's row tells.
    ///
    /// # Errors
    /// [`StoreError::Internal`] when the row is not the statement's.
    fn done(&self, row: &Row) -> Result<Self::Done, StoreError>;
}

/// A passenger to be stored anew.
pub struct Create(pub Passenger<'static>);

impl Create {
    /// Stores it as a part of somebody's transaction.
    ///
    /// # Errors
    /// The database's.
    pub async fn run_in(&self, transaction: &Transaction<'_>) -> Result<Stored, StoreError> {
        let row = transaction.query_one(CREATE, &params(&self.0, &self.0.details.sex.as_str())).await?;
        self.done(&row)
    }
}

/// A passenger to be replaced.
pub struct Replace {
    /// The new state under the old key.
    pub passenger: Passenger<'static>,
    /// What is asked of the old state.
    pub condition: Condition,
}

/// A passenger some of whose fields are to be set.
pub struct Patch {
    /// Whose.
    pub uuid: Uuid,
    /// What to set.
    pub patch: MergePatch<'static>,
    /// What is asked of the old state.
    pub condition: Condition,
}

/// A passenger to be removed.
pub struct Delete {
    /// Whose.
    pub uuid: Uuid,
    /// What is asked of the state that is removed.
    pub condition: Condition,
}

impl Write for Create {
    type Done = Stored;

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

    fn done(&self, row: &Row) -> Result<Stored, StoreError> {
        stored(&self.0, row)
    }
}

impl Write for Replace {
    type Done = Stored;

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

    fn done(&self, row: &Row) -> Result<Stored, StoreError> {
        stored(&self.passenger, row)
    }
}

impl Write for Patch {
    type Done = Stored;

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

    fn done(&self, row: &Row) -> Result<Stored, StoreError> {
        Ok(Stored { document: document(&passenger(row)?), version: row.try_get(9)? })
    }
}

impl Write for Delete {
    type Done = ();

    const REMOVES: bool = true;

    fn uuid(&self) -> Uuid {
        self.uuid
    }

    fn condition(&self) -> &Condition {
        &self.condition
    }

    async fn run(pool: &Pool, items: &[Self]) -> Result<Vec<Row>, StoreError> {
        let keys: Vec<Uuid> = items.iter().map(Self::uuid).collect();
        let conditions = Conditions::of(items.iter().map(Self::condition));
        pool.write(DELETE_MANY, &[&[&keys as Param<'_>], &conditions.params()[..]].concat()).await
    }

    fn done(&self, _row: &Row) -> Result<(), StoreError> {
        Ok(())
    }
}

/// Writes items whose keys may repeat, in rounds in which they do not: as if those of one key had come one after another.
pub async fn write_many<W: Write>(pool: Pool, items: Vec<W>) -> Vec<Result<W::Done, StoreError>> {
    let mut outcomes: Vec<Option<Result<W::Done, StoreError>>> = items.iter().map(|_| None).collect();
    let mut waiting: Vec<(usize, W)> = items.into_iter().enumerate().collect();
    waiting.sort_by_key(|(_, item)| item.uuid()); // keeps the order of those of one key
    while !waiting.is_empty() {
        let mut last = None;
        let (round, mut later): (Vec<_>, Vec<_>) =
            waiting.into_iter().partition(|(_, item)| last.replace(item.uuid()) != Some(item.uuid()));
        let (places, round): (Vec<usize>, Vec<W>) = round.into_iter().unzip();
        let mut gone = Vec::new();
        for ((place, item), outcome) in places.into_iter().zip(&round).zip(write_ascending(&pool, &round).await) {
            if matches!(outcome, Err(StoreError::Missing)) || W::REMOVES && outcome.is_ok() {
                gone.push(item.uuid());
            }
            outcomes[place] = Some(outcome);
        }
        later.retain(|(place, item)| {
            let is_gone = gone.binary_search(&item.uuid()).is_ok();
            if is_gone {
                outcomes[*place] = Some(Err(StoreError::Missing));
            }
            !is_gone
        });
        waiting = later;
    }
    outcomes.into_iter().map(|outcome| outcome.expect("each item was in one round, or of a key that is gone")).collect()
}

/// Writes items of ascending keys in one statement, or one by one where the database undid that.
async fn write_ascending<W: Write>(pool: &Pool, items: &[W]) -> Vec<Result<W::Done, StoreError>> {
    debug_assert!(items.is_sorted_by(|a, b| a.uuid() < b.uuid()), "keys ascend and are distinct");
    match W::run(pool, items).await {
        Ok(rows) => outcomes(pool, items, &rows).await,
        Err(error) if items.len() > 1 && error.is_rolled_back() => {
            let mut outcomes = Vec::with_capacity(items.len());
            for item in items {
                // One item is retried in no smaller part.
                outcomes.extend(Box::pin(write_ascending(pool, std::slice::from_ref(item))).await);
            }
            outcomes
        }
        Err(error) => all_failed(items.len(), &error),
    }
}

async fn outcomes<W: Write>(pool: &Pool, items: &[W], rows: &[Row]) -> Vec<Result<W::Done, StoreError>> {
    // Sorted rather than hashed: most often there is one.
    let mut written: Vec<(Uuid, &Row)> = rows.iter().map(|row| (row.get(0), row)).collect();
    written.sort_unstable_by_key(|(uuid, _)| *uuid);
    let mut outcomes = Vec::with_capacity(items.len());
    for item in items {
        outcomes.push(match written.binary_search_by_key(&item.uuid(), |(uuid, _)| *uuid) {
            Ok(place) => item.done(written[place].1),
            Err(_) => Err(StoreError::Missing),
        });
    }
    tell_stale_from_missing(pool, items, &mut outcomes).await;
    outcomes
}

/// A write that met no row either found none or found one of another version. Looking afterwards is as good as at once:
/// what was stale and is gone by now is missing, and a version that was never right cannot become it.
async fn tell_stale_from_missing<W: Write>(pool: &Pool, items: &[W], outcomes: &mut [Result<W::Done, StoreError>]) {
    let is_unclear =
        |place: usize, item: &W| matches!(outcomes[place], Err(StoreError::Missing)) && !item.condition().is_none();
    let unclear: Vec<(usize, Uuid)> = items
        .iter()
        .enumerate()
        .filter(|(place, item)| is_unclear(*place, item))
        .map(|(place, item)| (place, item.uuid()))
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
