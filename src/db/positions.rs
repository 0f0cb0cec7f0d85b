//! Where the primary's log is now: after what was committed before it is asked.
//!
//! The position is asked for when a change has been answered, never inside of its transaction, whose commit record comes behind
//! every position that is read there. Who asks at the same time shares one look, which began after all of them had asked.

use super::error::StoreError;
use super::operation::DbOperation;
use super::pool::Pool;
use super::position::{Need, Position};
use super::single_flight::SingleFlight;

/// A commit that waits for the disk has its record before the end of what was flushed; one that does not, before the end of what
/// was inserted. The latter is no choice for both: a replica cannot have what the primary has not flushed.
pub(super) const POSITION: &str = "select ('x' || left(pg_walfile_name(lsn), 8))::bit(32)::int8, (lsn - '0/0'::pg_lsn)::int8 \
     from (select case current_setting('synchronous_commit') \
         when 'off' then pg_current_wal_insert_lsn() else pg_current_wal_flush_lsn() end) as log (lsn)";

static LOOK: DbOperation = DbOperation::new("position", "wal");

/// Looks at the primary's log. Cheap to clone; clones share their looks.
#[derive(Clone)]
pub struct Positions {
    primary: Pool,
    looks: SingleFlight<(), (), Position>,
}

impl Positions {
    /// Of the server behind this pool.
    pub fn new(primary: Pool) -> Self {
        Self { primary, looks: SingleFlight::new("position") }
    }

    /// A position behind everything that was committed before this call.
    ///
    /// # Errors
    /// The pool's.
    pub async fn now(&self) -> Result<Position, StoreError> {
        let primary = self.primary.clone();
        let read = move |()| {
            let primary = primary.clone();
            async move {
                let rows = primary.read(&LOOK, POSITION, &[]).await?;
                let row = rows.first().ok_or(StoreError::Missing)?;
                position(row.try_get(0)?, row.try_get(1)?).ok_or(StoreError::unavailable("no position in the log"))
            }
        };
        self.looks.get((), (), read).await
    }

    /// What an answer must hold to have everything that was committed before this call.
    pub async fn need(&self) -> Need {
        self.now().await.map_or(Need::Primary, Need::At)
    }
}

/// A position of the numbers that PostgreSQL tells.
pub(super) fn position(timeline: i64, lsn: i64) -> Option<Position> {
    Some(Position { timeline: timeline.try_into().ok()?, lsn: lsn.try_into().ok()? })
}
