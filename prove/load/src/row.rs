//! A row that several connections change, and all operations on it.

use std::sync::{Mutex, MutexGuard};
use std::time::Instant;

use crate::operation::{Kind, Operation, Outcome};
use crate::resource::Resource;

/// Operations on a row after its deletion was seen, until it is retired.
const ABSENCES: u32 = 8;

pub struct Row {
    pub resource: Resource,
    pub uuid: String,
    /// Rows with restores are checked by search alone, which is slow, so most rows have none.
    pub is_restorable: bool,
    number: u64,
    state: Mutex<State>,
}

struct State {
    operations: Vec<Operation>,
    /// The version that an answer showed last.
    seen: String,
    /// All versions that answers have shown.
    versions: Vec<String>,
    is_deleted: bool,
    absences: u32,
    in_flight: u32,
    is_retired: bool,
}

/// What a connection knows of the row when it begins a request.
pub struct View {
    pub seen: String,
    pub is_deleted: bool,
    /// One of the versions that answers have shown, by a random number.
    pub earlier: String,
}

/// What follows from the end of an operation.
pub struct Next {
    /// The row must be replaced by another one.
    pub is_retired: bool,
    /// No further operation on it is in flight: it is read once more and written.
    pub is_last: bool,
}

impl Row {
    pub fn new(resource: Resource, uuid: String, number: u64, is_restorable: bool, created: Operation) -> Self {
        let seen = created.version.clone().unwrap_or_default();
        let state = State {
            operations: vec![created],
            versions: vec![seen.clone()],
            seen,
            is_deleted: false,
            absences: 0,
            in_flight: 0,
            is_retired: false,
        };
        Row { resource, uuid, is_restorable, number, state: Mutex::new(state) }
    }

    pub fn path(&self) -> String {
        format!("{}/{}", self.resource.path(), self.uuid)
    }

    /// Begins an operation; none if the row has been retired.
    pub fn begin(&self, random: usize) -> Option<View> {
        let mut state = self.lock();
        if state.is_retired {
            return None;
        }
        state.in_flight += 1;
        let earlier = state.versions[random % state.versions.len()].clone();
        Some(View { seen: state.seen.clone(), is_deleted: state.is_deleted, earlier })
    }

    /// Ends an operation that `begin` began.
    pub fn end(&self, operation: Operation, limit: usize) -> Next {
        let mut state = self.lock();
        state.in_flight -= 1;
        state.add(operation);
        let is_over = state.operations.len() >= limit || state.absences >= ABSENCES && !self.is_restorable;
        let is_retired = is_over && !state.is_retired;
        state.is_retired |= is_over;
        Next { is_retired, is_last: state.is_retired && state.in_flight == 0 }
    }

    /// Retires the row; whether no operation on it is in flight, so that the caller must write it.
    pub fn retire(&self) -> bool {
        let mut state = self.lock();
        let was_retired = std::mem::replace(&mut state.is_retired, true);
        !was_retired && state.in_flight == 0
    }

    /// Adds the final reads.
    pub fn add(&self, operation: Operation) {
        self.lock().add(operation);
    }

    /// The row and its history as a line of JSON.
    pub fn line(&self, start: Instant) -> Vec<u8> {
        let state = self.lock();
        let mut line = format!(r#"{{"row":{},"path":"{}","operations":["#, self.number, self.path()).into_bytes();
        for (number, operation) in state.operations.iter().enumerate() {
            if number > 0 {
                line.push(b',');
            }
            operation.write(&mut line, start);
        }
        line.extend_from_slice(b"]}");
        line
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no thread panics while it holds the lock")
    }
}

impl State {
    fn add(&mut self, operation: Operation) {
        let is_done = operation.outcome == Outcome::Done;
        if operation.outcome == Outcome::NotFound || operation.kind == Kind::Delete && is_done {
            self.is_deleted = true;
            self.absences += u32::from(operation.outcome == Outcome::NotFound);
        } else if is_done {
            self.is_deleted = false;
        }
        if is_done
            && let Some(version) = &operation.version
            && *version != self.seen
        {
            self.seen.clone_from(version);
            self.versions.push(version.clone());
        }
        self.operations.push(operation);
    }
}
