//! Places in the log of a primary (WAL), and what a reader needs of a replica: how far it must have replayed that log.
//!
//! Positions of one cluster are ordered: a newer timeline begins where the one before was left, so what was committed before a
//! position and survived the promotion is there once a server has replayed up to it on the same timeline or a newer one.

use std::fmt;
use std::str::FromStr;

/// The text of [`Need::Primary`].
const PRIMARY: &str = "primary";

/// A place in the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Position {
    /// How often a primary of this cluster was promoted before, and one.
    pub timeline: u32,
    /// How many bytes of the log come before it (LSN).
    pub lsn: u64,
}

impl Position {
    /// Whether a server that has replayed up to here has all that was committed before the other one. A server on an older
    /// timeline never has: what it replayed since the promotion is another log.
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

/// What an answer must hold; the greater of two holds what both do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub enum Need {
    /// Nothing in particular: a replica may be behind by what the settings allow.
    #[default]
    Nothing,
    /// Everything that was committed before this position.
    At(Position),
    /// Everything: nobody but the primary has it for certain.
    Primary,
}

impl fmt::Display for Need {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Nothing => Ok(()),
            Self::At(position) => position.fmt(formatter),
            Self::Primary => formatter.write_str(PRIMARY),
        }
    }
}

impl FromStr for Need {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        if text == PRIMARY { Ok(Self::Primary) } else { text.parse().map(Self::At) }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_position_is_written_as_postgresql_writes_it_behind_its_timeline() {
        let position = Position { timeline: 3, lsn: 0x0000_0016_B374_8000 };
        assert_eq!(position.to_string(), "3:16/B3748000");
        for wrong in
            ["", "3", "3:", "3:1", "3:/1", "3:1/", "+3:0/1", "3:0x1/1", "3:100000000/0", "4294967296:0/0", "3:0/1 "]
        {
            assert!(wrong.parse::<Need>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn an_older_timeline_has_nothing_of_a_newer_one_however_far_it_went() {
        let at = |timeline, lsn| Position { timeline, lsn };
        assert!(at(1, 7).has(at(1, 7)) && at(2, 7).has(at(1, 7)));
        assert!(!at(1, 6).has(at(1, 7)) && !at(1, 9).has(at(2, 7)) && !at(2, 6).has(at(1, 7)));
        assert!(Need::Nothing < Need::At(at(1, 9)) && Need::At(at(1, 9)) < Need::At(at(2, 7)));
        assert!(Need::At(at(9, 9)) < Need::Primary);
    }

    proptest! {
        #[test]
        fn a_need_comes_back_as_it_was_written(timeline in any::<u32>(), lsn in any::<u64>()) {
            for need in [Need::At(Position { timeline, lsn }), Need::Primary] {
                prop_assert_eq!(need.to_string().parse(), Ok(need));
            }
        }

        #[test]
        fn any_text_can_be_parsed(text in ".{0,40}") {
            let _ = text.parse::<Need>();
        }
    }
}
