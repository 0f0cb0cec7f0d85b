//! One connection: sends one request after the other and records the answers.

use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::answer::Answer;
use crate::connection::{Connection, Failure};
use crate::counts::{Counts, write_line, write_violation};
use crate::operation::{Kind, Operation, Outcome};
use crate::random::Random;
use crate::resource::{RESOURCES, Resource};
use crate::row::{Row, View};
use crate::rows::{Rows, Turn};

/// Otherwise refusals would be all that is measured while a fault lasts.
const PAUSE: Duration = Duration::from_millis(50);
/// Per cent of the changes that have `If-Match` with the version that was seen last.
const CONDITIONAL: usize = 70;

/// The methods, of a thousand requests; the rest of them are PATCH. Of rows without restores few are deleted, because
/// nothing more happens to them.
const READS: usize = 350;
const PUTS: usize = 300;
const DELETES: usize = 2;
const RESTORABLE_DELETES: usize = 40;
const RESTORES: usize = 50;

pub struct Client {
    rows: Arc<Rows>,
    connection: Connection,
    random: Random,
    counts: Counts,
}

/// A request, and what it means for the row.
struct Request {
    kind: Kind,
    method: &'static str,
    /// Appended to the path of the row.
    suffix: &'static str,
    content_type: &'static str,
    body: String,
    name: Option<String>,
    expected: Option<String>,
    source: Option<String>,
}

impl Client {
    pub fn new(rows: Arc<Rows>, port: u16, seed: u64) -> Self {
        Client { rows, connection: Connection::new(port), random: Random::new(seed), counts: Counts::default() }
    }

    /// Sends requests until the load ends, then finishes the remaining rows.
    pub fn run(mut self) -> Counts {
        while !self.rows.is_stopping() {
            let resource = RESOURCES[self.random.below(RESOURCES.len())];
            match self.rows.turn(resource, &mut self.random) {
                Turn::Create => self.create(resource),
                Turn::Act(row) => self.act(&row),
                Turn::Wait => std::thread::sleep(PAUSE),
            }
        }
        while let Some(row) = self.rows.take() {
            if row.retire() {
                self.finish(&row);
            }
        }
        self.counts
    }

    fn create(&mut self, resource: Resource) {
        let number = self.rows.number();
        let name = format!("row {number}");
        let request = Request { name: Some(name), ..Request::json(Kind::Create, "POST", resource.body("row", number)) };
        let (operation, uuid) = self.send(resource, resource.path(), None, request);
        let row = uuid.map(|uuid| {
            let is_restorable = number.is_multiple_of(self.rows.limits.restorable_every);
            Row::new(resource, uuid, number, is_restorable, operation)
        });
        self.rows.created(resource, row);
    }

    fn act(&mut self, row: &Arc<Row>) {
        let Some(view) = row.begin(self.random.below(1 << 30)) else { return };
        let request = self.choose(row, view);
        let (operation, _) = self.send(row.resource, &row.path(), Some(&row.uuid), request);
        let next = row.end(operation, self.rows.limits.operations);
        if next.is_retired {
            self.rows.remove(row);
        }
        if next.is_last {
            self.finish(row);
        }
    }

    fn choose(&mut self, row: &Row, view: View) -> Request {
        let resource = row.resource;
        let (deletes, restores) = if row.is_restorable { (RESTORABLE_DELETES, RESTORES) } else { (DELETES, 0) };
        let dice = self.random.below(1000);
        if dice < READS {
            return Request::new(Kind::Read, "GET");
        }
        let expected = self.random.percent(CONDITIONAL).then(|| view.seen.clone());
        if dice < READS + restores {
            return self.restore(view, expected);
        }
        if dice < READS + restores + deletes {
            return Request { expected, ..Request::new(Kind::Delete, "DELETE") };
        }
        let number = self.rows.number();
        if dice < READS + restores + deletes + PUTS {
            let put = Request::json(Kind::Write, "PUT", resource.body("put", number));
            return Request { name: Some(format!("put {number}")), expected, ..put };
        }
        let patch = Request::json(Kind::Write, "PATCH", resource.patch("patch", number));
        let content_type = "application/merge-patch+json";
        Request { name: Some(format!("patch {number}")), content_type, expected, ..patch }
    }

