//! The current position in the primary's WAL: after everything that was committed before the query.
//!
//! The position is queried after a change has been committed, never inside its transaction, because the commit record comes
//! after every position read there. Concurrent callers share one query, which starts after all of them have called.

use super::error::StoreError;
use super::operation::DbOperation;
use super::pool::Pool;
use super::position::{Consistency, Position};
use super::single_flight::SingleFlight;

/// A commit that waits for the disk has its record before the end of the flushed WAL; one that does not, before the end of the
/// inserted WAL. The latter must not be used for both: a replica cannot have what the primary has not flushed.
pub(super) const POSITION: &str = "select ('x' || left(pg_walfile_name(lsn), 8))::bit(32)::int8, (lsn - '0/0'::pg_lsn)::int8 \
     from (select case current_setting('synchronous_commit') \
         when 'off' then pg_current_wal_insert_lsn() else pg_current_wal_flush_lsn() end) as log (lsn)";

static READ_POSITION: DbOperation = DbOperation::new("position", "wal");

/// Reads the position of the primary's WAL. Cheap to clone; clones share their queries.
#[derive(Clone)]
pub struct Positions {
    primary: Pool,
    reads: SingleFlight<(), (), Position>,
}

impl Positions {
    /// Uses the server of this pool.
    pub fn new(primary: Pool) -> Self {
        Self { primary, reads: SingleFlight::new("position") }
    }

    /// A position after everything that was committed before this call.
    ///
    /// # Errors
    /// The pool's.
    pub async fn now(&self) -> Result<Position, StoreError> {
        let primary = self.primary.clone();
        let read = move |()| {
            let primary = primary.clone();
            async move {
                let rows = primary.read(&READ_POSITION, POSITION, &[]).await?;
                let row = rows.first().ok_or(StoreError::Missing)?;
                position(row.try_get(0)?, row.try_get(1)?).ok_or(StoreError::unavailable("no position in the WAL"))
            }
        };
        self.reads.get((), (), read).await
    }

    /// The requirement of a read that must see everything that was committed before this call.
    pub async fn consistency(&self) -> Consistency {
        self.now().await.map_or(Consistency::Primary, Consistency::AtLeast)
    }
}

/// Converts PostgreSQL's numbers to a position.
pub(super) fn position(timeline: i64, lsn: i64) -> Option<Position> {
    Some(Position { timeline: timeline.try_into().ok()?, lsn: lsn.try_into().ok()? })
}
