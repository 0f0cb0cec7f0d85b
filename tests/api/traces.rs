//! Traces as received by an OTLP collector: spans and their attributes, links, sampling, and collectors that do not respond.

use std::collections::{HashMap, HashSet};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use futures_util::future::join_all;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::any_value::Value as Any;
use opentelemetry_proto::tonic::trace::v1::Span;
use opentelemetry_proto::tonic::trace::v1::span::SpanKind;
use prost::Message;
use reqwest::header::HeaderMap;
use reqwest::{Method, StatusCode};
use tokio::sync::Semaphore;
use warp::Filter;

use crate::harness::{Answer, TestApp, eventually, passenger, send};

/// A trace started by a client, and the client's span.
const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
const CLIENT_SPAN: &str = "00f067aa0ba902b7";

/// The behaviour of a receiver.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Behaviour {
    Accepts,
    /// Sends no response and keeps the connection open.
    Hangs,
    /// 503 this many times, then it accepts.
    Busy(usize),
    Refuses,
}

/// A trace collector owned by the test.
struct Receiver {
    address: SocketAddr,
    got: Arc<Mutex<Vec<ExportTraceServiceRequest>>>,
    headers: Arc<Mutex<Vec<HeaderMap>>>,
    asked: Arc<AtomicUsize>,
}

impl Receiver {
    async fn start(behaviour: Behaviour) -> Self {
        let (got, headers, asked) = (Arc::<Mutex<Vec<_>>>::default(), Arc::<Mutex<Vec<_>>>::default(), Arc::default());
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("port 0 is free");
        let address = listener.local_addr().expect("bound");
        let receiver = Self { address, got, headers, asked };
        let (got, headers, asked) = (receiver.got.clone(), receiver.headers.clone(), receiver.asked.clone());
        let never = Arc::new(Semaphore::new(0));
        let take = warp::path!("v1" / "traces")
            .and(warp::post())
            .and(warp::header::headers_cloned())
            .and(warp::body::bytes())
            .then(move |sent: HeaderMap, body: Bytes| {
                let (got, headers, never) = (got.clone(), headers.clone(), never.clone());
                let times = asked.fetch_add(1, Ordering::SeqCst);
                async move {
                    match behaviour {
                        Behaviour::Hangs => drop(never.acquire().await),
                        Behaviour::Busy(most) if times < most => return StatusCode::SERVICE_UNAVAILABLE,
                        Behaviour::Refuses => return StatusCode::BAD_REQUEST,
                        Behaviour::Accepts | Behaviour::Busy(_) => {}
                    }
                    let request = ExportTraceServiceRequest::decode(body).expect("OTLP");
                    headers.lock().expect("no panic").push(sent);
                    got.lock().expect("no panic").push(request);
                    StatusCode::OK
                }
            });
        tokio::spawn(warp::serve(take).incoming(listener).run());
        receiver
    }

    /// The flag for a server that exports to this collector.
    fn flag(&self) -> String {
        format!("--otel-exporter-otlp-endpoint=http://{}", self.address)
    }

    fn spans(&self) -> Vec<Span> {
        let got = self.got.lock().expect("no panic");
        let scopes = got.iter().flat_map(|request| &request.resource_spans).flat_map(|resource| &resource.scope_spans);
        scopes.flat_map(|scope| scope.spans.clone()).collect()
    }

    /// The server spans.
    fn servers(&self) -> Vec<Span> {
        self.spans().into_iter().filter(|span| span.kind == SpanKind::Server as i32).collect()
    }

    /// The client spans of database statements.
    fn clients(&self) -> Vec<Span> {
        self.spans().into_iter().filter(|span| span.kind == SpanKind::Client as i32).collect()
    }
}

