//! kill -9 of the server, the postmaster and both, and other states that a start may find.
//!
//! Nothing is stopped gracefully. Invariant: after each crash, the data is there.

use std::fs;
use std::process::Command;
use std::time::Instant;

use super::harness::{
    self, AT_ONCE, Dir, KEPT, MAKE, Server, await_answer, await_true, kill, options, pg, processes_in, query,
};
use crate::db::embedded::Embedded;

#[test]
fn a_killed_postmaster_is_replaced_at_once_with_its_data() {
    let dir = Dir::with_cluster();
    let server = Embedded::start(&options(dir.path())).expect("a start");
    query(&server, MAKE).expect("a table");
    let first = server.pid().expect("a pid");
    for _ in 0..2 {
        let begun = Instant::now();
        kill(server.pid().expect("a pid"));
        assert_eq!(await_answer(&server, KEPT), "42");
        println!("back after {:?}", begun.elapsed());
        assert!(begun.elapsed() < AT_ONCE, "{:?}", begun.elapsed());
    }
    assert_ne!(server.pid(), Some(first));
}

#[test]
fn backends_busy_when_their_postmaster_is_killed_do_not_block_the_next() {
    let dir = Dir::with_cluster();
    let server = Embedded::start(&options(dir.path())).expect("a start");
    let config = server.config();
    // Busy without ever waiting, which is when it would detect that the postmaster has exited.
    let spin = "do $$ begin loop end loop; end $$";
    let busy = std::thread::spawn(move || pg(&config, spin));
    await_true("the backend is busy", || {
        query(&server, "select count(*) from pg_stat_activity where query like 'do %' and state = 'active'")
            .is_ok_and(|count| count == "1")
    });
    let begun = Instant::now();
    kill(server.pid().expect("a pid"));
    await_answer(&server, "select 1");
    assert!(begun.elapsed() < AT_ONCE, "{:?}", begun.elapsed());
    busy.join().expect("no panic").expect_err("its connection is lost");
}

#[test]
fn a_killed_server_takes_postgresql_with_it() {
    let dir = Dir::with_cluster();
    let mut server = Server::start(dir.path());
    server.kill();
    await_true("no process is left", || processes_in(dir.path()).is_empty());
    let next = Embedded::start(&options(dir.path())).expect("a start");
    assert_eq!(query(&next, "select 1").expect("an answer"), "1");
}

#[test]
fn the_next_server_starts_at_once_after_a_killed_one() {
    let dir = Dir::with_cluster();
    let mut server = Server::start(dir.path());
    pg(&server.config(), MAKE).expect("a table");
    server.kill();
    let begun = Instant::now();
    let next = Embedded::start(&options(dir.path())).expect("a start");
    assert!(begun.elapsed() < AT_ONCE, "{:?}", begun.elapsed());
    assert_eq!(query(&next, KEPT).expect("an answer"), "42");
}

#[test]
fn the_next_server_starts_at_once_after_both_were_killed() {
    let dir = Dir::with_cluster();
    let mut server = Server::start(dir.path());
    pg(&server.config(), MAKE).expect("a table");
    server.kill_both();
    let begun = Instant::now();
    let next = Embedded::start(&options(dir.path())).expect("a start");
    assert!(begun.elapsed() < AT_ONCE, "{:?}", begun.elapsed());
    assert_eq!(query(&next, KEPT).expect("an answer"), "42");
}

#[test]
fn an_interrupted_initdb_is_repeated() {
    let dir = Dir::new();
    let unfinished = dir.path().join("embedded/data.new");
    fs::create_dir_all(unfinished.join("base")).expect("mkdir");
    fs::write(unfinished.join("PG_VERSION"), "15\n").expect("write");
    let server = Embedded::start(&options(dir.path())).expect("a start");
    assert_eq!(query(&server, "select 1").expect("an answer"), "1");
    assert!(!server.data_dir().join("data.new").exists());
}

#[test]
fn another_process_with_the_pid_in_the_file_survives_and_does_not_block_the_start() {
    let dir = Dir::with_cluster();
    let home = dir.path().join("embedded");
    // As PostgreSQL's own user, because PostgreSQL ignores other users' processes, and with the cluster as its working
    // directory, as a user looking at the files would have.
    let owner = fs::metadata(home.join("data")).expect("a cluster");
    let mut stranger = harness::stranger(&home.join("data"), &owner);
    for file in ["data/postmaster.pid", "run/.s.PGSQL.5432.lock"] {
        harness::claim(&home.join(file), stranger.id(), &owner);
    }
    let server = Embedded::start(&options(dir.path())).expect("a start");
    assert_eq!(query(&server, "select 1").expect("an answer"), "1");
    drop(server);
    assert!(stranger.try_wait().expect("a child").is_none(), "an unrelated process was killed");
    stranger.kill().expect("kill");
    stranger.wait().expect("wait");
}

#[test]
fn an_empty_pid_file_does_not_block_the_start() {
    let dir = Dir::with_cluster();
    let data = dir.path().join("embedded/data");
    let owner = fs::metadata(&data).expect("a cluster");
    harness::owned(&data.join("postmaster.pid"), "", &owner);
    Embedded::start(&options(dir.path())).expect("a start");
}

#[test]
fn a_stop_leaves_no_process() {
    let dir = Dir::with_cluster();
    let server = Embedded::start(&options(dir.path())).expect("a start");
    assert!(!processes_in(dir.path()).is_empty(), "the test sees no processes at all");
    server.stop();
    assert_eq!(processes_in(dir.path()), Vec::<u32>::new());
    assert_eq!(server.pid(), None);
    server.stop();
}

#[test]
fn the_thread_that_started_it_may_end() {
    let dir = Dir::with_cluster();
    let options = options(dir.path());
    let server = std::thread::spawn(move || Embedded::start(&options)).join().expect("no panic").expect("a start");
    // The end of that thread would have been signalled to the postmaster before `join` returned.
    let first = server.pid();
    assert_eq!(query(&server, "select 1").expect("an answer"), "1");
    assert_eq!(server.pid(), first);
}

/// Not a test: the server that other tests kill, in a separate process.
#[test]
#[ignore = "run by other tests"]
fn a_server_to_kill() {
    harness::serve_until_killed();
}

/// A process that reads `/proc` without the privilege to trace, like root in most containers.
#[test]
fn leftover_processes_are_found_without_the_privilege_to_trace() {
    let has_setpriv = Command::new("setpriv").arg("--version").output().is_ok();
    if !rustix::process::geteuid().is_root() || !has_setpriv {
        return;
    }
    let dir = Dir::with_cluster();
    let mut postmaster = harness::unsupervised(dir.path());
    let unprivileged = Server::start_with(&["setpriv", "--bounding-set", "-sys_ptrace"], dir.path());
    assert_eq!(pg(&unprivileged.config(), "select 1").expect("an answer"), "1");
    assert!(postmaster.wait().expect("a child").success(), "it was not stopped gracefully");
}
