//! A shutdown loses no request on keep-alive connections: responses carry `Connection: close`, and the client closes first.

use std::path::{Path, PathBuf};

use pycrudapi::app::Listeners;
use pycrudapi::server::Drained;
use pycrudapi::server::access_log::AccessLog;
use pycrudapi::server::listener::{ListenAddr, Listener};
use pycrudapi::shutdown;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpStream, UnixStream};

use crate::harness::{Database, Settings, TestApp, eventually, passenger, with_roles};

/// Longer than any test: a shutdown that ends sooner did not wait for the grace period.
const NEVER: &[&str] = &["--drain-grace-ms=30000", "--drain-timeout-ms=30000"];

/// Sends a request on a connection and reads the response.
async fn exchange(stream: &mut (impl AsyncRead + AsyncWrite + Unpin), method: &str, path: &str, body: &str) -> String {
    let length = body.len();
    let request = format!(
        "{method} {path} HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: {length}\r\n\r\n{body}"
    );
    stream.write_all(request.as_bytes()).await.expect("sent");
    let mut read = Vec::new();
    loop {
        let text = String::from_utf8_lossy(&read).into_owned();
        if let Some((head, body)) = text.split_once("\r\n\r\n") {
            let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
            if body.len() >= length.expect("a length").parse::<usize>().expect("a number") {
                return text;
            }
        }
        assert_ne!(stream.read_buf(&mut read).await.expect("read"), 0, "closed under a request: {text}");
    }
}

#[track_caller]
fn expect(answer: &str, status: &str, says_close: bool) {
    assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{answer}");
    assert_eq!(answer.contains("\r\nconnection: close\r\n"), says_close, "{answer}");
}

async fn expect_end(mut stream: impl AsyncRead + Unpin) {
    assert_eq!(stream.read(&mut [0; 1]).await.expect("no reset"), 0, "more than one answer");
}

/// A keep-alive connection on which a request was answered.
async fn keep_alive_connection(app: &TestApp) -> TcpStream {
    let mut stream = TcpStream::connect(app.addr).await.expect("connected");
    expect(&exchange(&mut stream, "GET", "/hello", "").await, "200", false);
    stream
}

#[tokio::test]
async fn during_a_shutdown_a_keep_alive_connection_gets_one_more_response_with_connection_close() {
    let mut app = TestApp::start_with(NEVER).await;
    let (mut first, mut second) = (keep_alive_connection(&app).await, keep_alive_connection(&app).await);
    app.ask_to_stop();
    // It still accepts connections, fails readiness, and sends `Connection: close` with each response.
    eventually(|| async {
        let mut probe = TcpStream::connect(app.addr).await.expect("still accepting");
        let answer = exchange(&mut probe, "GET", "/readyz?exclude=postgres", "").await;
        if answer.contains("\r\nconnection: close\r\n") { Ok(()) } else { Err(answer) }
    })
    .await;
    let mut late = TcpStream::connect(app.addr).await.expect("still accepting");
    expect(&exchange(&mut late, "GET", "/readyz?exclude=postgres", "").await, "503", true);
    expect_end(late).await;
    expect(&exchange(&mut first, "POST", "/v1/passengers", &passenger().to_string()).await, "201", true);
    expect_end(first).await;
    expect(&exchange(&mut second, "POST", "/v1/passengers", &passenger().to_string()).await, "201", true);
    expect_end(second).await;
    // No client is left that has not received `Connection: close`.
    assert_eq!(app.stop().await, Drained::Whole);
    TcpStream::connect(app.addr).await.expect_err("the listener is closed");
}

#[tokio::test]
async fn an_idle_connection_is_kept_until_its_client_closes_it_or_the_grace_ends() {
    let mut app = TestApp::start_with(NEVER).await;
    let mut idle = keep_alive_connection(&app).await;
    app.ask_to_stop();
    let _ = idle.shutdown().await;
    assert_eq!(app.stop().await, Drained::Whole);

    let mut app = TestApp::start_with(&["--drain-grace-ms=50", "--drain-timeout-ms=30000"]).await;
    let idle = keep_alive_connection(&app).await;
    app.ask_to_stop();
    expect_end(idle).await;
    assert_eq!(app.stop().await, Drained::Whole);
}

/// A server on its own Unix socket.
struct OnSocket {
    path: PathBuf,
    trigger: shutdown::Trigger,
    finished: tokio::task::JoinHandle<Drained>,
}

impl OnSocket {
    async fn start(database: &Database, folder: &Path, flags: &[&str]) -> Self {
        let path = folder.join("s");
        let settings = Settings::parse(&[&["--seed=false"], flags].concat());
        let public = vec![Listener::bind(&ListenAddr::Unix(path.clone())).await.expect("bound")];
        let (trigger, shutdown) = shutdown::channel();
        let app = pycrudapi::app::App::start(
            (&settings.database, &settings.server),
            &with_roles(&database.conninfo()),
            crate::harness::resources(),
            Listeners { public, metrics: None, log: AccessLog::off() },
            &shutdown,
        )
        .await
        .expect("it starts");
        let finished = tokio::spawn(async { app.finished().await.expect("the database can be used") });
        Self { path, trigger, finished }
    }
}

#[tokio::test]
async fn connections_in_the_accept_queue_are_answered_when_the_socket_is_removed() {
    let (database, folder) = (Database::migrated().await, tempfile::tempdir().expect("a folder"));
    for _ in 0..20 {
        let server = OnSocket::start(&database, folder.path(), &["--drain-grace-ms=0"]).await;
        // Connects without pause, as nginx does, until the socket is gone: every established connection must be answered.
        let path = server.path.clone();
        let clients = tokio::spawn(async move {
            let mut asking = Vec::new();
            while let Ok(mut stream) = UnixStream::connect(&path).await {
                asking.push(tokio::spawn(async move { exchange(&mut stream, "GET", "/hello", "").await }));
            }
            futures_util::future::join_all(asking).await
        });
        let mut first = UnixStream::connect(&server.path).await.expect("connected");
        exchange(&mut first, "GET", "/hello", "").await;
        server.trigger.stop();
        let answers = clients.await.expect("no panic");
        assert!(!answers.is_empty());
        for answer in answers {
            assert!(answer.expect("answered").starts_with("HTTP/1.1 200 "));
        }
        assert_eq!(server.finished.await.expect("no panic"), Drained::Whole);
    }
}