/// A server that exports immediately unless the flags override it.
async fn traced(receiver: &Receiver, flags: &[&str]) -> TestApp {
    let endpoint = receiver.flag();
    TestApp::start_with(&[&[endpoint.as_str(), "--otel-bsp-schedule-delay=20"], flags].concat()).await
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn text(span: &Span, name: &str) -> Option<String> {
    let found = span.attributes.iter().find(|attribute| attribute.key == name)?;
    match found.value.as_ref()?.value.as_ref()? {
        Any::StringValue(text) => Some(text.clone()),
        Any::IntValue(number) => Some(number.to_string()),
        Any::ArrayValue(values) => match values.values.first()?.value.as_ref()? {
            Any::StringValue(text) => Some(text.clone()),
            _ => None,
        },
        _ => None,
    }
}

/// Sends a GET request with this traceparent.
async fn get_in_trace(app: &TestApp, path: &str, traceparent: &str) -> Answer {
    send(app.request(Method::GET, path).header("traceparent", traceparent)).await
}

/// Requirements of the semantic conventions (1.37) for an attribute: its name, its type, and whether it is required.
type Convention = (&'static str, char, bool);

const OF_SERVERS: &[Convention] = &[
    ("http.request.method", 's', true),
    ("http.request.method_original", 's', false),
    ("http.response.status_code", 'i', false),
    ("http.route", 's', false),
    ("url.path", 's', true),
    ("url.query", 's', false),
    ("url.scheme", 's', true),
    ("error.type", 's', false),
    ("server.address", 's', false),
    ("server.port", 'i', false),
    ("client.address", 's', false),
    ("network.protocol.version", 's', false),
    ("user_agent.original", 's', false),
    ("http.request.body.size", 'i', false),
    ("http.response.body.size", 'i', false),
    ("http.response.header.x-request-id", 'a', false),
    ("enduser.id", 's', false),
];

const OF_DATABASES: &[Convention] = &[
    ("db.system.name", 's', true),
    ("db.collection.name", 's', false),
    ("db.namespace", 's', false),
    ("db.operation.name", 's', false),
    ("db.query.text", 's', false),
    ("db.response.status_code", 's', false),
    ("error.type", 's', false),
    ("server.address", 's', false),
    ("server.port", 'i', false),
];

#[track_caller]
fn assert_follows(span: &Span, conventions: &[Convention]) {
    for attribute in &span.attributes {
        let known = conventions.iter().find(|(name, ..)| *name == attribute.key);
        let (name, kind, _) = known.unwrap_or_else(|| panic!("{} is not in the conventions", attribute.key));
        let found = match attribute.value.as_ref().and_then(|value| value.value.as_ref()) {
            Some(Any::StringValue(_)) => 's',
            Some(Any::IntValue(_)) => 'i',
            Some(Any::ArrayValue(_)) => 'a',
            other => panic!("{name} is {other:?}"),
        };
        assert_eq!(found, *kind, "{name}");
        assert_eq!(span.attributes.iter().filter(|other| other.key == *name).count(), 1, "{name}");
    }
    for (name, _, is_required) in conventions {
        assert!(!is_required || text(span, name).is_some(), "{name} is missing: {:?}", span.attributes);
    }
    assert!(span.end_time_unix_nano >= span.start_time_unix_nano);
}

#[tokio::test]
async fn a_request_is_a_span_and_its_statement_a_child_span() {
    let receiver = Receiver::start(Behaviour::Accepts).await;
    let app = traced(&receiver, &[]).await;
    let uuid = app.create(&passenger()).await;
    let answer = get_in_trace(&app, &format!("/v1/passengers/{uuid}"), &format!("00-{TRACE}-{CLIENT_SPAN}-01")).await;
    answer.expect(StatusCode::OK);
    let in_trace = |spans: Vec<Span>| spans.into_iter().find(|span| hex(&span.trace_id) == TRACE);
    let found = || async {
        let found = in_trace(receiver.servers()).zip(in_trace(receiver.clients()));
        found.map(drop).ok_or_else(|| "not there".to_owned())
    };
    eventually(found).await;
    let server = in_trace(receiver.servers()).expect("it is there");
    assert_eq!(server.name, "GET /v1/passengers/{uuid}");
    assert_eq!(hex(&server.parent_span_id), CLIENT_SPAN);
    assert_eq!(answer.header("traceparent"), format!("00-{TRACE}-{}-01", hex(&server.span_id)));
    assert_eq!(text(&server, "http.response.status_code").as_deref(), Some("200"));
    assert_eq!(text(&server, "http.response.header.x-request-id").as_deref(), Some(answer.header("x-request-id")));
    assert_eq!(text(&server, "url.path"), Some(format!("/v1/passengers/{uuid}")));
    assert!(server.status.is_none(), "{:?}", server.status);
    let statement = in_trace(receiver.clients()).expect("it is there");
    assert_eq!(statement.name, "get passengers");
    assert_eq!(statement.parent_span_id, server.span_id);
    assert_eq!(statement.links.len(), 1);
    assert_eq!(statement.links[0].span_id, server.span_id);
    assert_eq!(text(&statement, "db.operation.name").as_deref(), Some("get"));
    assert!(text(&statement, "db.query.text").expect("a text").starts_with("select "), "{statement:?}");
    assert!(statement.start_time_unix_nano >= server.start_time_unix_nano);
    assert!(statement.end_time_unix_nano <= server.end_time_unix_nano);
}

#[tokio::test]
async fn the_spans_of_every_kind_of_request_follow_the_semantic_conventions() {
    let receiver = Receiver::start(Behaviour::Accepts).await;
    let app =
        traced(&receiver, &["--auth=on", "--auth-anonymous-scopes=passengers:*,steps:read,air-quality:read"]).await;
    let uuid = app.create(&passenger()).await;
    let one = format!("/v1/passengers/{uuid}");
    for path in [
        one.as_str(),
        "/v1/passengers?limit=2&age=gt.3",
        "/v1/passengers/stats",
        "/passengerlist",
        "/v1/steps",
        "/v1/air-quality",
        "/readyz",
        "/nowhere",
        "/v1/passengers/7",
        &format!("{one}/history"),
    ] {
        app.get(path).await;
    }
    send(app.request(Method::PATCH, &one).json(&serde_json::json!({"age": 7}))).await.expect(StatusCode::OK);
    send(
        app.request(Method::POST, "/v1/passengers").json(&passenger()).header("idempotency-key", "a-key-of-this-test"),
    )
    .await
    .expect(StatusCode::CREATED);
    let many = serde_json::json!([passenger(), passenger()]);
    app.post("/v1/passengers", &many).await.expect(StatusCode::CREATED);
    send(app.request(Method::from_bytes(b"BREW").expect("a token"), "/hello")).await;
    send(app.request(Method::GET, &one).bearer_auth("a-secret-token")).await.expect(StatusCode::UNAUTHORIZED);
    app.delete(&one).await.expect(StatusCode::NO_CONTENT);
    eventually(|| async {
        let names: HashSet<String> = receiver.spans().into_iter().map(|span| span.name).collect();
        let expected = ["DELETE /v1/passengers/{uuid}", "HTTP /hello", "GET", "bulk passengers", "list steps"];
        let missing: Vec<_> = expected.iter().filter(|name| !names.contains(**name)).collect();
        if missing.is_empty() { Ok(()) } else { Err(format!("{missing:?} of {names:?}")) }
    })
    .await;
    receiver.servers().iter().for_each(|span| assert_follows(span, OF_SERVERS));
    receiver.clients().iter().for_each(|span| assert_follows(span, OF_DATABASES));
    assert!(!format!("{:?}", receiver.spans()).contains("a-secret-token"));
    let got = receiver.got.lock().expect("no panic");
    let resource = got[0].resource_spans[0].resource.as_ref().expect("a resource");
    let name = resource.attributes.iter().find(|attribute| attribute.key == "service.name").expect("a name");
    assert_eq!(
        name.value.as_ref().and_then(|value| value.value.clone()),
        Some(Any::StringValue("pycrudapi".to_owned()))
    );
}

#[tokio::test]
async fn credentials_in_unexpected_places_are_masked_in_spans() {
    const CREDENTIAL: &str = "eyJhbGciOiJQTEFOVEVEIn0.UExBTlRFRHBsYW50ZWRQTEFOVEVE.UExBTlRFRHNpZ25hdHVyZQ";
    let receiver = Receiver::start(Behaviour::Accepts).await;
    let app = traced(&receiver, &["--allowed-hosts=*"]).await;
    let request = app
        .request(Method::GET, &format!("/v1/passengers/{CREDENTIAL}?{CREDENTIAL}=1"))
        .header("user-agent", CREDENTIAL)
        .header("x-request-id", CREDENTIAL)
        .header("traceparent", format!("00-{TRACE}-{CLIENT_SPAN}-01"))
        .header("tracestate", format!("a={CREDENTIAL}"))
        .header("host", format!("{CREDENTIAL}.example"));
    send(request).await.expect(StatusCode::BAD_REQUEST);
    app.get("/?code=the-planted-code&state=1").await;
    eventually(|| async {
        let count = receiver.servers().len();
        if count == 2 { Ok(()) } else { Err(format!("{count} spans")) }
    })
    .await;
    let exported = format!("{:?}", receiver.spans());
    assert!(!exported.contains("UExBTlRFRHBsYW50ZWRQTEFOVEVE") && !exported.contains("the-planted-code"), "{exported}");
    let masked = receiver.servers().into_iter().filter_map(|span| text(&span, "user_agent.original"));
    assert_eq!(masked.collect::<Vec<_>>(), ["(masked)"]);
}

#[tokio::test]
async fn a_batched_statement_is_linked_to_each_of_its_requests() {
    let receiver = Receiver::start(Behaviour::Accepts).await;
    let app = traced(&receiver, &["--otel-bsp-max-queue-size=100000"]).await;
    let uuid = app.create(&passenger()).await;
    let path = format!("/v1/passengers/{uuid}");
    let asked = 200;
    for answer in join_all((0..asked).map(|_| app.get(&path))).await {
        answer.expect(StatusCode::OK);
    }
    let list = "/v1/passengers?limit=1";
    for answer in join_all((0..20).map(|_| app.get(list))).await {
        answer.expect(StatusCode::OK);
    }
    let named = |spans: Vec<Span>, name: &str| spans.into_iter().filter(|span| span.name == name).collect::<Vec<_>>();
    for (server, statement, count) in
        [("GET /v1/passengers/{uuid}", "get passengers", asked), ("GET /v1/passengers", "list passengers", 20)]
    {
        let links = || -> Vec<Vec<u8>> {
            let statements = named(receiver.clients(), statement);
            statements.into_iter().flat_map(|span| span.links).map(|link| link.span_id).collect()
        };
        eventually(|| async {
            let (requests, linked) = (named(receiver.servers(), server).len(), links().len());
            if requests == count && linked == count { Ok(()) } else { Err(format!("{requests} {linked}")) }
        })
        .await;
        let requests: HashSet<Vec<u8>> =
            named(receiver.servers(), server).into_iter().map(|span| span.span_id).collect();
        assert_eq!(
            links().into_iter().collect::<HashSet<_>>(),
            requests,
            "each request must be linked to one statement"
        );
    }
    let sizes = named(receiver.clients(), "get passengers").into_iter().map(|span| span.links.len());
    assert!(sizes.max().expect("one") > 1, "no statement was shared, so the test proves nothing");
}

#[tokio::test]
async fn only_statements_of_sampled_traces_carry_a_traceparent_comment() {
    let receiver = Receiver::start(Behaviour::Accepts).await;
    let app = traced(&receiver, &["--pool-size=2", "--list-pool-size=1"]).await;
    let uuid = app.create(&passenger()).await;
    let path = format!("/v1/passengers/{uuid}");
    let client = app.database.as_ref().expect("its own").client().await;
    let last = || async {
        let rows = client
            .query(
                "select query from pg_stat_activity where datname = current_database() and pid <> pg_backend_pid() \
                 and query ~ 'from \"?passengers\"? where uuid = any' and query ~ 'version'",
                &[],
            )
            .await
            .expect("listed");
        rows.iter().map(|row| row.get::<_, String>(0)).collect::<Vec<_>>().join("\n")
    };
    get_in_trace(&app, &path, &format!("00-{TRACE}-{CLIENT_SPAN}-01")).await.expect(StatusCode::OK);
    let said = last().await;
    eventually(|| async {
        let found = receiver.clients().into_iter().find(|span| hex(&span.trace_id) == TRACE);
        let span = found.ok_or_else(|| "not there".to_owned())?;
        let comment = format!("/*traceparent='00-{TRACE}-{}-01'*/", hex(&span.span_id));
        if said.ends_with(&comment) { Ok(()) } else { Err(format!("{comment} is not in {said}")) }
    })
    .await;
    let other = TRACE.replace('4', "5");
    get_in_trace(&app, &path, &format!("00-{other}-{CLIENT_SPAN}-00")).await.expect(StatusCode::OK);
    let said = last().await;
    assert!(!said.is_empty() && !said.contains("traceparent"), "{said}");
}

#[tokio::test]
async fn the_sampler_decides_which_traces_are_recorded() {
    let receiver = Receiver::start(Behaviour::Accepts).await;
    for (sampler, flags, is_recorded) in [
        ("parentbased_always_on", "00", false),
        ("parentbased_always_off", "01", true),
        ("parentbased_traceidratio", "01", true),
        ("always_on", "00", true),
        ("always_off", "01", false),
        ("traceidratio", "01", false),
    ] {
        let (sampler_flag, before) = (format!("--otel-traces-sampler={sampler}"), receiver.servers().len());
        let mut app = traced(&receiver, &[&sampler_flag, "--otel-traces-sampler-arg=0"]).await;
        let answer = get_in_trace(&app, "/hello", &format!("00-{TRACE}-{CLIENT_SPAN}-{flags}")).await;
        let expected = if is_recorded { "-01" } else { flags };
        assert!(answer.header("traceparent").ends_with(expected), "{sampler}: {:?}", answer.headers);
        app.stop().await; // exports the remaining spans
        assert_eq!(receiver.servers().len() - before, usize::from(is_recorded), "{sampler}");
    }
}

#[tokio::test]
async fn remaining_spans_are_exported_at_shutdown() {
    let receiver = Receiver::start(Behaviour::Accepts).await;
    let mut app = TestApp::start_with(&[&receiver.flag(), "--otel-bsp-schedule-delay=600000"]).await;
    for _ in 0..30 {
        app.get("/hello").await.expect(StatusCode::OK);
    }
    app.stop().await;
    assert_eq!(receiver.servers().len(), 30);
}

/// Exported and dropped spans so far, of every test in this process.
async fn counts(app: &TestApp) -> [f64; 2] {
    let text = send(app.client.get(format!("http://{}/metrics", app.metrics_addr))).await.body;
    ["otel_traces_exported_total", "otel_traces_dropped_total"].map(|name| {
        let line = text.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_else(|| panic!("no {name}"));
        line.trim().parse().expect("a number")
    })
}

#[tokio::test]
async fn an_unresponsive_or_unreachable_collector_delays_no_request_and_dropped_spans_are_counted() {
    let hanging = Receiver::start(Behaviour::Hangs).await;
    let refusing = Receiver::start(Behaviour::Refuses).await;
    let away = format!("--otel-exporter-otlp-endpoint=http://127.0.0.1:{}", crate::redis_server::free_port());
    for flag in [hanging.flag(), refusing.flag(), away] {
        let flags =
            ["--otel-bsp-max-queue-size=16", "--otel-bsp-schedule-delay=10", "--otel-exporter-otlp-timeout=60000"];
        let mut app = TestApp::start_with(&[&[flag.as_str()], &flags[..]].concat()).await;
        let [_, before] = counts(&app).await;
        for _ in 0..100 {
            app.get("/hello").await.expect(StatusCode::OK);
        }
        eventually(|| async {
            let [_, dropped] = counts(&app).await;
            if dropped - before >= 60.0 { Ok(()) } else { Err(format!("{flag}: {dropped} {before}")) }
        })
        .await;
        app.stop().await; // at the latest when the remaining spans are discarded
    }
}

#[tokio::test]
async fn a_temporarily_busy_collector_receives_every_span() {
    let receiver = Receiver::start(Behaviour::Busy(3)).await;
    let app = traced(&receiver, &[]).await;
    app.get("/hello").await.expect(StatusCode::OK);
    eventually(|| async {
        let spans = receiver.servers().len();
        if spans >= 1 { Ok(()) } else { Err("nothing".to_owned()) }
    })
    .await;
    assert!(receiver.asked.load(Ordering::SeqCst) > 3);
}

#[tokio::test]
async fn headers_are_sent_as_configured() {
    let receiver = Receiver::start(Behaviour::Accepts).await;
    let mut app = traced(&receiver, &["--otel-exporter-otlp-headers=api-key=a%20key,x-scope=mine"]).await;
    app.get("/hello").await.expect(StatusCode::OK);
    app.stop().await;
    let headers = receiver.headers.lock().expect("no panic");
    let sent: HashMap<&str, &str> =
        headers[0].iter().map(|(name, value)| (name.as_str(), value.to_str().expect("printable"))).collect();
    assert_eq!((sent["api-key"], sent["x-scope"], sent["content-type"]), ("a key", "mine", "application/x-protobuf"));
}
