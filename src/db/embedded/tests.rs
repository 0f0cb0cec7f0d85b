//! Tests of the embedded PostgreSQL with real servers: one for each kind of failure.
//!
//! No test sleeps: every wait is for a condition, with a deadline. Invariant: each test has its own directory and leaves no
//! process in it.

mod crashes;
mod data_directory;
mod harness;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::time::Instant;

use super::{Embedded, EmbeddedError};
use harness::{Dir, KEPT, MAKE, Server, options, query};

#[test]
fn a_warm_start_finds_what_a_cold_start_left() {
    let dir = Dir::new();
    let begun = Instant::now();
    let cold = Embedded::start(&options(dir.path())).expect("a cold start");
    println!("cold start: {:?}", begun.elapsed());
    query(&cold, MAKE).expect("a table");
    drop(cold);
    let begun = Instant::now();
    let warm = Embedded::start(&options(dir.path())).expect("a warm start");
    println!("warm start: {:?}", begun.elapsed());
    assert_eq!(query(&warm, KEPT).expect("an answer"), "42");
    let home = fs::canonicalize(dir.path()).expect("canonical").join("embedded");
    assert_eq!(warm.data_dir(), home);
    for private in ["data", "run"] {
        let mode = fs::metadata(home.join(private)).expect(private).permissions().mode();
        assert_eq!(mode & 0o777, 0o700, "{private}");
    }
}

#[test]
fn it_is_durable_and_off_the_network_whatever_the_settings() {
    let dir = Dir::with_cluster();
    let mut options = options(dir.path());
    for (name, value) in [("fsync", "off"), ("listen_addresses", "*"), ("max_connections", "33")] {
        options.extra_settings.push((name.into(), value.into()));
    }
    let server = Embedded::start(&options).expect("a start");
    assert_eq!(query(&server, "show fsync").expect("an answer"), "on");
    assert_eq!(query(&server, "show listen_addresses").expect("an answer"), "");
    assert_eq!(query(&server, "show max_connections").expect("an answer"), "33");
}

#[test]
fn text_beyond_ascii_has_upper_and_lower_case() {
    let dir = Dir::with_cluster();
    let server = Embedded::start(&options(dir.path())).expect("a start");
    assert_eq!(query(&server, "select lower('ŻÓŁĆ')").expect("an answer"), "żółć");
}

#[test]
fn a_second_server_is_refused_with_the_pid_of_the_first() {
    let dir = Dir::with_cluster();
    let first = Embedded::start(&options(dir.path())).expect("a start");
    let error = Embedded::start(&options(dir.path())).expect_err("a refusal");
    assert!(matches!(error, EmbeddedError::InUse { .. }), "{error}");
    assert!(error.to_string().contains(&*first.data_dir().to_string_lossy()), "{error}");
    assert!(error.to_string().contains(&format!("pid {}", std::process::id())), "{error}");
    assert_eq!(query(&first, "select 1").expect("the first is unharmed"), "1");
    first.stop();
    Embedded::start(&options(dir.path())).expect("the directory is free after a stop");
}

#[test]
fn a_second_server_is_refused_across_processes() {
    let dir = Dir::with_cluster();
    let other = Server::start(dir.path());
    let error = Embedded::start(&options(dir.path())).expect_err("a refusal");
    assert!(error.to_string().contains(&format!("pid {}", other.pid())), "{error}");
}

#[test]
fn missing_binaries_are_reported_with_the_setting_or_the_command_that_fixes_it() {
    let dir = Dir::new();
    let mut options = options(dir.path());
    options.pg_bin = Some(dir.path().join("nothing"));
    let error = Embedded::start(&options).expect_err("a refusal");
    assert!(error.to_string().starts_with("PG_BIN="), "{error}");

    let data = dir.path().join("embedded/data");
    fs::create_dir_all(&data).expect("mkdir");
    fs::write(data.join("PG_VERSION"), "14\n").expect("write");
    let error = Embedded::start(&options).expect_err("a refusal");
    assert!(matches!(error, EmbeddedError::NoBinariesFor { major: 14, .. }), "{error}");
    assert!(error.to_string().contains("install"), "{error}");
}

#[test]
fn a_failed_start_shows_postgresqls_log() {
    let dir = Dir::with_cluster();
    let mut options = options(dir.path());
    options.extra_settings.push(("max_connections".into(), "many".into()));
    let error = Embedded::start(&options).expect_err("a refusal");
    assert!(error.to_string().contains("invalid value for parameter \"max_connections\""), "{error}");
    options.extra_settings.clear();
    Embedded::start(&options).expect("the directory is free after a failure");
}
