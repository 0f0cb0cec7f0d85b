//! The program as a process: readers of its output, file descriptors, and the content of its log.

use std::fs::File;
use std::io::{BufRead, BufReader, PipeReader, PipeWriter, Read, Write};
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Instant;

use reqwest::{RequestBuilder, StatusCode};

use crate::harness::{Database, PATIENCE, eventually, passenger, send};
use crate::redis_server::free_port;

/// `pycrudapi serve` on a Unix socket with its own database.
struct Program {
    child: Child,
    client: reqwest::Client,
    metrics: String,
    socket: PathBuf,
    database: Database,
    _folder: tempfile::TempDir,
}

impl Program {
    /// Starts it through a shell command that ends in `exec "$0" "$@"`.
    async fn start_through(shell: &str, stderr: impl Into<Stdio>) -> Self {
        let database = Database::migrated().await;
        let folder = tempfile::tempdir().expect("a temporary directory");
        let socket = folder.path().join("socket");
        let metrics = format!("127.0.0.1:{}", free_port());
        let child = Command::new("/bin/sh")
            .args(["-c", shell, env!("CARGO_BIN_EXE_pycrudapi"), "serve", "--seed=false"])
            .env_clear()
            .env("DATABASE_URL", database.url())
            .env("LISTEN", format!("unix:{}", socket.display()))
            .env("METRICS_LISTEN", &metrics)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(stderr)
            .spawn()
            .expect("the program runs");
        let client = reqwest::Client::builder().unix_socket(socket.clone()).build().expect("a client");
        let program = Self { child, client, metrics, socket, database, _folder: folder };
        eventually(|| async {
            let answer = program.get("/readyz").send().await.map_err(|error| error.to_string())?;
            if answer.status() == StatusCode::OK { Ok(()) } else { Err(answer.status().to_string()) }
        })
        .await;
        program
    }

    async fn start(stderr: impl Into<Stdio>) -> Self {
        Self::start_through(r#"exec "$0" "$@""#, stderr).await
    }

    fn get(&self, path: &str) -> RequestBuilder {
        self.client.get(format!("http://localhost{path}"))
    }

    async fn dropped(&self) -> u64 {
        let metrics = send(reqwest::Client::new().get(format!("http://{}/metrics", self.metrics))).await.body;
        let line = metrics.lines().find(|line| line.starts_with("log_lines_dropped_total "));
        let value = line.and_then(|line| line.rsplit(' ').next()?.parse().ok());
        value.unwrap_or_else(|| panic!("no counter in {metrics}"))
    }

    /// Sends SIGTERM and waits for the process to exit.
    fn stop(&mut self) -> ExitStatus {
        let term = Command::new("kill").arg(self.child.id().to_string()).status().expect("kill runs");
        assert!(term.success());
        let started = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().expect("it is our child") {
                return status;
            }
            assert!(started.elapsed() < PATIENCE, "it does not exit");
            std::thread::yield_now();
        }
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.child.kill(); // it may have exited
        let _ = self.child.wait();
    }
}

/// The lines of a log, in order.
struct Log(BufReader<PipeReader>);

impl Log {
    /// Reads up to a line that contains all these words, and returns it.
    fn await_line(&mut self, words: &[&str]) -> String {
        let mut line = String::new();
        loop {
            line.clear();
            assert!(self.0.read_line(&mut line).expect("UTF-8") > 0, "the log ended before a line with {words:?}");
            if words.iter().all(|word| line.contains(word)) {
                return line;
            }
        }
    }
}

fn field(line: &str, name: &str) -> u64 {
    let (_, rest) = line.split_once(&format!("{name}=")).unwrap_or_else(|| panic!("no {name} in {line}"));
    let digits = rest.split(|c: char| !c.is_ascii_digit()).next().unwrap_or_default();
    digits.parse().unwrap_or_else(|_| panic!("{name} is not a number in {line}"))
}

