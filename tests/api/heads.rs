//! Request heads on the wire: targets that other servers accept are accepted, bodies are not altered, and unreadable requests
//! are answered with a problem that states the cause.

use reqwest::StatusCode;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::harness::{TestApp, passenger_with};

/// A response as received.
#[derive(Debug)]
struct Answer {
    status: u16,
    head: String,
    body: Vec<u8>,
}

impl Answer {
    #[track_caller]
    fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    /// Asserts a problem whose detail contains this text.
    #[track_caller]
    fn expect_problem(&self, status: u16, code: &str, says: &str) {
        assert_eq!(self.status, status, "{self:?}");
        assert!(self.head.contains("content-type: application/problem+json\r\n"), "{self:?}");
        for header in ["x-request-id: ", "cache-control: no-store", "x-content-type-options: nosniff", "date: "] {
            assert!(self.head.contains(header), "{header}: {self:?}");
        }
        let problem = self.json();
        assert_eq!((&problem["code"], &problem["status"]), (&json!(code), &json!(status)), "{problem}");
        assert!(problem["detail"].as_str().is_some_and(|detail| detail.contains(says)), "{problem}");
    }
}

/// A connection on which bytes are sent unchanged.
struct Connection {
    stream: TcpStream,
    read: Vec<u8>,
}

impl Connection {
    async fn to(app: &TestApp) -> Self {
        let stream = TcpStream::connect(app.addr).await.expect("connected");
        stream.set_nodelay(true).expect("set");
        Self { stream, read: Vec::new() }
    }

    async fn send(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).await.expect("sent");
    }

    /// Reads up to and including the end that the function finds.
    async fn until(&mut self, is_there: impl Fn(&[u8]) -> Option<usize>) -> Vec<u8> {
        loop {
            if let Some(length) = is_there(&self.read) {
                return self.read.drain(..length).collect();
            }
            let count = self.stream.read_buf(&mut self.read).await.expect("read");
            assert_ne!(count, 0, "the connection ended after {:?}", String::from_utf8_lossy(&self.read));
        }
    }

    /// The next response.
    async fn answer(&mut self) -> Answer {
        let end = |read: &[u8]| read.windows(4).position(|four| four == b"\r\n\r\n").map(|at| at + 4);
        let head = String::from_utf8(self.until(end).await).expect("ASCII").to_ascii_lowercase();
        let status = head[9..12].parse().expect("a status");
        let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
        let body = match length.map(|length| length.parse().expect("a number")) {
            Some(length) => self.until(|read| (read.len() >= length).then_some(length)).await,
            None => {
                let body = self.until(|read| read.ends_with(b"0\r\n\r\n").then_some(read.len())).await;
                let chunk = |text: &[u8]| text.windows(2).position(|two| two == b"\r\n").map(|at| at + 2);
                let first = chunk(&body).expect("a chunk");
                body[first..body.len() - 7].to_vec()
            }
        };
        Answer { status, head, body }
    }

    /// The last response of a connection, which is closed after it.
    async fn last(mut self) -> Answer {
        let answer = self.answer().await;
        assert_eq!(self.stream.read_buf(&mut self.read).await.expect("read"), 0, "{:?}", self.read);
        answer
    }
}

fn get(target: &str) -> Vec<u8> {
    format!("GET {target} HTTP/1.1\r\nHost: a\r\n\r\n").into_bytes()
}

fn post(body: &[u8]) -> Vec<u8> {
    let head = "POST /v1/passengers HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\n";
    [format!("{head}Content-Length: {}\r\n\r\n", body.len()).as_bytes(), body].concat()
}

fn post_in_chunks(body: &[u8]) -> Vec<u8> {
    let head = "POST /v1/passengers HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\n";
    let mut bytes = format!("{head}Transfer-Encoding: chunked\r\n\r\n").into_bytes();
    for chunk in body.chunks(11) {
        bytes.extend_from_slice(&[format!("{:X};a=\"b\"\r\n", chunk.len()).as_bytes(), chunk, b"\r\n"].concat());
    }
    bytes.extend_from_slice(b"0\r\nTrailer: \"<>\"\r\n\r\n");
    bytes
}

