//! Starts the server in this process, on port 0, with a database owned by the test.
//!
//! One PostgreSQL serves the whole run, started by the server's own embedded module. Each test's database is cloned from a
//! migrated template and dropped with the test; databases left by a killed run are dropped by the next. `PG_BIN` names the
//! directory of other PostgreSQL binaries than the machine's.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use clap::builder::Resettable;
use clap::{CommandFactory, FromArgMatches, Parser};
use metrics_exporter_prometheus::PrometheusHandle;
use pycrudapi::app::error::AppError;
use pycrudapi::app::{App, Listeners};
use pycrudapi::config::{DatabaseConfig, ResourcesConfig, ServerConfig};
use pycrudapi::db::conninfo::ConnInfo;
use pycrudapi::db::embedded::{Embedded, Options};
use pycrudapi::db::operation::DbOperation;
use pycrudapi::db::{migrate, roles};
use pycrudapi::resource::registry::{self, Resources};
use pycrudapi::server::Drained;
use pycrudapi::server::access_log::AccessLog;
use pycrudapi::server::listener::{ListenAddr, Listener};
use pycrudapi::shutdown::{self, Trigger};
use pycrudapi::telemetry;
use reqwest::{Method, RequestBuilder, Response, StatusCode};
use serde_json::{Value, json};
use tokio::task::JoinHandle;
use tokio_postgres::Client;

/// Generous: only a condition that never becomes true takes this long.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// The operation of queries that a test runs directly on a pool.
pub static ASKED: DbOperation = DbOperation::new("ask", "tests");

const TEMPLATE: &str = "test_template";

/// Settings as the program parses them, without its environment.
#[derive(Debug, Parser)]
pub struct Settings {
    #[command(flatten)]
    pub database: DatabaseConfig,
    #[command(flatten)]
    pub resources: ResourcesConfig,
    #[command(flatten)]
    pub server: ServerConfig,
}

impl Settings {
    /// Parses flags such as `--pool-size=2`.
    pub fn parse(flags: &[&str]) -> Self {
        let command = Self::command().mut_args(|argument| argument.env(Resettable::Reset));
        let matches = command.try_get_matches_from(std::iter::once("test").chain(flags.iter().copied()));
        Self::from_arg_matches(&matches.expect("the flags are right")).expect("they were parsed")
    }
}

fn postgres() -> &'static Embedded {
    static POSTGRES: OnceLock<Embedded> = OnceLock::new();
    POSTGRES.get_or_init(|| {
        let pg_bin = std::env::var_os("PG_BIN").map(PathBuf::from);
        // A cluster belongs to one PostgreSQL version, so another version than the machine's has its own.
        let place = if pg_bin.is_some() { "api-pg-bin" } else { "api" };
        let options = Options {
            data_dir: PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(place),
            pg_bin,
            search_path: std::env::var_os("PATH"),
            extra_settings: vec![("max_connections".to_owned(), "300".to_owned())],
        };
        let embedded = Embedded::start(&options).expect("postgresql is installed");
        // The caller may be inside a runtime already; the preparation uses its own.
        let config = embedded.config();
        std::thread::spawn(move || block_on(prepare_template(config))).join().expect("the template is prepared");
        embedded
    })
}

fn block_on<F: Future>(work: F) -> F::Output {
    tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime").block_on(work)
}

async fn prepare_template(config: tokio_postgres::Config) {
    let client = connect(&config).await;
    let left =
        client.query("select datname from pg_database where datname like 'test\\_%'", &[]).await.expect("listed");
    for row in left {
        let name: &str = row.get(0);
        client.batch_execute(&format!("drop database {name} with (force)")).await.expect("dropped");
    }
    client.batch_execute(&format!("create database {TEMPLATE}")).await.expect("created");
    let template = ConnInfo::from_config(config.clone().dbname(TEMPLATE).clone()).expect("no TLS required");
    migrate::prepare(&with_roles(&template), &resources(), || ()).await.expect("migrated");
}

/// The built-in resources.
pub fn resources() -> Resources {
    static RESOURCES: OnceLock<Resources> = OnceLock::new();
    RESOURCES.get_or_init(|| registry::load(None, None).expect("the built-in descriptions are right"))
}

/// Requests use the least-privileged role and migrations the role of the connection, unless the test sets the roles.
pub fn with_roles(conninfo: &ConnInfo) -> ConnInfo {
    let conninfo = conninfo.clone();
    if conninfo.migrator.is_some() { conninfo } else { conninfo.with_request_role(roles::REQUESTS) }
}

async fn connect(config: &tokio_postgres::Config) -> Client {
    let conninfo = ConnInfo::from_config(config.clone()).expect("no TLS required");
    migrate::connect(&conninfo).await.expect("connected")
}

