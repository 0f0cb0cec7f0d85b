//! `pycrudapi doctor` finds each injected fault and suggests a remedy that repairs it.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::{Command, Output};
use std::time::{Duration, SystemTime};

use rcgen::{CertificateParams, KeyPair};
use serde_json::Value;

use crate::harness::{Database, TestApp, eventually};

/// The program with these environment variables and no others.
struct Doctor(BTreeMap<String, String>);

impl Doctor {
    /// A doctor for a database, with the roles for requests and for migrations.
    fn of(database: &Database) -> Self {
        let url = database.url().replace("user=postgres", "user=pycrudapi");
        Self::without_database().with("DATABASE_URL", &url).with("MIGRATE_USER", "postgres")
    }

    /// No process listens on this port, so no service of this machine is queried.
    fn without_database() -> Self {
        Self(BTreeMap::new()).with("HTTP_PORT", "9")
    }

    fn with(mut self, name: &str, value: &str) -> Self {
        self.0.insert(name.to_owned(), value.to_owned());
        self
    }

    async fn run(&self, change: impl FnOnce(&mut Command) + Send + 'static) -> Findings {
        let environment = self.0.clone();
        let output = tokio::task::spawn_blocking(move || {
            let mut command = Command::new(env!("CARGO_BIN_EXE_pycrudapi"));
            command.args(["doctor", "--format", "json"]).env_clear().envs(environment);
            change(&mut command);
            command.output().expect("the program runs")
        });
        Findings::of(&output.await.expect("no panic"))
    }

    async fn look(&self) -> Findings {
        self.run(|_| ()).await
    }
}

struct Findings {
    list: Vec<Value>,
    text: String,
}