#[tokio::test]
async fn unescaped_characters_in_a_query_are_accepted() {
    let app = TestApp::start().await;
    for name in ["Abbott", "Smith, Mr. \"J\" <x>", "Smith", "Zoë#`"] {
        app.create(&passenger_with("name", name)).await;
    }
    let mut connection = Connection::to(&app).await;
    for (target, names) in [
        (r#"/v1/passengers?name=in.("Abbott","Smith")&select=name&order=name"#, &["Abbott", "Smith"][..]),
        (r#"/passengerlist?name=in.("Abbott","Smith")&select=name&order=name"#, &["Abbott", "Smith"]),
        (r#"/v1/passengers?or=(name.eq."Smith,%20Mr.%20\"J\"%20<x>")&select=name"#, &["Smith, Mr. \"J\" <x>"]),
        ("/v1/passengers?name=eq.Zoë#`&select=name", &["Zoë#`"]),
        ("/v1/passengers?name=like.*<*&select=name", &["Smith, Mr. \"J\" <x>"]),
    ] {
        connection.send(&get(target)).await;
        let answer = connection.answer().await;
        let expected: Vec<Value> = names.iter().map(|name| json!({"name": name})).collect();
        assert_eq!(answer.json(), json!(expected), "{target}");
    }
    let step = r#"POST /v1/steps?component="a<b>"&version=1&owner=o&status=s HTTP/1.1"#;
    connection.send(format!("{step}\r\nHost: a\r\nContent-Length: 0\r\n\r\n").as_bytes()).await;
    assert_eq!(connection.answer().await.json()["component"], "\"a<b>\"");
    connection.send(&get(r#"/v1/steps?component="a<b>"&format=json"#)).await;
    assert_eq!(connection.answer().await.json()["steps"][0]["component"], "\"a<b>\"");
    for (target, parameter) in [("/v1/air-quality?\"<a>\"=1", "\"<a>\""), ("/hello?`=1", "`")] {
        connection.send(&get(target)).await;
        assert_eq!(connection.answer().await.json()["errors"][0]["parameter"], parameter);
    }
}

#[tokio::test]
async fn bytes_that_are_not_utf_8_are_reported_with_their_parameter() {
    let app = TestApp::start().await;
    for (target, status, says) in [
        (&b"/v1/passengers?name=eq.\xff"[..], 400, "name is not percent-encoded UTF-8"),
        (b"/v1/steps?owner=%FF", 400, "owner is not percent-encoded UTF-8"),
        (b"/v1/air-quality?entity=\xff", 400, "entity is not percent-encoded UTF-8"),
        (b"/v1/passengers/\xff", 400, "uuid"),
        (b"/\xff<>`", 404, "nothing is served"),
    ] {
        let mut connection = Connection::to(&app).await;
        connection.send(&[b"GET ", target, b" HTTP/1.1\r\nHost: a\r\n\r\n"].concat()).await;
        let answer = connection.answer().await;
        assert_eq!(answer.status, status, "{answer:?}");
        assert!(answer.json()["detail"].as_str().is_some_and(|detail| detail.contains(says)), "{answer:?}");
    }
}

#[tokio::test]
async fn bodies_are_not_altered_wherever_reads_split_them() {
    let app = TestApp::start().await;
    // If the body were altered or parsed as a head, the name would change.
    let name = "GET /\"<>`#é HTTP/1.1\r\n\r\n\"";
    let body = passenger_with("name", name).to_string();
    let spaced = format!("\r\n\r\n{body}\r\n\r\n");
    let mut requests = Vec::new();
    let mut expected = Vec::new();
    for body in [body.as_bytes(), spaced.as_bytes()] {
        for request in [post(body), post_in_chunks(body), [b"\r\n".to_vec(), post(body)].concat()] {
            requests.push(request);
            expected.push(Some(name));
            requests.push(get("/v1/passengers?name=like.*\"<>`*&limit=1&select=name"));
            expected.push(None);
        }
    }
    let whole = requests.concat();
    for piece in [1, 7, 61, 150, whole.len()] {
        let mut connection = Connection::to(&app).await;
        let (mut reading, mut writing) = connection.stream.into_split();
        let sending = async {
            for piece in whole.chunks(piece) {
                writing.write_all(piece).await.expect("sent");
                tokio::task::yield_now().await;
            }
        };
        let mut answers = Vec::new();
        let receiving = async {
            while answers.windows(9).filter(|nine| nine == b"HTTP/1.1 ").count() < requests.len()
                || !answers.ends_with(b"]")
            {
                assert_ne!(reading.read_buf(&mut answers).await.expect("read"), 0);
            }
        };
        tokio::join!(sending, receiving);
        connection = Connection::to(&app).await;
        connection.read = answers;
        for (request, expected) in requests.iter().zip(&expected) {
            let answer = connection.answer().await;
            let shown = String::from_utf8_lossy(request);
            match expected {
                Some(name) => {
                    assert_eq!(answer.status, 201, "{shown}: {answer:?}");
                    assert_eq!(answer.json()["name"], *name, "{piece} {shown}");
                }
                None => assert_eq!(answer.json(), json!([{"name": name}]), "{piece} {shown}"),
            }
        }
        assert!(connection.read.is_empty(), "{:?}", String::from_utf8_lossy(&connection.read));
    }
}

#[tokio::test]
async fn a_target_without_a_path_is_a_problem_and_the_connection_stays_open() {
    let app = TestApp::start().await;
    let mut connection = Connection::to(&app).await;
    for line in ["CONNECT localhost:80", "GET localhost:80"] {
        connection.send(format!("{line} HTTP/1.1\r\nHost: localhost\r\n\r\n").as_bytes()).await;
        connection.answer().await.expect_problem(400, "bad-request", "must be a path");
    }
    connection.send(&get("/hello")).await;
    assert_eq!(connection.answer().await.status, 200);
}

#[tokio::test]
async fn an_unreadable_request_is_a_problem_that_states_the_cause() {
    let app = TestApp::start().await;
    let fields = |count| (0..count).map(|number| format!("X{number}: a\r\n")).collect::<String>();
    for (request, status, code, says) in [
        ("NONSENSE\r\n\r\n".to_owned(), 400, "bad-request", "a target and a version"),
        ("GET /a b HTTP/1.1\r\nHost: a\r\n\r\n".to_owned(), 400, "bad-request", "%20"),
        ("GET /a\x01 HTTP/1.1\r\nHost: a\r\n\r\n".to_owned(), 400, "bad-request", "control character"),
        ("G(T / HTTP/1.1\r\nHost: a\r\n\r\n".to_owned(), 400, "bad-request", "begin with a method"),
        ("GET / HTTP/9.9\r\nHost: a\r\n\r\n".to_owned(), 400, "bad-request", "HTTP version"),
        (
            "GET / HTTP/1.1\r\nHost: a\r\nX-One: a\x01b\r\n\r\n".to_owned(),
            400,
            "bad-request",
            "header X-One contains a control",
        ),
        (
            "GET / HTTP/1.1\r\nHost: a\r\nX-Two: a\x7fb\r\n\r\n".to_owned(),
            400,
            "bad-request",
            "header X-Two contains a control",
        ),
        ("GET / HTTP/1.1\r\nHost: a\r\nbad name: a\r\n\r\n".to_owned(), 400, "bad-request", "header field 2"),
        ("GET / HTTP/1.1\r\nHost: a\r\nno colon\r\n\r\n".to_owned(), 400, "bad-request", "header field 2"),
        ("GET / HTTP/1.1\r\nContent-Length: x\r\n\r\n".to_owned(), 400, "bad-request", "Content-Length"),
        ("GET / HTTP/1.1\r\nTransfer-Encoding: gzip\r\n\r\n".to_owned(), 400, "bad-request", "Transfer-Encoding"),
        (
            "POST / HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n".to_owned(),
            400,
            "bad-request",
            "Content-Length must be given once",
        ),
        ("POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n".to_owned(), 400, "bad-request", "requires HTTP/1.1"),
        (format!("GET / HTTP/1.1\r\n{}\r\n", fields(101)), 431, "headers-too-large", "100 header fields"),
        (format!("GET / HTTP/1.1\r\nX: {}\r\n\r\n", "a".repeat(200_000)), 431, "headers-too-large", "64 KiB"),
        ("\x16\x03\x01\x02\x00\x01\x00\r\n\r\n".to_owned(), 400, "bad-request", "TLS"),
    ] {
        let mut connection = Connection::to(&app).await;
        connection.send(request.as_bytes()).await;
        connection.last().await.expect_problem(status, code, says);
        // The result is the same after another response on the connection.
        let mut connection = Connection::to(&app).await;
        connection.send(&[get("/hello"), post(b"{}"), request.into_bytes()].concat()).await;
        assert_eq!(connection.answer().await.status, 200);
        assert_eq!(connection.answer().await.status, 422);
        connection.last().await.expect_problem(status, code, says);
    }
    let mut connection = Connection::to(&app).await;
    connection.send(b"HEAD / HTTP/1.1\r\nHost: a\r\nX: \x01\r\n\r\n").await;
    let head = connection.until(|read| read.ends_with(b"\r\n\r\n").then_some(read.len())).await;
    assert!(head.starts_with(b"HTTP/1.1 400"));
    assert_eq!(connection.stream.read_buf(&mut connection.read).await.expect("read"), 0, "a HEAD has no body");
    let metrics = format!("http://{}/metrics", app.metrics_addr);
    let metrics = app.client.get(metrics).send().await.expect("metrics").text().await.expect("text");
    assert!(metrics.contains("http_route=\"malformed\""), "{metrics}");
}

#[tokio::test]
async fn a_hundred_header_fields_are_accepted_and_a_refusal_is_received_despite_an_unread_body() {
    let app = TestApp::start().await;
    let fields: String = (0..99).map(|number| format!("X{number}: a\r\n")).collect();
    let mut connection = Connection::to(&app).await;
    connection.send(format!("GET /hello HTTP/1.1\r\nHost: a\r\n{fields}\r\n").as_bytes()).await;
    assert_eq!(connection.answer().await.status, StatusCode::OK.as_u16());
    let head = format!("POST /v1/passengers HTTP/1.1\r\nX: \x01\r\nContent-Length: {}\r\n\r\n", 1 << 20);
    let mut connection = Connection::to(&app).await;
    connection.send(head.as_bytes()).await;
    connection.send(&vec![b' '; 1 << 20]).await;
    let answer = connection.answer().await;
    answer.expect_problem(400, "bad-request", "header X contains a control character");
}
