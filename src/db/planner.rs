//! How PostgreSQL plans the statements of a session, as settings of the session.

/// How PostgreSQL plans a statement.
///
/// A kept plan was made for the table as it was at that time: the cheapest plan for ten rows reads every row of a table that
/// has since grown to a hundred thousand. Statistics reflect the growth only after the table has been analysed. Therefore,
/// where one index is right at any size, the settings leave the planner no alternative, or it prefers that index among equals
/// because it is the newest. A dump restores indexes in a different order; because of such databases, plans are discarded when
/// they are older than a second. New plans use the table's actual size, which does not require statistics.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Planner {
    /// Through the index that finds the keys or provides the whole order: planned once, for any values.
    Keyed,
    /// Through the index that provides the order or its first columns: rows equal in these columns are sorted.
    Ordered,
    /// Depending on the values, the table's size and its statistics.
    Free,
}

impl Planner {
    /// The settings; each variant sets every setting that another variant sets, so that none of them persists.
    pub(super) const fn sql(self) -> &'static str {
        match self {
            Self::Keyed => {
                "discard plans; set plan_cache_mode = force_generic_plan; set enable_seqscan = off; \
                 set enable_bitmapscan = off; set enable_hashjoin = off; set enable_mergejoin = off; set enable_sort = off; \
                 set enable_incremental_sort = off; set jit = off"
            }
            Self::Ordered => {
                "discard plans; set plan_cache_mode = force_generic_plan; set enable_seqscan = off; \
                 set enable_bitmapscan = off; set enable_hashjoin = off; set enable_mergejoin = off; set enable_sort = off; \
                 reset enable_incremental_sort; set jit = off"
            }
            Self::Free => {
                "discard plans; reset plan_cache_mode; reset enable_seqscan; reset enable_bitmapscan; \
                 reset enable_hashjoin; reset enable_mergejoin; reset enable_sort; reset enable_incremental_sort; reset jit"
            }
        }
    }
}
