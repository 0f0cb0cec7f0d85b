//! Lists on a replica: a real streaming standby, created by `pg_basebackup`, whose replay is paused, delayed, broken and
//! stopped.

mod clients;
mod states;
mod writes;

use std::path::Path;
use std::process::Command;

use pycrudapi::db::conninfo::ConnInfo;
use pycrudapi::db::embedded::{Embedded, Options, Programs};
use pycrudapi::db::migrate;
use reqwest::{Method, StatusCode};
use tokio_postgres::Client;
use tokio_postgres::config::Host;

use crate::failures::own_postgres;
use crate::harness::{Answer, TestApp, eventually, send};

/// The header of responses to changes that is sent back with lists.
const TOKEN: &str = "database-lsn";

/// A primary, its standby, and a service that reads lists from the standby.
struct Rig {
    app: TestApp,
    primary: Embedded,
    /// `None` once it was stopped.
    standby: Option<Embedded>,
    folder: tempfile::TempDir,
    _data: tempfile::TempDir,
}

fn socket(postgres: &Embedded) -> String {
    let config = postgres.config();
    let [Host::Unix(folder)] = config.get_hosts() else { panic!("one socket") };
    folder.display().to_string()
}

async fn connect(postgres: &Embedded) -> Client {
    let conninfo = ConnInfo::from_config(postgres.config()).expect("no TLS required");
    migrate::connect(&conninfo).await.expect("connected")
}

/// Copies the primary to a directory on which a standby can be started.
fn copy(primary: &Embedded, folder: &Path) {
    let version = std::fs::read_to_string(primary.data_dir().join("data/PG_VERSION")).expect("a cluster");
    let search_path = std::env::var_os("PATH");
    let options = Options { search_path, pg_bin: std::env::var_os("PG_BIN").map(Into::into), ..Options::default() };
    let programs = Programs::find(&options, version.trim().parse().expect("a number")).expect("installed");
    let home = folder.join("embedded");
    std::fs::create_dir_all(&home).expect("created");
    let data = home.join("data");
    let mut command = programs.command("pg_basebackup", folder).expect("installed");
    let output = command
        .args(["--wal-method=stream", "--checkpoint=fast", "--write-recovery-conf", "--username=postgres"])
        .arg(format!("--host={}", socket(primary)))
        .arg(format!("--pgdata={}", data.display()))
        .output()
        .expect("it runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    // PostgreSQL runs under the account that owns the primary's data.
    let owner =
        Command::new("chown").arg("-R").arg("--reference").arg(primary.data_dir().join("data")).arg(&data).status();
    assert!(owner.expect("chown runs").success());
}

impl Rig {
    /// Starts with these settings of the standby and flags of the service; returns once lists are read from the standby.
    async fn start(settings: &[(&str, &str)], flags: &[&str]) -> Self {
        let (primary, data) = own_postgres(Vec::new());
        let folder = tempfile::tempdir_in("/tmp").expect("a temporary directory");
        use std::os::unix::fs::PermissionsExt;
        std::fs::set_permissions(folder.path(), std::fs::Permissions::from_mode(0o755)).expect("permitted");
        tokio::task::block_in_place(|| copy(&primary, folder.path()));
        let standby = tokio::task::block_in_place(|| stand_by(folder.path(), settings));
        let url = format!("--database-read-url=host={}", socket(&standby));
        let conninfo = ConnInfo::from_config(primary.config()).expect("no TLS required");
        let app = TestApp::start_on(&conninfo, &[&[&*url], flags].concat()).await;
        app.until_ready().await;
        let rig = Self { app, primary, standby: Some(standby), folder, _data: data };
        rig.until("ok").await;
        rig
    }

    /// Waits until readiness reports this state of the replica.
    async fn until(&self, state: &str) {
        eventually(|| async {
            let answer = self.app.get("/readyz").await;
            if answer.json()["replica"]["state"] == state { Ok(()) } else { Err(answer.body) }
        })
        .await;
    }

    async fn at_standby(&self, sql: &str) {
        let client = connect(self.standby.as_ref().expect("it runs")).await;
        client.batch_execute(sql).await.unwrap_or_else(|error| panic!("{sql}: {error:?}"));
    }

    /// Pauses replay, so that the standby keeps its current state.
    async fn hold(&self) {
        self.catch_up().await;
        self.at_standby("select pg_wal_replay_pause()").await;
        let client = connect(self.standby.as_ref().expect("it runs")).await;
        eventually(|| async {
            let row = client.query_one("select pg_get_wal_replay_pause_state()", &[]).await.expect("queried");
            let state: String = row.get(0);
            if state == "paused" { Ok(()) } else { Err(state) }
        })
        .await;
    }

    /// The doctor's output about the two servers.
    async fn doctor(&self) -> String {
        let standby = self.standby.as_ref().expect("it runs");
        let mut command = Command::new(env!("CARGO_BIN_EXE_pycrudapi"));
        command.args(["doctor", "--format", "json"]).env_clear().env("HTTP_PORT", "9");
        command.env("DATABASE_URL", format!("host={} user=pycrudapi dbname=postgres", socket(&self.primary)));
        command.env("DATABASE_READ_URL", format!("host={}", socket(standby)));
        let output =
            tokio::task::spawn_blocking(move || command.output().expect("the program runs")).await.expect("no panic");
        String::from_utf8(output.stdout).expect("UTF-8")
    }

    async fn go_on(&self) {
        self.at_standby("select pg_wal_replay_resume()").await;
    }

    /// Waits until the standby has replayed everything written on the primary.
    async fn catch_up(&self) {
        let position = "select (pg_current_wal_flush_lsn() - '0/0')::int8";
        let primary: i64 = connect(&self.primary).await.query_one(position, &[]).await.expect("queried").get(0);
        let client = connect(self.standby.as_ref().expect("it runs")).await;
        let replayed = "select (pg_last_wal_replay_lsn() - '0/0')::int8";
        eventually(|| async {
            let standby: i64 = client.query_one(replayed, &[]).await.expect("queried").get(0);
            if standby >= primary { Ok(()) } else { Err(format!("{standby} of {primary}")) }
        })
        .await;
    }

    /// Sends a GET request with or without a token.
    async fn get(&self, path: &str, token: Option<&str>) -> Answer {
        let request = self.app.request(Method::GET, path);
        let answer = send(match token {
            Some(token) => request.header(TOKEN, token),
            None => request,
        })
        .await;
        answer.expect(StatusCode::OK);
        answer
    }
}

fn stand_by(folder: &Path, settings: &[(&str, &str)]) -> Embedded {
    let options = Options {
        data_dir: folder.to_owned(),
        search_path: std::env::var_os("PATH"),
        pg_bin: std::env::var_os("PG_BIN").map(Into::into),
        extra_settings: settings.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect(),
    };
    Embedded::start(&options).expect("the standby starts")
}
