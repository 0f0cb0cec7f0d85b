//! The requests by result, and the lines of standard output.

use std::collections::BTreeMap;
use std::io::Write;

use serde_json::json;

#[derive(Default)]
pub struct Counts {
    pub requests: u64,
    pub not_sent: u64,
    pub lost: u64,
    pub statuses: BTreeMap<u16, u64>,
    /// Answers that do not report the row's state, by status and code.
    pub failures: BTreeMap<String, u64>,
}

impl Counts {
    pub fn add(&mut self, other: Counts) {
        self.requests += other.requests;
        self.not_sent += other.not_sent;
        self.lost += other.lost;
        for (status, count) in other.statuses {
            *self.statuses.entry(status).or_default() += count;
        }
        for (failure, count) in other.failures {
            *self.failures.entry(failure).or_default() += count;
        }
    }

    pub fn write(&self) {
        let statuses: BTreeMap<_, _> =
            self.statuses.iter().map(|(status, count)| (status.to_string(), count)).collect();
        let summary = json!({
            "requests": self.requests, "not sent": self.not_sent, "no answer": self.lost,
            "statuses": statuses, "failures": self.failures,
        });
        write_line(json!({"summary": summary}).to_string().as_bytes());
    }
}

/// Writes a line to standard output, and waits while its reader is busy. Without a reader the load has no purpose.
pub fn write_line(line: &[u8]) {
    let mut output = std::io::stdout().lock();
    if output.write_all(line).and_then(|()| output.write_all(b"\n")).and_then(|()| output.flush()).is_err() {
        std::process::exit(1);
    }
}

pub fn write_violation(topic: &str, text: &str) {
    write_line(json!({"violation": [topic, text]}).to_string().as_bytes());
}
