//! The air-quality cache: what is cached and for how long, invalidation by imports, and correct answers when Redis fails.

use std::fs::File;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use pycrudapi::db::embedded::Embedded;
use pycrudapi::db::migrate;
use reqwest::{Method, StatusCode};
use tokio::io::AsyncWriteExt;

use crate::air_quality::{HEADER, import};
use crate::failures::own_postgres;
use crate::harness::{Answer, Database, TestApp, eventually, send};
use crate::redis_server::{PASSWORD, RedisServer, free_port};
use crate::transfer::{program_at, refused, succeeded};

const ROW: &str = "2016-10-01T00:00:00.004Z,aq_jaen,1,2,3,4,5,6\n";

/// Rows whose station names contain the number of the import.
fn rows(import: u32) -> String {
    let lines = (0..10).map(|station| format!("2016-10-01T00:00:00Z,import_{import:04}_{station},1,2,3,4,5,6\n"));
    lines.collect()
}

/// A server in its own process.
struct Replica {
    child: Child,
    url: String,
    metrics_url: String,
    client: reqwest::Client,
    log: PathBuf,
    _folder: tempfile::TempDir,
}

impl Replica {
    async fn start(database_url: &str, environment: &[(&str, &str)]) -> Self {
        let folder = tempfile::tempdir().expect("a temporary directory");
        let log = folder.path().join("log");
        let (address, metrics) = (format!("127.0.0.1:{}", free_port()), format!("127.0.0.1:{}", free_port()));
        let child = Command::new(env!("CARGO_BIN_EXE_pycrudapi"))
            .arg("serve")
            .env_clear()
            .envs([("DATABASE_URL", database_url), ("SEED", "false"), ("LOG", "info,access=off")])
            .envs([("LISTEN", &address), ("METRICS_LISTEN", &metrics)])
            .envs(environment.iter().copied())
            .stdout(Stdio::null())
            .stderr(File::create(&log).expect("created"))
            .spawn()
            .expect("the program runs");
        let (url, metrics_url) = (format!("http://{address}"), format!("http://{metrics}/metrics"));
        let replica = Self { child, url, metrics_url, client: reqwest::Client::new(), log, _folder: folder };
        eventually(|| async {
            let answer = replica.client.get(format!("{}/readyz", replica.url)).send().await;
            let answer = answer.map_err(|error| error.to_string())?;
            if answer.status() == StatusCode::OK { Ok(()) } else { Err(answer.status().to_string()) }
        })
        .await;
        replica
    }

    async fn get(&self) -> Answer {
        send(self.client.get(format!("{}/air_quality", self.url))).await
    }

    fn log(&self) -> String {
        std::fs::read_to_string(&self.log).expect("it is there")
    }

    /// Number of connections it has made to Redis.
    fn connections(&self) -> usize {
        self.log().matches("the cache is connected to redis").count()
    }

    /// Number of Redis errors it has counted.
    async fn faults(&self) -> u64 {
        let metrics = send(self.client.get(&self.metrics_url)).await.body;
        let counts = metrics.lines().filter(|line| line.starts_with("cache_errors_total{"));
        counts.map(|line| line.rsplit(' ').next().expect("a value").parse::<u64>().expect("a number")).sum()
    }

    /// Waits until answers come from the cache.
    async fn cached(&self) {
        eventually(|| async { hit(&self.get().await) }).await;
    }
}

async fn start_two(database_url: &str, environment: &[(&str, &str)]) -> Vec<Replica> {
    join_all((0..2).map(|_| Replica::start(database_url, environment))).await
}