/// A database owned by the test.
pub struct Database {
    pub config: tokio_postgres::Config,
    name: String,
}

impl Database {
    /// Cloned from the migrated template: tables without rows.
    pub async fn migrated() -> Self {
        Self::create(&format!("template {TEMPLATE}")).await
    }

    /// Without any table.
    pub async fn empty() -> Self {
        Self::create("").await
    }

    async fn create(template: &str) -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let mut config = tokio::task::spawn_blocking(|| postgres().config()).await.expect("started");
        let name = format!("test_{}_{}", std::process::id(), NUMBER.fetch_add(1, Ordering::Relaxed));
        let client = connect(&config).await;
        client.batch_execute(&format!("create database {name} {template}")).await.expect("created");
        config.dbname(&name);
        Self { config, name }
    }

    /// A connection for observing the database.
    pub async fn client(&self) -> Client {
        connect(&self.config).await
    }

    pub fn conninfo(&self) -> ConnInfo {
        ConnInfo::from_config(self.config.clone()).expect("no TLS required")
    }

    /// The address in the form of `DATABASE_URL`.
    pub fn url(&self) -> String {
        let [tokio_postgres::config::Host::Unix(directory)] = self.config.get_hosts() else { panic!("one socket") };
        format!("host={} user=postgres dbname={}", directory.display(), self.name)
    }
}

impl Drop for Database {
    fn drop(&mut self) {
        let (config, name) = (postgres().config(), self.name.clone());
        let dropping = std::thread::spawn(move || {
            block_on(async {
                connect(&config).await.batch_execute(&format!("drop database {name} with (force)")).await
            })
        });
        let _ = dropping.join(); // a database that remains is dropped by the next run
    }
}

/// A running server; dropping it stops it.
pub struct TestApp {
    pub addr: SocketAddr,
    pub metrics_addr: SocketAddr,
    pub client: reqwest::Client,
    trigger: Trigger,
    finished: Option<JoinHandle<Result<Drained, AppError>>>,
    pub database: Option<Database>,
}

impl TestApp {
    /// Starts on an empty, migrated database.
    pub async fn start() -> Self {
        Self::start_with(&[]).await
    }

    /// The same with flags; nothing is seeded unless they enable it.
    pub async fn start_with(flags: &[&str]) -> Self {
        let database = Database::migrated().await;
        let mut app = Self::start_on(&database.conninfo(), flags).await;
        app.database = Some(database);
        app
    }

    /// Starts on a database owned by the test.
    pub async fn start_on(conninfo: &ConnInfo, flags: &[&str]) -> Self {
        Self::try_start_on(conninfo, flags).await.expect("the server starts")
    }

    pub async fn try_start_on(conninfo: &ConnInfo, flags: &[&str]) -> Result<Self, AppError> {
        static METRICS: OnceLock<PrometheusHandle> = OnceLock::new();
        let handle = METRICS.get_or_init(|| telemetry::init_metrics().expect("set up once")).clone();
        // Idle connections of this client must not delay the end of a test.
        let mut with_default = vec!["--seed=false", "--drain-grace-ms=0"];
        with_default.retain(|flag| !flags.iter().any(|given| given.split('=').next() == flag.split('=').next()));
        with_default.extend(flags);
        let settings = Settings::parse(&with_default);
        let local = ListenAddr::Tcp("127.0.0.1:0".to_owned());
        let public = Listener::bind(&local).await.expect("port 0 is free");
        let metrics = Listener::bind(&local).await.expect("port 0 is free");
        let (addr, metrics_addr) = (public.tcp_addr().expect("TCP"), metrics.tcp_addr().expect("TCP"));
        let (trigger, shutdown) = shutdown::channel();
        let listeners = Listeners { public: vec![public], metrics: Some((metrics, handle)), log: AccessLog::off() };
        let conninfo = with_roles(conninfo);
        let app = App::start(
            (&settings.database, &settings.server),
            &conninfo,
            settings.resources.load().expect("descriptions without a fault"),
            listeners,
            &shutdown,
        )
        .await?;
        Ok(Self {
            addr,
            metrics_addr,
            client: reqwest::Client::builder().build().expect("a client"),
            trigger,
            finished: Some(tokio::spawn(app.finished())),
            database: None,
        })
    }

    /// Waits until the database is prepared; the start itself waits only briefly.
    pub async fn until_ready(&self) {
        eventually(|| async {
            let answer = self.get("/readyz").await;
            if answer.status == StatusCode::OK { Ok(()) } else { Err(answer.body) }
        })
        .await;
    }

