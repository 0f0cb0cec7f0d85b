//! Directories, servers and queries for the tests of this module.
//!
//! No wait is longer than `DEADLINE`. Invariant: whatever it starts ends with the test.

use std::fs::{self, Metadata, Permissions};
use std::io::{BufRead, BufReader};
use std::os::unix::fs::{MetadataExt, PermissionsExt, fchown};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex, Weak};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use tokio_postgres::{Config, NoTls, SimpleQueryMessage};

use crate::db::embedded::{Embedded, Options, account, binaries, cluster, postmaster_file, spawn};

/// Creates data, and reads it again.
pub const MAKE: &str = "create table kept (n int); insert into kept values (42)";
pub const KEPT: &str = "select n from kept";

/// "At once": the limit is two seconds and the usual time a quarter of one, but on a machine busy with other tests no such
/// bound holds. This one is below the 10 s after which a process that does not exit is killed, so that a test that waits for
/// that fails.
pub const AT_ONCE: Duration = Duration::from_secs(8);
const DEADLINE: Duration = Duration::from_secs(30);
/// Passes the directory to the server process.
const DIR_VARIABLE: &str = "EMBEDDED_TEST_DIR";
const READY: &str = "postmaster=";

/// A temporary directory that PostgreSQL's account can enter.
pub struct Dir {
    dir: tempfile::TempDir,
    /// Kept for others to copy while any copy exists; a static one would never be removed.
    original: Option<Arc<Dir>>,
}

impl Dir {
    pub fn new() -> Self {
        let open = Permissions::from_mode(0o755);
        let dir = tempfile::Builder::new().permissions(open).tempdir().expect("a temporary directory");
        Self { dir, original: None }
    }

    /// With a cluster in it, copied, which is ten times as fast as initdb.
    pub fn with_cluster() -> Self {
        let original = Self::original();
        let mut copy = Self::new();
        let copied = Command::new("cp").arg("-a").arg(original.path().join("embedded")).arg(copy.path()).status();
        assert!(copied.expect("cp").success());
        copy.original = Some(original);
        copy
    }

    fn original() -> Arc<Self> {
        static ORIGINAL: Mutex<Weak<Dir>> = Mutex::new(Weak::new());
        let mut shared = ORIGINAL.lock().expect("no test fails while it holds this");
        if let Some(original) = shared.upgrade() {
            return original;
        }
        let original = Arc::new(Self::new());
        drop(Embedded::start(&options(original.path())).expect("a cluster to copy"));
        fs::remove_dir(original.path().join("embedded/run")).expect("an empty socket directory");
        *shared = Arc::downgrade(&original);
        original
    }

    pub fn path(&self) -> &Path {
        self.dir.path()
    }
}

pub fn options(data_dir: &Path) -> Options {
    Options { data_dir: data_dir.to_path_buf(), search_path: std::env::var_os("PATH"), ..Options::default() }
}

/// The first column of the last row, as text.
pub fn pg(config: &Config, sql: &str) -> Result<String, tokio_postgres::Error> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        let (client, connection) = config.connect(NoTls).await?;
        let connection = tokio::spawn(connection);
        let answer = client.simple_query(sql).await;
        drop(client);
        let _ = connection.await;
        let text = |message: SimpleQueryMessage| match message {
            SimpleQueryMessage::Row(row) => row.get(0).map(str::to_owned),
            _ => None,
        };
        Ok(answer?.into_iter().filter_map(text).next_back().unwrap_or_default())
    })
}

pub fn query(server: &Embedded, sql: &str) -> Result<String, tokio_postgres::Error> {
    pg(&server.config(), sql)
}

#[track_caller]
pub fn await_answer(server: &Embedded, sql: &str) -> String {
    let mut answer = None;
    await_true("an answer", || {
        answer = query(server, sql).ok();
        answer.is_some()
    });
    answer.expect("just seen")
}

#[track_caller]
pub fn await_true(what: &str, mut holds: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !holds() {
        assert!(begun.elapsed() < DEADLINE, "not within {DEADLINE:?}: {what}");
        thread::sleep(Duration::from_millis(5)); // between two checks of another process's condition
    }
}

/// kill -9, unless it has exited by itself.
pub fn kill(pid: u32) {
    let pid = Pid::from_raw(i32::try_from(pid).expect("a pid")).expect("not 0");
    let killed = kill_process(pid, Signal::KILL);
    assert!(matches!(killed, Ok(()) | Err(rustix::io::Errno::SRCH)), "{killed:?}");
}