impl Findings {
    #[track_caller]
    fn of(output: &Output) -> Self {
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let said = String::from_utf8_lossy(&output.stderr);
        let list: Vec<Value> = serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}{said}"));
        let wrong = || list.iter().filter(|finding| finding["severity"] == "wrong");
        let status =
            if wrong().any(|finding| finding["area"] == "settings") { 2 } else { i32::from(wrong().count() > 0) };
        assert_eq!(output.status.code(), Some(status), "the exit status must reflect the worst finding: {text}");
        let order = list
            .iter()
            .map(|finding| ["wrong", "warning", "fine"].iter().position(|name| finding["severity"] == *name));
        assert!(order.is_sorted(), "the most severe findings must come first: {text}");
        for finding in &list {
            assert_eq!(
                finding["severity"] == "fine",
                finding.get("mend").is_none(),
                "every other finding must have a remedy: {finding}"
            );
        }
        Self { list, text }
    }

    /// The remedy of the finding with this severity that contains these words.
    #[track_caller]
    fn mend(&self, severity: &str, words: &str) -> String {
        let has = |finding: &&Value| {
            finding["severity"] == severity && finding["what"].as_str().is_some_and(|what| what.contains(words))
        };
        let found = self.list.iter().find(has).unwrap_or_else(|| panic!("{severity}: {words}, in {}", self.text));
        found["mend"].as_str().unwrap_or_default().to_owned()
    }

    #[track_caller]
    fn expect_none(&self, words: &str) {
        let bad = self.list.iter().filter(|finding| finding["severity"] != "fine");
        let found: Vec<_> =
            bad.filter(|finding| finding["what"].as_str().is_some_and(|what| what.contains(words))).collect();
        assert!(found.is_empty(), "{found:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_healthy_database_and_a_ready_service_have_no_findings() {
    let app = TestApp::start().await;
    let database = app.database.as_ref().expect("its own");
    let port = app.addr.port().to_string();
    let found = Doctor::of(database).with("HTTP_PORT", &port).look().await;
    let wrong: Vec<_> = found.list.iter().filter(|finding| finding["severity"] == "wrong").collect();
    assert!(wrong.is_empty(), "{wrong:?}");
    for words in ["is ready", "the table of passengers matches its description", "can read and change every table"] {
        found.mend("fine", words);
    }
    found.mend("warning", "AUTH=off");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unreachable_missing_or_unmigrated_database_is_reported() {
    let away = "postgres://pycrudapi@127.0.0.1:1/nothing";
    let found = Doctor::without_database().with("DATABASE_URL", away).look().await;
    assert!(found.mend("wrong", "cannot connect").contains("DATABASE_URL"));

    let database = Database::empty().await;
    let found = Doctor::of(&database).look().await;
    assert_eq!(found.mend("wrong", "the schema is at version 0"), "pycrudapi migrate");

    let nowhere = tempfile::tempdir().expect("a temporary directory");
    let directory = nowhere.path().join("data");
    let found = Doctor::without_database().with("DATA_DIR", &directory.to_string_lossy()).look().await;
    found.mend("warning", "there is no embedded database in");
    assert!(!directory.exists(), "the doctor must not create a database");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_suggested_sql_repairs_each_fault() {
    for (fault, severity, words) in [
        ("revoke update on steps from pycrudapi", "wrong", "pycrudapi lacks update on the table steps"),
        (
            "revoke all on idempotency_keys from pycrudapi",
            "wrong",
            "lacks select, insert, update, delete on the table idempotency_keys",
        ),
        ("revoke insert on passengers_history from pycrudapi", "wrong", "lacks insert on the table passengers_history"),
        ("revoke select on api_tokens from pycrudapi", "wrong", "lacks select on the table api_tokens"),
        (
            "revoke usage on sequence passengers_version_seq from pycrudapi",
            "wrong",
            "lacks usage on the sequence passengers_version_seq",
        ),
        (
            "revoke execute on function pycrudapi_analyze from public",
            "wrong",
            "lacks execute on the function pycrudapi_analyze",
        ),
        ("revoke usage on schema public from public, pycrudapi", "wrong", "pycrudapi lacks usage on the schema public"),
        ("alter table passengers enable row level security", "wrong", "row-level security hides rows of passengers"),
        ("alter table passengers alter column fare type real", "wrong", "the table of passengers differs"),
        (
            "update pg_index set indisvalid = false where indexrelid = 'steps_pkey'::regclass",
            "warning",
            "the index steps_pkey is invalid",
        ),
        ("alter table steps set (autovacuum_enabled = false)", "warning", "autovacuum is off for steps"),
        (
            "select setval('passengers_version_seq', 9223372036854775800)",
            "wrong",
            "the sequence passengers_version_seq ends after 7 more values",
        ),
        (
            "select pg_create_physical_replication_slot('doctor_test', true)",
            "warning",
            "the replication slot doctor_test is inactive",
        ),
    ] {
        let database = Database::migrated().await;
        let client = database.client().await;
        client.batch_execute(fault).await.expect("planted");
        let doctor = Doctor::of(&database);
        let mend = doctor.look().await.mend(severity, words);
        let sql = mend.rsplit(", or: ").next().expect("one part at least");
        assert!(sql.ends_with(';'), "SQL: {mend}");
        client.batch_execute(sql).await.unwrap_or_else(|error| panic!("{sql}: {error:?}"));
        doctor.look().await.expect_none(words);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_that_was_renamed_is_not_replaced_by_an_empty_one() {
    let database = Database::migrated().await;
    database.client().await.batch_execute("alter table passengers rename to elsewhere").await.expect("planted");
    let mend = Doctor::of(&database).look().await.mend("wrong", "table passengers is missing");
    assert!(mend.contains("Do not restart") && mend.contains("alter table OTHER_NAME rename to passengers"), "{mend}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slot_that_was_never_used_does_not_abort_the_other_checks() {
    let database = Database::migrated().await;
    let client = database.client().await;
    client.batch_execute("select pg_create_physical_replication_slot('doctor_unused')").await.expect("planted");
    let found = Doctor::of(&database).look().await;
    client.batch_execute("select pg_drop_replication_slot('doctor_unused')").await.expect("dropped");
    found.mend("warning", "the replication slot doctor_unused is inactive and retains 0 MiB");
    found.mend("fine", "no session is idle in a transaction");
}

#[tokio::test(flavor = "multi_thread")]
async fn tables_that_are_never_vacuumed_or_analysed_are_reported() {
    let database = Database::migrated().await;
    let client = database.client().await;
    let fill = "alter table air_quality set (autovacuum_enabled = off);
        insert into air_quality (id_entity, measured_at, pm10)
            select 'Somewhere', timestamptz '2020-01-01' + n * interval '1 hour', 1 from generate_series(1, 20000) n;
        update air_quality set pm10 = 2";
    client.batch_execute(fill).await.expect("filled");
    let doctor = Doctor::of(&database);
    // Idle sessions report their statistics with a delay.
    eventually(|| async {
        let found = doctor.look().await;
        let told = ["air_quality has 20000 dead rows", "since its statistics were collected"];
        if told.iter().all(|words| found.text.contains(words)) { Ok(()) } else { Err(found.text) }
    })
    .await;
    client.batch_execute("vacuum (analyze) air_quality").await.expect("vacuumed");
    eventually(|| async {
        let found = doctor.look().await;
        if found.text.contains("air_quality has") { Err(found.text) } else { Ok(()) }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn settings_of_postgres_and_of_the_pool_are_checked() {
    let database = Database::migrated().await;
    let name = database.url().rsplit('=').next().expect("the name").to_owned();
    let client = database.client().await;
    client.batch_execute(&format!("alter database {name} set synchronous_commit = off")).await.expect("set");
    let found = Doctor::of(&database).with("POOL_SIZE", "1000").look().await;
    found.mend("wrong", "synchronous_commit = off");
    assert!(found.mend("wrong", "one server requires 1003 connections").contains("POOL_SIZE"));
    let superuser = Doctor::without_database().with("DATABASE_URL", &database.url()).look().await;
    superuser.mend("warning", "the role for requests is a superuser");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_that_is_not_ready_is_reported_with_its_checks() {
    let nobody =
        pycrudapi::db::conninfo::ConnInfo::parse("postgres://pycrudapi@127.0.0.1:1/nothing").expect("an address");
    let app = TestApp::start_on(&nobody, &[]).await;
    let found = Doctor::without_database()
        .with("DATABASE_URL", "postgres://pycrudapi@127.0.0.1:1/nothing")
        .with("HTTP_PORT", &app.addr.port().to_string())
        .look()
        .await;
    found.mend("wrong", "answers 503");
    Doctor::without_database()
        .with("DATABASE_URL", "postgres://x@127.0.0.1:1/x")
        .look()
        .await
        .mend("warning", "no response from");
}

#[tokio::test(flavor = "multi_thread")]
async fn disks_and_limits_are_checked() {
    let none = Doctor::without_database().with("DATABASE_URL", "postgres://x@127.0.0.1:1/x");
    let spool = none.with("SPOOL_DIR", "/nonexistent/spool");
    let found = spool.run(|command| {
        // A shell sets the limit.
        let program = command.get_program().to_owned();
        let environment: Vec<_> =
            command.get_envs().map(|(name, value)| (name.to_owned(), value.expect("set").to_owned())).collect();
        *command = Command::new("/bin/sh");
        command
            .args(["-c", "ulimit -n 256; exec \"$0\" doctor --format json"])
            .arg(program)
            .env_clear()
            .envs(environment);
    });
    let found = found.await;
    found.mend("wrong", "SPOOL_DIR=/nonexistent/spool cannot be checked");
    found.mend("warning", "a process can open at most 256 files");
    if Path::new("/dev/shm").is_dir() {
        let none = Doctor::without_database().with("DATABASE_URL", "postgres://x@127.0.0.1:1/x");
        none.with("SPOOL_DIR", "/dev/shm").look().await.mend("warning", "is a tmpfs");
    } else {
        eprintln!("skipped: SPOOL_DIR on a tmpfs: there is no /dev/shm");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn nginx_and_its_certificate_are_checked() {
    let doctor = || Doctor::without_database().with("DATABASE_URL", "postgres://x@127.0.0.1:1/x");
    doctor().with("HTTPS_PORT", "many").look().await.mend("wrong", "HTTPS_PORT=many");
    doctor().look().await.mend("fine", "nginx accepts the configuration");
    doctor().with("TRUSTED_PROXIES", "nowhere").look().await.mend("wrong", "TRUSTED_PROXIES=nowhere");

    const DAY: Duration = Duration::from_secs(24 * 60 * 60);
    let folder = tempfile::tempdir().expect("a temporary directory");
    let now = SystemTime::now();
    for (end, severity, words) in [
        (now - DAY, "wrong", "has expired"),
        (now + 3 * DAY, "warning", "expires in"),
        (now + 90 * DAY, "fine", "valid for more than"),
    ] {
        let (certificate, key) = (folder.path().join("tls.crt"), folder.path().join("tls.key"));
        let mut wanted = CertificateParams::new(vec!["localhost".to_owned()]).expect("a name");
        (wanted.not_before, wanted.not_after) = ((now - 9 * DAY).into(), end.into());
        let pair = KeyPair::generate().expect("a key");
        std::fs::write(&certificate, wanted.self_signed(&pair).expect("signed").pem()).expect("written");
        std::fs::write(&key, pair.serialize_pem()).expect("written");
        let found = doctor()
            .with("TLS_CERT", &certificate.to_string_lossy())
            .with("TLS_KEY", &key.to_string_lossy())
            .look()
            .await;
        found.mend(severity, words);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_identity_provider_tokens_and_redis_are_checked() {
    let database = Database::migrated().await;
    let doctor = || Doctor::of(&database).with("AUTH", "on");
    assert!(doctor().look().await.mend("warning", "neither a usable token").contains("pycrudapi token create"));
    let found = doctor()
        .with("AUTH_ISSUER", "http://127.0.0.1:1")
        .with("AUTH_AUDIENCE", "here")
        .with("REDIS_URL", "redis://user:planted-secret@127.0.0.1:1/0")
        .look()
        .await;
    found.mend("wrong", "the identity provider's keys cannot be read");
    found.mend("warning", "Redis cannot be used");
    assert!(!found.text.contains("planted-secret"), "{}", found.text);
    doctor().with("AUTH_AUDIENCE", "here").look().await.mend("wrong", "AUTH_ISSUER must also be set");

    let client = database.client().await;
    let token = "insert into api_tokens (id, name, hash, scopes, expires_at) \
        values (gen_random_uuid(), 'soon', decode(repeat('00', 32), 'hex'), 'admin', now() + interval '1 day')";
    client.batch_execute(token).await.expect("planted");
    let found = doctor().look().await;
    found.expect_none("neither a usable token");
    assert!(found.mend("warning", "the token soon expires").contains("pycrudapi token rotate"));
}