/// More lines than the pipe, the writer and the buffer can hold together.
async fn flood(program: &Program) -> u64 {
    const EACH: u64 = 1500;
    let one = || async {
        for _ in 0..EACH {
            send(program.get("/hello").header("x-request-id", "x".repeat(128))).await.expect(StatusCode::OK);
        }
    };
    futures_util::future::join_all((0..8).map(|_| one())).await;
    8 * EACH
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unread_log_blocks_nothing_and_later_reports_the_number_of_dropped_lines() {
    let (reader, writer) = std::io::pipe().expect("a pipe");
    let mut program = Program::start(writer).await;
    assert_eq!(program.dropped().await, 0);
    let asked = flood(&program).await;
    let dropped = program.dropped().await;
    assert!(dropped > 0 && dropped < asked, "{dropped}");
    let reading = tokio::task::spawn_blocking(move || {
        let mut log = Log(BufReader::new(reader));
        let told = log.await_line(&["WARN", "log lines were dropped"]);
        (log, told)
    });
    let (mut log, told) = reading.await.expect("no panic");
    assert!(field(&told, "dropped") >= dropped, "{told}");
    assert_eq!(field(&told, "dropped"), program.dropped().await, "{told}");
    send(program.get("/hello").header("x-request-id", "the-last")).await.expect(StatusCode::OK);
    assert!(program.stop().success());
    log.await_line(&["access: request", "the-last"]);
    log.await_line(&["stopped"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_blocked_log_does_not_prevent_shutdown() {
    let (_reader, writer) = std::io::pipe().expect("a pipe");
    let mut program = Program::start(writer).await;
    flood(&program).await;
    assert!(program.stop().success());
}

/// Produces every kind of log line: requests, and a failure.
async fn serves_without_a_log(program: &mut Program) {
    for _ in 0..100 {
        send(program.get("/hello")).await.expect(StatusCode::OK);
    }
    let mut client = program.database.client().await;
    let locked = client.transaction().await.expect("begun");
    locked.batch_execute("lock table passengers").await.expect("locked");
    let create = program.client.post("http://localhost/v1/passengers").json(&passenger());
    send(create).await.expect_problem(503, "unavailable"); // its statement passes the deadline, which is logged
    drop(locked);
    send(program.get("/v1/passengers")).await.expect(StatusCode::OK);
    assert!(program.dropped().await > 100);
    assert!(program.stop().success());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_whose_reader_is_closed_fails_no_request() {
    serves_without_a_log(&mut Program::start(closed()).await).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_on_a_full_disk_fails_no_request() {
    serves_without_a_log(&mut Program::start(full()).await).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_disconnects_before_the_response_is_logged_as_499() {
    let (reader, writer) = std::io::pipe().expect("a pipe");
    let program = Program::start(writer).await;
    let mut client = program.database.client().await;
    let locked = client.transaction().await.expect("begun");
    locked.batch_execute("lock table passengers").await.expect("locked");
    let mut leaving = std::os::unix::net::UnixStream::connect(&program.socket).expect("connected");
    let request = "GET /v1/passengers/01a21548-94e2-70a6-8022-431c67a12832 HTTP/1.1\r\nHost: localhost\r\n\r\n";
    leaving.write_all(request.as_bytes()).expect("written");
    drop(leaving);
    let reading = tokio::task::spawn_blocking(|| {
        Log(BufReader::new(reader)).await_line(&["access: request", "http.method=\"GET\"", "http.status=499"])
    });
    reading.await.expect("no panic");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_response_whose_client_disconnects_is_logged_as_truncated() {
    const LIST: &str = "http.route=\"/passengerlist\"";
    let (reader, writer) = std::io::pipe().expect("a pipe");
    let program = Program::start(writer).await;
    let fill = Command::new("/bin/sh")
        .args(["-c", r#""$0" generate --rows=50000 | "$0" import - >/dev/null"#, env!("CARGO_BIN_EXE_pycrudapi")])
        .env("DATABASE_URL", program.database.url())
        .status();
    assert!(fill.expect("it runs").success());
    let mut leaving = std::os::unix::net::UnixStream::connect(&program.socket).expect("connected");
    leaving.write_all(b"GET /passengerlist HTTP/1.1\r\nHost: localhost\r\n\r\n").expect("written");
    leaving.read_exact(&mut [0; 1000]).expect("the answer begins");
    drop(leaving);
    let (log, line) = next(Log(BufReader::new(reader)), LIST).await;
    assert!(line.contains("http.status=200") && line.contains("http.truncated=true"), "{line}");
    send(program.get("/passengerlist")).await.expect(StatusCode::OK);
    let (log, line) = next(log, LIST).await;
    assert!(line.contains("http.truncated=false"), "{line}");
    send(program.client.head("http://localhost/passengerlist")).await.expect(StatusCode::OK);
    let (_log, line) = next(log, LIST).await;
    assert!(line.contains("http.truncated=false"), "{line}");
}

/// The next log line that contains a word, without blocking the other tasks.
async fn next(mut log: Log, word: &'static str) -> (Log, String) {
    let reading = tokio::task::spawn_blocking(move || {
        let line = log.await_line(&[word]);
        (log, line)
    });
    reading.await.expect("no panic")
}

#[tokio::test(flavor = "multi_thread")]
async fn the_server_recovers_from_running_out_of_file_descriptors() {
    let (reader, writer) = std::io::pipe().expect("a pipe");
    let program = Program::start_through(r#"ulimit -n 48; exec "$0" "$@""#, writer).await;
    let connect = || std::os::unix::net::UnixStream::connect(&program.socket).expect("connected");
    let silent: Vec<_> = (0..64).map(|_| connect()).collect();
    let reading = tokio::task::spawn_blocking(move || {
        let mut log = Log(BufReader::new(reader));
        log.await_line(&["cannot accept a connection"]);
        log
    });
    let _log = reading.await.expect("no panic");
    drop(silent);
    let client = reqwest::Client::builder().unix_socket(program.socket.clone()).build().expect("a client");
    send(client.get("http://localhost/hello")).await.expect(StatusCode::OK);
}

/// Runs a subcommand and returns its exit status and its standard error.
fn run(arguments: &[&str], database_url: &str, stdout: impl Into<Stdio>) -> (ExitStatus, String) {
    let (mut reader, stderr) = std::io::pipe().expect("a pipe");
    let mut child = spawn(arguments, database_url, stdout, stderr);
    let mut said = String::new();
    reader.read_to_string(&mut said).expect("UTF-8");
    (child.wait().expect("it ends"), said)
}

fn spawn(arguments: &[&str], database_url: &str, stdout: impl Into<Stdio>, stderr: impl Into<Stdio>) -> Child {
    Command::new(env!("CARGO_BIN_EXE_pycrudapi"))
        .args(arguments)
        .env_clear()
        .env("DATABASE_URL", database_url)
        .stdin(File::open("data/passengers.csv").expect("it is in the repository"))
        .stdout(stdout)
        .stderr(stderr)
        .spawn()
        .expect("the program runs")
}

/// A pipe whose reader is closed.
fn closed() -> PipeWriter {
    std::io::pipe().expect("a pipe").1
}

fn full() -> File {
    File::options().write(true).open("/dev/full").expect("Linux has it")
}

#[tokio::test(flavor = "multi_thread")]
async fn subcommands_exit_silently_when_the_reader_of_their_output_is_closed() {
    let database = Database::migrated().await;
    for arguments in [&["import", "-"][..], &["migrate"], &["export"], &["generate", "--rows=100000"], &["openapi"]] {
        let (status, said) = run(arguments, &database.url(), closed());
        assert!(status.success(), "{arguments:?}: {status}: {said}");
        assert_eq!(said, "", "{arguments:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_fails_commands_that_output_data_but_not_completed_work() {
    let database = Database::migrated().await;
    for arguments in [&["import", "-"][..], &["migrate"]] {
        let (status, said) = run(arguments, &database.url(), full());
        assert!(status.success(), "{arguments:?}: {status}: {said}");
    }
    for arguments in [&["export"][..], &["generate", "--rows=100000"], &["openapi"]] {
        let (status, said) = run(arguments, &database.url(), full());
        assert_eq!(status.code(), Some(1), "{arguments:?}: {said}");
        assert!(said.contains("cannot write the output"), "{arguments:?}: {said}");
    }
}

#[test]
fn a_failure_sets_the_exit_status_even_if_standard_error_is_closed() {
    let nowhere = "postgres://nobody@127.0.0.1:1/none";
    for stderr in [Stdio::from(closed()), Stdio::from(full())] {
        let mut child = spawn(&["migrate"], nowhere, Stdio::null(), stderr);
        assert_eq!(child.wait().expect("it ends").code(), Some(1));
    }
}