/// All processes whose working directory is at or below `dir`, whatever their name.
pub fn processes_in(dir: &Path) -> Vec<u32> {
    let dir = fs::canonicalize(dir).expect("canonical");
    let entries = fs::read_dir("/proc").expect("/proc").flatten();
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    pids.filter(|pid| fs::read_link(format!("/proc/{pid}/cwd")).is_ok_and(|cwd| cwd.starts_with(&dir))).collect()
}

/// A process with an embedded PostgreSQL: this test program, run again.
pub struct Server {
    process: Child,
    dir: PathBuf,
    postmaster: u32,
}

impl Server {
    pub fn start(dir: &Path) -> Self {
        Self::start_with(&[], dir)
    }

    /// `wrapper` is a command that runs the rest of its arguments in its place.
    pub fn start_with(wrapper: &[&str], dir: &Path) -> Self {
        let this = std::env::current_exe().expect("a test program");
        let (_, module) = module_path!().split_once("::").expect("a crate");
        let name = format!("{}::crashes::a_server_to_kill", module.trim_end_matches("::harness"));
        let mut words = wrapper.iter().map(PathBuf::from).chain([this]);
        let mut command = Command::new(words.next().expect("at least the test program"));
        command.args(words).args(["--exact", &name, "--ignored", "--nocapture"]);
        command.env(DIR_VARIABLE, dir).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut process = command.spawn().expect("a server process");
        let lines = BufReader::new(process.stdout.take().expect("piped")).lines();
        let ready = lines.map_while(Result::ok).find_map(|line| line.split(READY).nth(1)?.parse().ok());
        Self { process, dir: dir.join("embedded"), postmaster: ready.expect("a ready server") }
    }

    pub fn pid(&self) -> u32 {
        self.process.id()
    }

    pub fn config(&self) -> Config {
        let mut config = Config::new();
        config.host_path(self.dir.join("run")).user("postgres").dbname("postgres");
        config
    }

    /// kill -9; returns when it has exited.
    pub fn kill(&mut self) {
        self.process.kill().expect("kill");
        self.process.wait().expect("wait");
    }

    /// kill -9 of both, without time for one to react to the other's end.
    pub fn kill_both(&mut self) {
        self.process.kill().expect("kill");
        kill(self.postmaster);
        self.process.wait().expect("wait");
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Runs in the process of [`Server`]: serves until killed, or until the test that started it has exited.
pub fn serve_until_killed() {
    let Some(dir) = std::env::var_os(DIR_VARIABLE) else {
        return;
    };
    let server = Embedded::start(&options(Path::new(&dir))).expect("a start");
    println!("\n{READY}{}", server.pid().expect("a pid"));
    let _ = std::io::stdin().lines().count();
}

/// A process that shares only the user and the working directory with PostgreSQL.
pub fn stranger(dir: &Path, owner: &Metadata) -> Child {
    let mut command = Command::new("sleep");
    command.arg("60").current_dir(dir);
    if rustix::process::geteuid().is_root() {
        command.uid(owner.uid()).gid(owner.gid());
    }
    command.spawn().expect("sleep")
}

/// A lock file as a postmaster with this pid would have left it.
pub fn claim(file: &Path, pid: u32, owner: &Metadata) {
    let parent = file.parent().expect("in a directory");
    if !parent.exists() {
        fs::create_dir(parent).expect("mkdir");
    }
    owned(file, &format!("{pid}\n{}\n1700000000\n5432\n\n\n", parent.display()), owner);
}

/// A file as PostgreSQL's user would have written it.
pub fn owned(file: &Path, text: &str, owner: &Metadata) {
    fs::write(file, text).expect("write");
    let opened = fs::File::open(file).expect("open");
    fchown(&opened, Some(owner.uid()), Some(owner.gid())).expect("chown");
    opened.set_permissions(Permissions::from_mode(0o600)).expect("chmod");
}

/// A postmaster without a supervisor: as after a server was killed on a system without parent-death signals.
pub fn unsupervised(dir: &Path) -> Child {
    let home = dir.join("embedded");
    let data = home.join("data");
    let version = cluster::version(&data).expect("a cluster");
    let runner = account::for_root().expect("an account");
    let path = std::env::var_os("PATH");
    let sources = binaries::Sources { pg_bin: None, search_path: path.as_deref(), account: runner };
    let found = binaries::find(&sources, &data, version).expect("binaries");
    let mut command = spawn::command(&found.dir.join("postgres"), &data, runner, Signal::KILL);
    command.arg("-D").arg(&data).arg("-k").arg(&data).args(["-c", "listen_addresses="]);
    let child = command.stderr(Stdio::null()).spawn().expect("a postmaster");
    await_true("the postmaster is ready", || postmaster_file::read(&data).is_some_and(|claim| claim.ready));
    child
}