impl Drop for Replica {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn hit(answer: &Answer) -> Result<(), String> {
    if answer.header("x-cache") == "HIT" { Ok(()) } else { Err(format!("{:?}", answer.headers)) }
}

/// Asserts in body and header whether an answer came from the cache.
#[track_caller]
fn from_cache(answer: &Answer, cached: bool) {
    answer.expect(StatusCode::OK);
    assert_eq!(answer.header("x-cache"), if cached { "HIT" } else { "MISS" }, "{}", answer.body);
    assert_eq!(answer.header("cache-control"), "public, no-cache");
    let age: u64 = answer.header("age").parse().expect("whole seconds");
    assert!(age < 60, "{age}");
    if answer.header("content-type") == "application/json" {
        assert!(answer.body.starts_with(&format!(r#"{{"cache":{cached},"entities":["#)), "{}", answer.body);
    }
}

/// The value of a counter in the process's metrics.
async fn counter(app: &TestApp, series: &str) -> u64 {
    let scraped = send(app.client.get(format!("http://{}/metrics", app.metrics_addr))).await;
    let line = scraped.body.lines().find(|line| line.strip_prefix(series).is_some_and(|rest| rest.starts_with(' ')));
    line.and_then(|line| line.rsplit(' ').next()).map_or(0, |number| number.parse().expect("a number"))
}

/// Waits until the server is connected to Redis, so that the test measures only later Redis behaviour.
async fn connected(app: &TestApp) {
    eventually(|| async { hit(&app.get("/air_quality?entity=connected").await) }).await;
}

#[tokio::test]
async fn for_each_distinct_query_the_first_answer_is_fresh_and_later_ones_are_cached() {
    let redis = RedisServer::start().await;
    for flags in [vec![], vec![redis.flag()]] {
        let flags: Vec<&str> = flags.iter().map(String::as_str).collect();
        let app = TestApp::start_with(&flags).await;
        import(app.database.as_ref().expect("own database"), &format!("{HEADER}{ROW}"));
        connected(&app).await;
        // The second query of each pair is equivalent to the first, with another URL or spelling.
        for (first, same) in [
            ("/air_quality", "/api/v1/measures/air?format=json"),
            ("/air_quality?entity=a,aq_jaen", "/v1/air-quality?entity=aq_jaen%2Ca,a"),
            ("/air_quality?from=2016-10-01", "/air_quality?from=2016-10-01T02:00:00%2B02:00"),
            ("/air_quality?to=2016-10-02", "/air_quality?&to=2016-10-02T00:00:00.000Z"),
            ("/air_quality?format=csv", "/v1/air-quality?format=csv"),
        ] {
            let fresh = app.get(first).await;
            from_cache(&fresh, false);
            assert_eq!(fresh.header("age"), "0");
            for path in [first, same] {
                let cached = app.get(path).await;
                from_cache(&cached, true);
                assert_eq!(cached.body.replace("true", "false"), fresh.body, "{path}");
                assert_eq!(cached.header("content-length"), cached.body.len().to_string());
            }
        }
    }
    assert_eq!(redis.answers().await.len(), 6);
}

#[tokio::test]
async fn an_answer_is_cached_no_longer_than_its_lifetime() {
    let redis = RedisServer::start().await;
    for flags in [vec![], vec![redis.flag()]] {
        let flags: Vec<&str> = flags.iter().map(String::as_str).chain(["--air-quality-cache-ttl=2s"]).collect();
        let app = TestApp::start_with(&flags).await;
        connected(&app).await;
        let before = Instant::now();
        from_cache(&app.get("/air_quality").await, false);
        let made = Instant::now();
        let mut oldest = 0;
        let gone = loop {
            let asked = before.elapsed();
            let answer = app.get("/air_quality").await;
            match hit(&answer) {
                Ok(()) => {
                    let age: u64 = answer.header("age").parse().expect("whole seconds");
                    assert!(age >= oldest && age <= 2, "{age} after {oldest}");
                    assert!(asked < Duration::from_secs(4), "still there after {asked:?}");
                    oldest = age;
                }
                Err(_) => break made.elapsed(),
            }
        };
        assert!(gone > Duration::from_millis(1900), "{gone:?}");
        assert!(oldest >= 1, "{oldest}");
    }
}

/// A PostgreSQL that counts statements (pg_stat_statements).
fn counting_postgres() -> (Embedded, tempfile::TempDir) {
    own_postgres(vec![("shared_preload_libraries".to_owned(), "pg_stat_statements".to_owned())])
}

#[tokio::test(flavor = "multi_thread")]
async fn two_hundred_first_requests_to_two_processes_cause_one_database_query() {
    let (postgres, _folder) = counting_postgres();
    let config = postgres.config();
    let conninfo = pycrudapi::db::conninfo::ConnInfo::from_config(config.clone()).expect("no TLS required");
    let mut client = migrate::connect(&conninfo).await.expect("connected");
    migrate::run(&mut client, &crate::harness::resources(), None).await.expect("migrated");
    client.batch_execute("create extension pg_stat_statements").await.expect("created");
    let insert = "insert into air_quality (id_entity, measured_at, so2) \
                  select 'many', timestamptz '2020-01-01' + n * interval '1 minute', n from generate_series(1, 1000) n";
    client.batch_execute(insert).await.expect("inserted");
    let [tokio_postgres::config::Host::Unix(directory)] = config.get_hosts() else { panic!("one socket") };
    let url = format!("host={} user=postgres dbname=postgres", directory.display());
    let redis = RedisServer::start().await;
    // The test counts queries to PostgreSQL; 200 requests on a busy machine could exceed the default deadline.
    let shared = [("REDIS_URL", redis.url()), ("REDIS_TIMEOUT_MS", "10000".to_owned())];
    let shared: Vec<_> = shared.iter().map(|(name, value)| (*name, value.as_str())).collect();
    for (environment, replicas) in [(shared.as_slice(), 2), (&[], 1)] {
        let replicas = join_all((0..replicas).map(|_| Replica::start(&url, environment))).await;
        // Wait until each replica is connected to Redis and listens for changes, as in steady state.
        for replica in &replicas {
            eventually(|| async {
                hit(&send(replica.client.get(format!("{}/air_quality?entity=connected", replica.url))).await)
            })
            .await;
        }
        client.execute("select pg_stat_statements_reset()", &[]).await.expect("reset");
        let answers = join_all((0..200).map(|number| replicas[number % replicas.len()].get())).await;
        let fresh = answers.iter().filter(|answer| answer.body.starts_with(r#"{"cache":false"#)).count();
        assert_eq!(fresh, 1, "exactly one request reads the database");
        for answer in &answers {
            answer.expect(StatusCode::OK);
            assert_eq!(answer.body.matches("timestamp").count(), 1000);
        }
        let count = "select coalesce(sum(calls), 0)::bigint from pg_stat_statements where query like '%from air_quality%' \
                     and query like '%measured_at%' and query not like '%pg_stat_statements%'";
        let calls: i64 = client.query_one(count, &[]).await.expect("counted").get(0);
        assert_eq!(calls, 1);
        let all = "select query, calls from pg_stat_statements where query ilike '%air_quality%'";
        for row in client.query(all, &[]).await.expect("listed") {
            println!("{} x {}", row.get::<_, i64>(1), row.get::<_, &str>(0));
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_import_is_visible_immediately_on_every_replica() {
    let redis = RedisServer::start().await;
    let url = redis.url();
    let environments: [&[(&str, &str)]; 2] = [&[], &[("REDIS_URL", &url)]];
    for environment in environments {
        let database = Database::migrated().await;
        let replicas = start_two(&database.url(), environment).await;
        let stop = Arc::new(AtomicBool::new(false));
        // Concurrent readers on each replica: once a newer import was served from the cache, an older one must never be.
        let readers: Vec<_> = replicas
            .iter()
            .flat_map(|replica| [replica, replica])
            .map(|replica| {
                let (request, stop) = (replica.client.get(format!("{}/air_quality", replica.url)), stop.clone());
                tokio::spawn(async move {
                    let (mut newest, mut answers) = (0, 0_u64);
                    while !stop.load(Ordering::Relaxed) {
                        let answer = send(request.try_clone().expect("no body")).await;
                        let seen = imports(&answer);
                        assert!(seen >= newest, "import {seen} after {newest}");
                        if answer.header("x-cache") == "HIT" {
                            newest = seen;
                        }
                        answers += 1;
                    }
                    answers
                })
            })
            .collect();
        let mut delays = Vec::new();
        for number in 1..=15 {
            import_blocking(&database, rows(number)).await;
            let committed = Instant::now();
            for replica in &replicas {
                eventually(|| async {
                    let seen = imports(&replica.get().await);
                    if seen >= number { Ok(()) } else { Err(format!("import {seen}, not {number}")) }
                })
                .await;
            }
            delays.push(committed.elapsed());
            // A refused import changes nothing.
            let csv = format!("{HEADER}{}", rows(number));
            let database = database.url();
            tokio::task::spawn_blocking(move || {
                refused(&program_at(&["import", "--resource", "air-quality", "-"], &database, &csv))
            })
            .await
            .expect("no panic");
        }
        stop.store(true, Ordering::Relaxed);
        for reader in readers {
            assert!(reader.await.expect("no reader saw an older import") > 0);
        }
        delays.sort();
        println!("an import was visible on both replicas within {delays:?}");
        // A notification takes milliseconds; the heartbeat that replaces a lost notification takes up to a second. The median
        // distinguishes the two even on a busy machine.
        assert!(delays[delays.len() / 2] < Duration::from_millis(300), "{delays:?}");
    }
}

/// Imports on a blocking thread while the readers keep running.
async fn import_blocking(database: &Database, rows: String) {
    let url = database.url();
    let loading = tokio::task::spawn_blocking(move || {
        program_at(&["import", "--resource", "air-quality", "-"], &url, &format!("{HEADER}{rows}"))
    });
    succeeded(loading.await.expect("no panic"));
}

/// The newest import visible in an answer; 0 if there is none.
#[track_caller]
fn imports(answer: &Answer) -> u32 {
    let entities = answer.expect(StatusCode::OK).json()["entities"].as_array().cloned().unwrap_or_default();
    let numbers = entities.iter().filter_map(|entity| entity["id"].as_str()?.get(7..11)?.parse().ok());
    numbers.max().unwrap_or(0)
}

#[tokio::test]
async fn an_import_is_visible_after_the_change_listener_lost_its_connection() {
    let database = Database::migrated().await;
    let app = TestApp::start_on(&database.conninfo(), &[]).await;
    connected(&app).await;
    let client = database.client().await;
    for number in 1..=3 {
        let follower = "select pg_terminate_backend(pid) from pg_stat_activity where datname = current_database() \
                        and query like '%from air_quality_generation' and query not like '%pg_stat%' and pid in \
                        (select pid from pg_stat_activity where state = 'idle')";
        client.execute(follower, &[]).await.expect("terminated");
        import(&database, &format!("{HEADER}{}", rows(number)));
        eventually(|| async {
            let seen = imports(&app.get("/air_quality").await);
            if seen == number { Ok(()) } else { Err(format!("import {seen}, not {number}")) }
        })
        .await;
        eventually(|| async { hit(&app.get("/air_quality").await) }).await;
        assert_eq!(imports(&app.get("/air_quality").await), number);
    }
}

/// Deadline of a Redis command in the tests below, and the additional time an answer may take.
const DEADLINE_MS: u64 = 250;
const GRACE: Duration = Duration::from_millis(50);

/// Clients that send requests to two replicas without pause and record the longest response time.
struct Load {
    stop: Arc<AtomicBool>,
    answers: Arc<AtomicU64>,
    clients: Vec<tokio::task::JoinHandle<(Duration, Duration)>>,
}

impl Load {
    fn start(replicas: &[Replica]) -> Self {
        let (stop, answers) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let clients = replicas.iter().flat_map(|replica| [replica, replica]).map(|replica| {
            let request = replica.client.get(format!("{}/air_quality", replica.url));
            let control = replica.client.get(format!("{}/hello", replica.url));
            let (stop, answers) = (stop.clone(), answers.clone());
            tokio::spawn(async move {
                let (mut longest, mut noise) = (Duration::ZERO, Duration::ZERO);
                while !stop.load(Ordering::Relaxed) {
                    let started = Instant::now();
                    let answer = send(request.try_clone().expect("no body")).await;
                    longest = longest.max(started.elapsed());
                    assert_eq!(imports(&answer), 1);
                    let started = Instant::now();
                    send(control.try_clone().expect("no body")).await;
                    noise = noise.max(started.elapsed());
                    answers.fetch_add(1, Ordering::Relaxed);
                }
                (longest, noise)
            })
        });
        let clients = clients.collect();
        Self { stop, answers, clients }
    }

    /// Waits until `count` more answers have arrived.
    async fn wait_for_answers(&self, count: u64) {
        let goal = self.answers.load(Ordering::Relaxed) + count;
        eventually(|| async {
            let now = self.answers.load(Ordering::Relaxed);
            if now >= goal { Ok(()) } else { Err(format!("{now} of {goal} answers")) }
        })
        .await;
    }

    /// The number of answers, the longest response time, and the longest response time of a request that does not use the
    /// cache, which measures the load of the machine. Panics if an answer was wrong.
    async fn end(self) -> (u64, Duration, Duration) {
        self.stop.store(true, Ordering::Relaxed);
        let (mut longest, mut noise) = (Duration::ZERO, Duration::ZERO);
        for client in join_all(self.clients).await {
            let (answer, control) = client.expect("every answer was right");
            (longest, noise) = (longest.max(answer), noise.max(control));
        }
        (self.answers.load(Ordering::Relaxed), longest, noise)
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn killing_pausing_and_restarting_redis_under_load_loses_and_delays_no_answer() {
    let mut redis = RedisServer::start().await;
    let database = Database::migrated().await;
    import(&database, &format!("{HEADER}{}", rows(1)));
    let (url, deadline) = (redis.url(), DEADLINE_MS.to_string());
    let environment = [("REDIS_URL", url.as_str()), ("REDIS_TIMEOUT_MS", &deadline)];
    let replicas = start_two(&database.url(), &environment).await;
    let cached = || join_all(replicas.iter().map(Replica::cached));
    // A coalesced answer counts as a hit, so only a new connection proves that a replica has recovered from a fault.
    let connections = || replicas.iter().map(Replica::connections).collect::<Vec<_>>();
    let connected_again = async |before: Vec<usize>| {
        eventually(|| async {
            let now = connections();
            let all = now.iter().zip(&before).all(|(now, before)| now > before);
            if all { Ok(()) } else { Err(format!("{now:?} connections after {before:?}")) }
        })
        .await;
        cached().await;
    };
    cached().await;
    let load = Load::start(&replicas);
    load.wait_for_answers(100).await;
    for _ in 0..2 {
        let before = connections();
        redis.kill();
        load.wait_for_answers(100).await;
        redis.restart().await;
        connected_again(before).await;
        let before = connections();
        let faults = join_all(replicas.iter().map(Replica::faults)).await;
        redis.pause();
        eventually(|| async {
            let now = join_all(replicas.iter().map(Replica::faults)).await;
            let all = now.iter().zip(&faults).all(|(now, before)| now > before);
            if all { Ok(()) } else { Err(format!("{now:?} faults after {faults:?}")) }
        })
        .await;
        load.wait_for_answers(100).await;
        redis.resume();
        connected_again(before).await;
        let before = connections();
        // Slow rather than unresponsive: it answers after the deadline.
        redis.run::<()>(redis::cmd("CLIENT").arg("PAUSE").arg(2 * DEADLINE_MS).arg("ALL")).await;
        load.wait_for_answers(100).await;
        connected_again(before).await;
        redis.run::<()>(&redis::cmd("FLUSHALL")).await;
        load.wait_for_answers(100).await;
        for key in redis.answers().await {
            redis.run::<()>(redis::cmd("SET").arg(key).arg("garbage")).await;
        }
        load.wait_for_answers(100).await;
        cached().await;
    }
    let (answers, longest, noise) = load.end().await;
    println!("{answers} answers, the longest took {longest:?}, the longest without the cache {noise:?}");
    assert!(longest <= Duration::from_millis(DEADLINE_MS) + GRACE + 2 * noise, "{longest:?} with noise {noise:?}");
    for replica in &replicas {
        let log = replica.log();
        let warnings = log.lines().filter(|line| line.contains("redis is failing")).count();
        assert_eq!(warnings, 1, "within a minute:\n{log}");
        assert!(!log.contains(PASSWORD), "{log}");
    }
}

#[tokio::test]
async fn a_corrupt_cached_value_is_counted_and_replaced() {
    let redis = RedisServer::start().await;
    let app = TestApp::start_with(&[&redis.flag()]).await;
    connected(&app).await;
    from_cache(&app.get("/air_quality").await, false);
    let key = redis.answers().await.into_iter().find(|key| !key.contains("connected")).expect("one answer");
    let good: Vec<u8> = redis.run(redis::cmd("GET").arg(&key)).await;
    let mut flipped = good.clone();
    *flipped.last_mut().expect("not empty") ^= 1;
    let series = r#"cache_errors_total{reason="corrupt"}"#;
    for garbage in [Vec::new(), b"garbage".to_vec(), good[..good.len() - 1].to_vec(), flipped] {
        let before = counter(&app, series).await;
        redis.run::<()>(redis::cmd("SET").arg(&key).arg(garbage)).await;
        let answer = app.get("/air_quality").await;
        from_cache(&answer, false);
        assert_eq!(answer.body, r#"{"cache":false,"entities":[]}"#);
        from_cache(&app.get("/air_quality").await, true);
        assert!(counter(&app, series).await > before);
    }
    // A value that is not a string.
    redis.run::<()>(redis::cmd("DEL").arg(&key)).await;
    redis.run::<()>(redis::cmd("RPUSH").arg(&key).arg("garbage")).await;
    from_cache(&app.get("/air_quality").await, false);
    from_cache(&app.get("/air_quality").await, true);
}

#[tokio::test]
async fn answers_of_another_database_in_the_same_redis_are_ignored() {
    let redis = RedisServer::start().await;
    let apps = [TestApp::start_with(&[&redis.flag()]).await, TestApp::start_with(&[&redis.flag()]).await];
    import(apps[0].database.as_ref().expect("own database"), &format!("{HEADER}{}", rows(1)));
    for (app, import) in [(&apps[0], 1), (&apps[1], 0), (&apps[0], 1), (&apps[1], 0)] {
        eventually(|| async {
            let answer = app.get("/air_quality").await;
            if imports(&answer) == import { Ok(()) } else { Err(answer.body) }
        })
        .await;
    }
}

#[tokio::test]
async fn a_full_redis_stores_nothing_and_fails_no_request() {
    let redis = RedisServer::start().await;
    let app = TestApp::start_with(&[&redis.flag()]).await;
    connected(&app).await;
    let series = r#"cache_errors_total{reason="full"}"#;
    let before = counter(&app, series).await;
    redis.run::<()>(redis::cmd("CONFIG").arg("SET").arg("maxmemory").arg("1")).await;
    for _ in 0..5 {
        from_cache(&app.get("/air_quality").await, false);
    }
    assert!(counter(&app, series).await >= before + 5);
    redis.run::<()>(redis::cmd("CONFIG").arg("SET").arg("maxmemory").arg("0")).await;
    from_cache(&app.get("/air_quality").await, false);
    from_cache(&app.get("/air_quality").await, true);
}

#[tokio::test]
async fn a_flushed_redis_is_refilled() {
    let redis = RedisServer::start().await;
    let app = TestApp::start_with(&[&redis.flag()]).await;
    connected(&app).await;
    for _ in 0..3 {
        from_cache(&app.get("/air_quality").await, false);
        from_cache(&app.get("/air_quality").await, true);
        redis.run::<()>(&redis::cmd("FLUSHALL")).await;
    }
}

#[tokio::test]
async fn a_refused_redis_password_delays_and_fails_nothing_and_is_retried() {
    let redis = RedisServer::start().await;
    let started = Instant::now();
    let app = TestApp::start_with(&[&redis.flag().replace(PASSWORD, "wrong")]).await;
    assert!(started.elapsed() < Duration::from_secs(2), "the start waited {:?}", started.elapsed());
    let series = r#"cache_errors_total{reason="password"}"#;
    eventually(|| async {
        from_cache(&app.get("/air_quality").await, false);
        let count = counter(&app, series).await;
        if count >= 2 { Ok(()) } else { Err(format!("{count} refusals")) }
    })
    .await;
    redis.run::<()>(redis::cmd("CONFIG").arg("SET").arg("requirepass").arg("wrong")).await;
    eventually(|| async { hit(&app.get("/air_quality").await) }).await;
}

#[tokio::test]
async fn the_redis_password_may_be_read_from_a_file() {
    let redis = RedisServer::start().await;
    let folder = tempfile::tempdir().expect("a temporary directory");
    let file = folder.path().join("password");
    std::fs::write(&file, format!("{PASSWORD}\n")).expect("written");
    let flag = redis.flag().replace(&format!(":{PASSWORD}@"), "");
    let app = TestApp::start_with(&[&flag, &format!("--redis-password-file={}", file.display())]).await;
    connected(&app).await;
}

#[tokio::test]
async fn an_unreachable_redis_delays_neither_start_nor_answers_and_is_used_once_reachable() {
    let mut redis = RedisServer::start().await;
    redis.kill();
    // A deadline so long that an answer that waits for it would be noticed.
    let app = TestApp::start_with(&[&redis.flag(), "--redis-timeout-ms=10000"]).await;
    let started = Instant::now();
    for _ in 0..20 {
        from_cache(&app.get("/air_quality").await, false);
    }
    assert!(started.elapsed() < Duration::from_secs(5), "{:?}", started.elapsed());
    redis.restart().await;
    eventually(|| async { hit(&app.get("/air_quality").await) }).await;
}

#[tokio::test]
async fn another_service_at_the_redis_address_fails_no_request() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let flag = format!("--redis-url=redis://:{PASSWORD}@{}", listener.local_addr().expect("an address"));
    let asked = Arc::new(AtomicU64::new(0));
    let count = asked.clone();
    let nonsense = tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.expect("accepted");
            count.fetch_add(1, Ordering::Relaxed);
            // Ignore whether the peer reads it.
            let _ = stream.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").await;
        }
    });
    let app = TestApp::start_with(&[&flag]).await;
    eventually(|| async {
        from_cache(&app.get("/air_quality").await, false);
        let asked = asked.load(Ordering::Relaxed);
        if asked >= 2 { Ok(()) } else { Err(format!("asked {asked} times")) }
    })
    .await;
    nonsense.abort();
}

#[tokio::test]
async fn a_client_that_disconnects_does_not_cancel_the_refresh() {
    let app = TestApp::start().await;
    connected(&app).await;
    let client = app.database.as_ref().expect("own database").client().await;
    client.batch_execute("begin; lock table air_quality in access exclusive mode").await.expect("locked");
    // The refresh has started once it waits for the lock; the request is dropped then.
    tokio::select! {
        answer = app.request(Method::GET, "/air_quality").send() => panic!("not before the lock is gone: {answer:?}"),
        () = eventually(|| waiting(&client)) => {}
    }
    let staying = app.get("/air_quality");
    tokio::pin!(staying);
    assert!(futures_util::poll!(&mut staying).is_pending());
    client.batch_execute("rollback").await.expect("unlocked");
    staying.await.expect(StatusCode::OK);
    from_cache(&app.get("/air_quality").await, true);
}

/// Checks that a statement of this database is waiting for a lock.
async fn waiting(client: &tokio_postgres::Client) -> Result<(), String> {
    let sql = "select count(*) from pg_stat_activity where datname = current_database() and wait_event_type = 'Lock'";
    let count: i64 = client.query_one(sql, &[]).await.expect("counted").get(0);
    if count > 0 { Ok(()) } else { Err("no statement waits".to_owned()) }
}

#[tokio::test]
async fn data_read_before_an_import_is_not_cached_after_it() {
    let redis = RedisServer::start().await;
    for flags in [vec![], vec![redis.flag()]] {
        let flags: Vec<&str> = flags.iter().map(String::as_str).collect();
        let app = TestApp::start_with(&flags).await;
        let database = app.database.as_ref().expect("own database");
        connected(&app).await;
        from_cache(&app.get("/air_quality").await, false);
        from_cache(&app.get("/air_quality").await, true);
        let client = database.client().await;
        // The import has changed all rows but has not committed: the old answer is still correct.
        client.batch_execute("begin").await.expect("begun");
        let insert = "insert into air_quality (id_entity, measured_at) values ('import_0001_0', '2016-10-01')";
        client.batch_execute(insert).await.expect("inserted");
        from_cache(&app.get("/air_quality").await, true);
        // A refresh that starts now reads the old state and must be labelled accordingly.
        let before = app.get("/air_quality?entity=import_0001_0").await;
        from_cache(&before, false);
        client.batch_execute("commit").await.expect("committed");
        for path in ["/air_quality", "/air_quality?entity=import_0001_0"] {
            eventually(|| async {
                let seen = imports(&app.get(path).await);
                if seen == 1 { Ok(()) } else { Err(format!("import {seen}")) }
            })
            .await;
            let after = app.get(path).await;
            assert_eq!(imports(&after), 1);
        }
    }
}