    /// Restores a deleted row as it was, or any row to an earlier version.
    fn restore(&mut self, view: View, expected: Option<String>) -> Request {
        let suffix = "/restore";
        if view.is_deleted && self.random.percent(CONDITIONAL) {
            return Request { suffix, ..Request::json(Kind::Restore, "POST", "{}".to_owned()) };
        }
        let body = format!(r#"{{"version":{}}}"#, view.earlier.trim_matches('"'));
        Request { suffix, expected, source: Some(view.earlier), ..Request::json(Kind::Restore, "POST", body) }
    }

    /// Reads a row to which nothing more is sent until that is answered, and writes its history.
    fn finish(&mut self, row: &Row) {
        loop {
            let (operation, _) = self.send(row.resource, &row.path(), Some(&row.uuid), Request::new(Kind::Read, "GET"));
            let outcome = operation.outcome;
            row.add(operation);
            if matches!(outcome, Outcome::Done | Outcome::NotFound) || self.rows.is_over() {
                return write_line(&row.line(self.rows.start));
            }
        }
    }

    /// The operation and, if it is done and the answer is a row, its uuid. `uuid` is the one that is expected.
    fn send(
        &mut self,
        resource: Resource,
        path: &str,
        uuid: Option<&str>,
        request: Request,
    ) -> (Operation, Option<String>) {
        let Request { kind, method, suffix, content_type, body, name, expected, source } = request;
        let content_type = header("Content-Type", (!body.is_empty()).then_some(content_type));
        let condition = header("If-Match", expected.as_deref());
        let head = format!("{method} {path}{suffix} HTTP/1.1\r\n{content_type}{condition}");
        self.counts.requests += 1;
        let begun = Instant::now();
        let answer = self.connection.request(&head, &body);
        let ended = Instant::now();
        let outcome = self.outcome(&answer, kind);
        let mut operation = Operation { kind, begun, ended, outcome, version: None, name, expected, source };
        let mut answered = None;
        if let Ok(answer) = answer
            && outcome == Outcome::Done
            && kind != Kind::Delete
        {
            let row: Value = serde_json::from_slice(&answer.body).unwrap_or_default();
            check(resource, path, uuid, &operation, &row);
            operation.name = row["name"].as_str().map(str::to_owned);
            operation.version = answer.etag;
            answered = row["uuid"].as_str().map(str::to_owned);
        }
        (operation, answered)
    }

    fn outcome(&mut self, answer: &Result<Answer, Failure>, kind: Kind) -> Outcome {
        let answer = match answer {
            Ok(answer) => answer,
            Err(Failure::NotSent) => {
                self.counts.not_sent += 1;
                std::thread::sleep(PAUSE);
                return Outcome::NotDone;
            }
            Err(Failure::Lost) => {
                self.counts.lost += 1;
                return Outcome::Unknown;
            }
        };
        *self.counts.statuses.entry(answer.status).or_default() += 1;
        let verdict = answer.verdict(kind == Kind::Read, kind == Kind::Restore);
        if let Some(text) = verdict.malformed {
            write_violation("errors", &text);
        }
        if let Some(failure) = verdict.failure {
            *self.counts.failures.entry(failure).or_default() += 1;
            std::thread::sleep(PAUSE);
        }
        verdict.outcome
    }
}

impl Request {
    fn new(kind: Kind, method: &'static str) -> Self {
        Request {
            kind,
            method,
            suffix: "",
            content_type: "application/json",
            body: String::new(),
            name: None,
            expected: None,
            source: None,
        }
    }

    fn json(kind: Kind, method: &'static str, body: String) -> Self {
        Request { body, ..Request::new(kind, method) }
    }
}

fn header(name: &str, value: Option<&str>) -> String {
    value.map_or(String::new(), |value| format!("{name}: {value}\r\n"))
}

/// The row in an answer must be the requested row and the result of one complete change.
fn check(resource: Resource, path: &str, uuid: Option<&str>, operation: &Operation, row: &Value) {
    let other = |expected: Option<&str>, member: &str| expected.is_some_and(|text| row[member].as_str() != Some(text));
    if other(operation.name.as_deref(), "name") || other(uuid, "uuid") {
        write_violation("mixed", &format!("requested {path} {:?}, answered {row}", operation.name));
    }
    if !resource.is_whole(row) {
        write_violation("partial", &format!("partial change: {row}"));
    }
}
