//! Backups of a running service, and their restores.

mod faults;
mod instants;
mod leftovers;
mod logical;
mod physical;

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

use pycrudapi::db::conninfo::ConnInfo;
use pycrudapi::db::embedded::{Embedded, Options};
use tokio_postgres::Client;

use crate::failures::own_postgres;
use crate::harness::TestApp;
use crate::transfer::succeeded;

/// A service on its own embedded database, and a folder for its backups.
struct Rig {
    app: TestApp,
    _postgres: Embedded,
    data: tempfile::TempDir,
    folder: tempfile::TempDir,
}

impl Rig {
    async fn start() -> Self {
        let (postgres, data) = own_postgres(Vec::new());
        let conninfo = ConnInfo::from_config(postgres.config()).expect("no TLS required");
        let app = TestApp::start_on(&conninfo, &[]).await;
        app.until_ready().await;
        Self { app, _postgres: postgres, data, folder: open_folder() }
    }

    fn folder(&self) -> &Path {
        self.folder.path()
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_pycrudapi"));
        command
            .args(arguments)
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .env("DATA_DIR", self.data.path())
            .env("BACKUP_DIR", self.folder())
            .stdin(Stdio::null());
        command
    }

    fn program(&self, arguments: &[&str]) -> Output {
        self.command(arguments).output().expect("the program runs")
    }

    /// Makes a backup and returns its id.
    fn backup(&self, arguments: &[&str]) -> String {
        let said = succeeded(self.program(&[&["backup"], arguments].concat()));
        let id = said.strip_prefix("backup ").and_then(|rest| rest.split(',').next());
        id.unwrap_or_else(|| panic!("no id in {said}")).to_owned()
    }

    /// Restores into a new directory.
    fn restore(&self, arguments: &[&str]) -> Restored {
        let into = open_folder();
        let place = into.path().join("new");
        let at = place.to_str().expect("UTF-8");
        let said = succeeded(self.program(&[&["restore", "--into", at], arguments].concat()));
        assert!(said.contains(&format!("DATA_DIR={at} make up")), "{said}");
        Restored { place, _into: into }
    }
}

/// A directory into which a backup was restored.
struct Restored {
    place: PathBuf,
    _into: tempfile::TempDir,
}

impl Restored {
    /// Starts the PostgreSQL that `make up` would start.
    fn start(&self) -> Embedded {
        Embedded::start(&options(&self.place)).expect("it starts")
    }

    /// The names of the restored passengers.
    async fn names(&self) -> Vec<String> {
        let postgres = self.start();
        names(&connect(&postgres).await).await
    }
}

fn options(data_dir: &Path) -> Options {
    Options { data_dir: data_dir.to_owned(), search_path: std::env::var_os("PATH"), ..Options::default() }
}

/// A directory that PostgreSQL's account may enter.
fn open_folder() -> tempfile::TempDir {
    use std::os::unix::fs::PermissionsExt;
    let open = std::fs::Permissions::from_mode(0o755);
    tempfile::Builder::new().permissions(open).tempdir_in("/tmp").expect("a temporary directory")
}

async fn connect(postgres: &Embedded) -> Client {
    let conninfo = ConnInfo::from_config(postgres.config()).expect("no TLS required");
    pycrudapi::db::migrate::connect(&conninfo).await.expect("connected")
}

async fn names(client: &Client) -> Vec<String> {
    let rows = client.query("select name from passengers order by name", &[]).await.expect("listed");
    rows.iter().map(|row| row.get(0)).collect()
}

/// A running `backup --follow`, which is killed on drop.
struct Follower(Child);

impl Follower {
    /// Returns once it receives WAL.
    fn start(rig: &Rig, arguments: &[&str]) -> Self {
        Self::spawn(rig.command(&[&["backup", "--follow"], arguments].concat()))
    }

    fn spawn(mut command: Command) -> Self {
        let mut child = command.stdout(Stdio::piped()).spawn().expect("the program runs");
        let mut lines = BufReader::new(child.stdout.take().expect("piped")).lines().map_while(Result::ok);
        assert!(lines.any(|line| line.starts_with("following")), "it exited before it received WAL");
        Self(child)
    }
}

impl Drop for Follower {
    fn drop(&mut self) {
        let _ = self.0.kill(); // it may have exited
        let _ = self.0.wait();
    }
}

/// The time up to which all WAL was received, according to the folder.
fn received(folder: &Path) -> Option<jiff::Timestamp> {
    let timelines = std::fs::read_dir(folder.join("wal")).ok()?.flatten();
    let newest = timelines.map(|timeline| timeline.path()).max()?;
    let text = std::fs::read_to_string(newest.join("received.json")).ok()?;
    let value: serde_json::Value = serde_json::from_str(&text).ok()?;
    value["at"].as_str()?.parse().ok()
}