    /// Signals the server to stop, without waiting.
    pub fn ask_to_stop(&self) {
        self.trigger.stop();
    }

    /// Stops the server and returns how it ended.
    pub async fn stop(&mut self) -> Drained {
        self.trigger.stop();
        let finished = self.finished.take().expect("stopped once");
        finished.await.expect("no panic").expect("the database was usable")
    }

    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.addr)
    }

    pub fn request(&self, method: Method, path: &str) -> RequestBuilder {
        self.client.request(method, self.url(path))
    }

    #[track_caller]
    pub fn get(&self, path: &str) -> impl Future<Output = Answer> + use<> {
        send(self.request(Method::GET, path))
    }

    #[track_caller]
    pub fn post(&self, path: &str, body: &Value) -> impl Future<Output = Answer> + use<> {
        send(self.request(Method::POST, path).json(body))
    }

    #[track_caller]
    pub fn put(&self, path: &str, body: &Value) -> impl Future<Output = Answer> + use<> {
        send(self.request(Method::PUT, path).json(body))
    }

    #[track_caller]
    pub fn delete(&self, path: &str) -> impl Future<Output = Answer> + use<> {
        send(self.request(Method::DELETE, path))
    }

    /// Stores a passenger and returns its uuid.
    pub async fn create(&self, body: &Value) -> String {
        let answer = self.post("/v1/passengers", body).await;
        answer.expect(StatusCode::CREATED);
        answer.json()["uuid"].as_str().expect("a uuid").to_owned()
    }
}

/// A response read completely, so that an assertion can print it.
#[derive(Debug)]
pub struct Answer {
    pub status: StatusCode,
    pub headers: reqwest::header::HeaderMap,
    pub body: String,
}

/// Sends a request and reads the complete response.
pub async fn send(request: RequestBuilder) -> Answer {
    read(request.send().await.expect("an answer")).await
}

/// Reads a complete response.
pub async fn read(response: Response) -> Answer {
    let (status, headers) = (response.status(), response.headers().clone());
    Answer { status, headers, body: response.text().await.expect("a whole body") }
}

impl Answer {
    #[track_caller]
    pub fn expect(&self, status: StatusCode) -> &Self {
        assert_eq!(self.status, status, "{}", self.body);
        self
    }

    #[track_caller]
    pub fn header(&self, name: &str) -> &str {
        let value = self.headers.get(name).unwrap_or_else(|| panic!("no header {name} in {:?}", self.headers));
        value.to_str().expect("a printable header")
    }

    #[track_caller]
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error}: {}", self.body))
    }

    /// Asserts a problem document of RFC 9457 with this status and code.
    #[track_caller]
    pub fn expect_problem(&self, status: u16, code: &str) -> Value {
        assert_eq!(self.status.as_u16(), status, "{}", self.body);
        assert_eq!(self.header("content-type"), "application/problem+json", "{}", self.body);
        let problem = self.json();
        assert_eq!(problem["status"], status, "{}", self.body);
        assert_eq!(problem["code"], code, "{}", self.body);
        assert_eq!(problem["type"], format!("/docs/problems/{code}"), "{}", self.body);
        assert!(problem["detail"].as_str().is_some_and(|detail| !detail.is_empty()), "{}", self.body);
        assert_eq!(problem["requestId"], self.header("x-request-id"), "{}", self.body);
        problem
    }

    /// The pointers of the invalid fields, in document order.
    #[track_caller]
    pub fn pointers(&self) -> Vec<String> {
        let problem = self.expect_problem(422, "invalid-fields");
        let errors = problem["errors"].as_array().unwrap_or_else(|| panic!("no errors: {}", self.body));
        errors.iter().map(|error| error["pointer"].as_str().expect("a pointer").to_owned()).collect()
    }
}

/// A valid passenger.
pub fn passenger() -> Value {
    json!({
        "survived": true, "passengerClass": 2, "name": "Post-Test-Name", "sex": "male", "age": 27.0,
        "siblingsOrSpousesAboard": 0, "parentsOrChildrenAboard": 0, "fare": 13.0
    })
}

/// A passenger with one member changed.
pub fn passenger_with(field: &str, value: impl Into<Value>) -> Value {
    let mut body = passenger();
    body[field] = value.into();
    body
}

/// Polls until the check succeeds; panics with its last error after `PATIENCE`.
pub async fn eventually<F: Future<Output = Result<(), String>>>(mut check: impl FnMut() -> F) {
    let started = Instant::now();
    loop {
        match check().await {
            Ok(()) => return,
            Err(last) => assert!(started.elapsed() < PATIENCE, "never became true: {last}"),
        }
        tokio::task::yield_now().await;
    }
}
