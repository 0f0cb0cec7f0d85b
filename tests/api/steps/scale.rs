//! Many steps: memory, connections and indexes.

use std::os::fd::OwnedFd;
use std::os::unix::net::UnixListener;
use std::process::{Child, Command, Stdio};

use reqwest::{Method, StatusCode};
use serde_json::Value;

use super::record;
use crate::harness::{Database, TestApp, eventually, send};

/// Steps of 50 components and 500 versions of each per million, seconds apart, with cyclic statuses.
///
/// The indexes are dropped and recreated as the migrations define them, which takes a third of the time.
async fn fill(database: &Database, count: i64) {
    let client = database.client().await;
    let indexes =
        "select indexname::text, indexdef from pg_indexes where tablename = 'steps' and indexname like 'steps\\_by%'";
    let indexes = client.query(indexes, &[]).await.expect("listed");
    assert_eq!(indexes.len(), 4);
    for index in &indexes {
        client.batch_execute(&format!("drop index {}", index.get::<_, &str>(0))).await.expect("dropped");
    }
    let sql = "insert into steps (ts, component, version, owner, status) \
               select timestamptz '2026-01-01 00:00:00Z' + n * interval '7 seconds', 'component-' || n % 50, \
                      '1.' || n / 2000, 'owner-' || n % 11, 'status-' || n / 50 % 10 \
               from generate_series(1, $1::bigint) n";
    client.execute(sql, &[&count]).await.expect("inserted");
    for index in &indexes {
        client.batch_execute(index.get(1)).await.expect("made again");
    }
    client.batch_execute("vacuum analyze steps").await.expect("as autovacuum would do it");
}

#[tokio::test]
async fn a_slow_reader_holds_no_connection() {
    let app = TestApp::start_with(&["--pool-size=1"]).await;
    fill(app.database.as_ref().expect("own database"), 200_000).await; // more than sockets buffer
    for path in ["/v1/steps", "/v1/steps/durations"] {
        let mut slow = app.request(Method::GET, path).send().await.expect("an answer");
        assert!(slow.chunk().await.expect("a piece").is_some());
        for _ in 0..20 {
            record(&app, ["zz", "1", "me", "build"]).await;
        }
        let mut bytes = 0;
        while let Some(piece) = slow.chunk().await.expect("the rest") {
            bytes += piece.len();
        }
        assert!(bytes > 10_000_000, "{bytes}");
    }
}

/// The program in its own process, whose memory can be measured.
struct Program {
    child: Child,
    client: reqwest::Client,
    _folder: tempfile::TempDir,
}

impl Program {
    fn start(database: &Database) -> Self {
        let folder = tempfile::tempdir().expect("a temporary directory");
        let path = folder.path().join("socket");
        let listener = UnixListener::bind(&path).expect("bound");
        let child = Command::new(env!("CARGO_BIN_EXE_pycrudapi"))
            .args(["serve", "--listen=fd:0", "--metrics-listen=off", "--seed=false", "--statement-timeout-ms=60000"])
            .env_clear()
            .env("DATABASE_URL", database.url())
            .env("LOG", "warn")
            .stdin(Stdio::from(OwnedFd::from(listener)))
            .spawn()
            .expect("the program runs");
        let client = reqwest::Client::builder().unix_socket(path).build().expect("a client");
        Self { child, client, _folder: folder }
    }

    fn get(&self, path: &str) -> reqwest::RequestBuilder {
        self.client.get(format!("http://localhost{path}"))
    }

    /// Reads a response without storing it; returns the number of occurrences of the byte, and its last bytes.
    async fn count(&self, path: &str, byte: u8) -> (usize, Vec<u8>) {
        let mut response = self.get(path).send().await.expect("an answer");
        assert_eq!(response.status(), StatusCode::OK);
        let (mut count, mut last) = (0, Vec::new());
        while let Some(piece) = response.chunk().await.expect("the whole body") {
            count += piece.iter().filter(|found| **found == byte).count();
            last.extend_from_slice(&piece[piece.len().saturating_sub(2)..]);
            last.drain(..last.len().saturating_sub(2));
        }
        (count, last)
    }

    /// The peak memory of the process, in KiB.
    fn peak_kib(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).expect("it runs");
        let line = status.lines().find(|line| line.starts_with("VmHWM:")).expect("Linux reports it");
        line.split_whitespace().nth(1).and_then(|kib| kib.parse().ok()).expect("a number")
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.child.kill(); // it may have exited
        let _ = self.child.wait();
    }
}

#[tokio::test]
async fn a_million_steps_are_exported_in_bounded_memory_and_through_indexes() {
    const COUNT: usize = 1_000_000;
    const GROWTH_MAX_KIB: u64 = 32 * 1024;
    let database = Database::migrated().await;
    fill(&database, i64::try_from(COUNT).expect("fits")).await;
    let built = scans(&database).await;
    let program = Program::start(&database);
    let small = program.count("/v1/steps?limit=1000", b'\n').await; // completes lazy initialisation
    assert_eq!(small.0, 1001);
    let before = program.peak_kib();
    assert_eq!(program.count("/v1/steps", b'\n').await, (COUNT + 1, b"\r\n".to_vec()));
    assert_eq!(program.count("/v1/steps/durations", b'}').await, (COUNT + 1, b"]}".to_vec()));
    let component = program.count("/v1/steps/durations?format=csv&component=component-7", b'\n').await;
    assert_eq!(component, (COUNT / 50 + 1, b"\r\n".to_vec()));
    let owner = program.count("/v1/steps?owner=owner-10&start_datetime=2026-02-01+00:00:00", b'\n').await;
    assert!(owner.0 > 10_000, "{owner:?}");
    let summary: Value =
        send(program.get("/v1/steps/durations?summary=true&limit=1")).await.expect(StatusCode::OK).json();
    let counts: i64 = summary["summary"].as_array().expect("rows").iter().filter_map(|row| row["count"].as_i64()).sum();
    assert_eq!(counts, i64::try_from(COUNT).expect("fits"));
    let growth = program.peak_kib().saturating_sub(before); // the kernel counts in batches per thread
    println!("memory grew by {growth} KiB from {before} KiB");
    assert!(growth < GROWTH_MAX_KIB, "{growth} KiB");

    // PostgreSQL's counters: every batch used an index, and no scan read the table from its start.
    drop(program);
    let (seq_scans, index_scans) = scans(&database).await;
    assert_eq!(seq_scans, built.0, "the table was scanned sequentially");
    assert!(index_scans - built.1 >= 2002, "{index_scans}");
}

/// The number of sequential and of index scans of the table, according to PostgreSQL. A connection's scans are counted before
/// it has ended.
async fn scans(database: &Database) -> (i64, i64) {
    let look = database.client().await;
    eventually(|| async {
        let others = "select count(*) from pg_stat_activity where datname = current_database() \
                      and backend_type = 'client backend' and pid <> pg_backend_pid()";
        let row = look.query_one(others, &[]).await.expect("counted");
        if row.get::<_, i64>(0) == 0 { Ok(()) } else { Err("another connection is open".to_owned()) }
    })
    .await;
    let sql = "select seq_scan, idx_scan from pg_stat_user_tables where relname = 'steps'";
    let row = look.query_one(sql, &[]).await.expect("counted");
    (row.get(0), row.get(1))
}
