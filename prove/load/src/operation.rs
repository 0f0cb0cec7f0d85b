//! One request on a row, in the terms of prove/history.py.

use std::time::Instant;

#[derive(Clone, Copy, PartialEq)]
pub enum Kind {
    Create,
    Read,
    Write,
    Delete,
    Restore,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Outcome {
    /// Answered 2xx.
    Done,
    /// No answer, or one with an unknown outcome: applied at any time after its begin, or never.
    Unknown,
    /// Answered with an error that states that nothing was changed, or not sent.
    NotDone,
    PreconditionFailed,
    NotFound,
    /// A restore of a row that is not deleted.
    Conflict,
}

pub struct Operation {
    pub kind: Kind,
    pub begun: Instant,
    pub ended: Instant,
    pub outcome: Outcome,
    /// The version of the state that was read, or written according to the answer.
    pub version: Option<String>,
    /// The name that was written or read.
    pub name: Option<String>,
    /// The version in If-Match.
    pub expected: Option<String>,
    /// The version to restore; none for the state before the deletion.
    pub source: Option<String>,
}

impl Operation {
    /// Appends the operation as a JSON array; times are nanoseconds since `start`, and the end of an unknown one is null.
    pub fn write(&self, line: &mut Vec<u8>, start: Instant) {
        let nanoseconds = |time: Instant| time.duration_since(start).as_nanos() as u64;
        let ended = (self.outcome != Outcome::Unknown).then(|| nanoseconds(self.ended));
        let (version, name, expected, source) = (&self.version, &self.name, &self.expected, &self.source);
        let fields =
            (self.kind.word(), nanoseconds(self.begun), ended, self.outcome.word(), version, name, expected, source);
        serde_json::to_writer(line, &fields).expect("memory can be written");
    }
}

impl Kind {
    fn word(self) -> &'static str {
        match self {
            Kind::Create => "create",
            Kind::Read => "read",
            Kind::Write => "write",
            Kind::Delete => "delete",
            Kind::Restore => "restore",
        }
    }
}

impl Outcome {
    fn word(self) -> &'static str {
        match self {
            Outcome::Done => "done",
            Outcome::Unknown => "unknown",
            Outcome::NotDone => "not done",
            Outcome::PreconditionFailed => "precondition failed",
            Outcome::NotFound => "not found",
            Outcome::Conflict => "conflict",
        }
    }
}
