//! Positions in a primary's WAL, and a reader's requirement: how far a replica must have replayed that WAL.
//!
//! Positions of one cluster are ordered: a new timeline begins where the previous one ended. What was committed before a
//! position and survived the promotion is therefore present on a server that has replayed up to that position on the same
//! timeline or a newer one.

use std::fmt;
use std::str::FromStr;

/// The text of [`Consistency::Primary`].
const PRIMARY: &str = "primary";

/// A position in the WAL.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Position {
    /// Timeline: one plus the number of earlier promotions in this cluster.
    pub timeline: u32,
    /// Number of bytes of WAL before the position (LSN).
    pub lsn: u64,
}

impl Position {
    /// Whether a server that has replayed up to this position has everything that was committed before the other one. A server
    /// on an older timeline never does: what it replayed after the promotion belongs to a different history.
    pub fn has(self, other: Self) -> bool {
        self.timeline >= other.timeline && self.lsn >= other.lsn
    }
}

impl fmt::Display for Position {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}:{:X}/{:X}", self.timeline, self.lsn >> 32, self.lsn & u64::from(u32::MAX))
    }
}

impl FromStr for Position {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let (timeline, lsn) = text.split_once(':').ok_or(())?;
        let (high, low) = lsn.split_once('/').ok_or(())?;
        let number = |text: &str, radix| {
            let is_number = (1..=10).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_hexdigit());
            if is_number { u32::from_str_radix(text, radix).map_err(|_| ()) } else { Err(()) }
        };
        let lsn = u64::from(number(high, 16)?) << 32 | u64::from(number(low, 16)?);
        Ok(Self { timeline: number(timeline, 10)?, lsn })
    }
}

/// What a read must include; the greater of two includes both.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub enum Consistency {
    /// No requirement: a replica may lag by as much as the settings allow.
    #[default]
    Eventual,
    /// Everything that was committed before this position.
    AtLeast(Position),
    /// Everything: only the primary is certain to have it.
    Primary,
}

impl fmt::Display for Consistency {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Eventual => Ok(()),
            Self::AtLeast(position) => position.fmt(formatter),
            Self::Primary => formatter.write_str(PRIMARY),
        }
    }
}

impl FromStr for Consistency {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        if text == PRIMARY { Ok(Self::Primary) } else { text.parse().map(Self::AtLeast) }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_position_is_formatted_as_its_timeline_and_postgresqls_lsn() {
        let position = Position { timeline: 3, lsn: 0x0000_0016_B374_8000 };
        assert_eq!(position.to_string(), "3:16/B3748000");
        for wrong in
            ["", "3", "3:", "3:1", "3:/1", "3:1/", "+3:0/1", "3:0x1/1", "3:100000000/0", "4294967296:0/0", "3:0/1 "]
        {
            assert!(wrong.parse::<Consistency>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn an_older_timeline_never_includes_a_position_on_a_newer_one() {
        let at = |timeline, lsn| Position { timeline, lsn };
        assert!(at(1, 7).has(at(1, 7)) && at(2, 7).has(at(1, 7)));
        assert!(!at(1, 6).has(at(1, 7)) && !at(1, 9).has(at(2, 7)) && !at(2, 6).has(at(1, 7)));
        assert!(
            Consistency::Eventual < Consistency::AtLeast(at(1, 9))
                && Consistency::AtLeast(at(1, 9)) < Consistency::AtLeast(at(2, 7))
        );
        assert!(Consistency::AtLeast(at(9, 9)) < Consistency::Primary);
    }

    proptest! {
        #[test]
        fn a_consistency_round_trips(timeline in any::<u32>(), lsn in any::<u64>()) {
            for consistency in [Consistency::AtLeast(Position { timeline, lsn }), Consistency::Primary] {
                prop_assert_eq!(consistency.to_string().parse(), Ok(consistency));
            }
        }

        #[test]
        fn parsing_accepts_any_text_without_a_panic(text in ".{0,40}") {
            let _ = text.parse::<Consistency>();
        }
    }
}
