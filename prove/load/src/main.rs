//! The load of the scenario `volume` of `make prove`: as many requests as the service answers, each recorded with its times.
//!
//!     prove-load [NAME=NUMBER…] PORT…
//!
//! `connections` to the ports in turn, each with one request at a time, change `rows` rows of each resource together. A row
//! is retired after `operations` requests and replaced by a new one; then its history is written to standard output as one
//! line. The process stops when its standard input ends: it reads each remaining row once more, writes its history, and at
//! last a summary. A reader of the lines that is slower than the load slows the load down, so memory stays bounded.
//!
//! Lines are JSON: `{"row":…}` (row.rs), `{"violation":[topic, text]}`, and at the end `{"summary":…}` (counts.rs).

mod answer;
mod client;
mod connection;
mod counts;
mod operation;
mod random;
mod resource;
mod row;
mod rows;

use std::io::Read;
use std::process::ExitCode;
use std::sync::Arc;

use client::Client;
use counts::Counts;
use rows::{Limits, Rows};

/// What the command line states.
struct Options {
    seed: u64,
    connections: usize,
    limits: Limits,
    ports: Vec<u16>,
}

impl Options {
    fn parse(words: impl Iterator<Item = String>) -> Result<Self, String> {
        let limits = Limits { rows: 30, operations: 400, restorable_every: 40 };
        let mut options = Options { seed: 0, connections: 96, limits, ports: Vec::new() };
        for word in words {
            let (name, number) = word.split_once('=').unwrap_or(("port", &word));
            let number: u64 = number.parse().map_err(|_| format!("{word}: expected a port or NAME=NUMBER"))?;
            match name {
                "seed" => options.seed = number,
                "connections" => options.connections = number as usize,
                "rows" => options.limits.rows = number as usize,
                "operations" => options.limits.operations = number as usize,
                "restorable_every" => options.limits.restorable_every = number.max(1),
                "port" => options.ports.push(u16::try_from(number).map_err(|_| format!("{word}: not a port"))?),
                _ => return Err(format!("{word}: no such parameter")),
            }
        }
        if options.ports.is_empty() { Err("no port is given".to_owned()) } else { Ok(options) }
    }
}

fn main() -> ExitCode {
    let options = match Options::parse(std::env::args().skip(1)) {
        Ok(options) => options,
        Err(fault) => {
            eprintln!("prove-load: {fault}");
            return ExitCode::from(2);
        }
    };
    let rows = Arc::new(Rows::new(options.limits));
    let threads: Vec<_> = (0..options.connections)
        .map(|number| {
            let port = options.ports[number % options.ports.len()];
            let client = Client::new(rows.clone(), port, options.seed.wrapping_mul(1 << 20) + number as u64);
            std::thread::spawn(move || client.run())
        })
        .collect();
    // Whatever is read is ignored; an error ends the input as well.
    let _ = std::io::stdin().read_to_end(&mut Vec::new());
    rows.stop();
    let mut counts = Counts::default();
    let mut failed = false;
    for thread in threads {
        match thread.join() {
            Ok(one) => counts.add(one),
            Err(_) => failed = true,
        }
    }
    counts.write();
    if failed { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}
