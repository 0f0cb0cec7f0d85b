//! Directories that are long, odd, inaccessible, linked, or owned by others.
//!
//! The real fallback below /var is not used. Invariant: existing files remain.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use super::harness::{Dir, KEPT, MAKE, options, query};
use crate::db::embedded::{Embedded, EmbeddedError, data_dir_of};

#[test]
fn a_directory_that_is_not_a_cluster_is_left_unchanged() {
    let dir = Dir::new();
    let precious = dir.path().join("embedded/data/precious");
    fs::create_dir_all(&precious).expect("mkdir");
    let error = Embedded::start(&options(dir.path())).expect_err("a refusal");
    assert!(matches!(error, EmbeddedError::NotACluster { .. }), "{error}");
    assert!(precious.exists());
}

#[test]
fn a_version_that_cannot_be_read_is_reported_as_that() {
    let dir = Dir::new();
    fs::create_dir_all(dir.path().join("embedded/data/PG_VERSION")).expect("mkdir");
    let error = Embedded::start(&options(dir.path())).expect_err("a refusal");
    assert!(matches!(error, EmbeddedError::File { .. }), "{error}");
}

#[test]
fn a_long_or_odd_path_works() {
    let dir = Dir::with_cluster();
    let deep = dir.path().join("so, \"odd\" a name").join("d".repeat(120));
    fs::create_dir_all(&deep).expect("mkdir");
    fs::rename(dir.path().join("embedded"), deep.join("embedded")).expect("rename");
    let server = Embedded::start(&options(&deep)).expect("a start");
    let socket_dir = server.socket_dir.clone();
    assert!(socket_dir.starts_with("/tmp") && socket_dir.exists(), "{}", socket_dir.display());
    assert_eq!(query(&server, "select 1").expect("an answer"), "1");
    drop(server);
    assert!(!socket_dir.exists(), "{} is left behind", socket_dir.display());
}

#[test]
fn an_odd_path_of_acceptable_length_contains_its_socket() {
    let dir = Dir::with_cluster();
    let odd = dir.path().join("a, \"b\"");
    fs::create_dir(&odd).expect("mkdir");
    fs::rename(dir.path().join("embedded"), odd.join("embedded")).expect("rename");
    let server = Embedded::start(&options(&odd)).expect("a start");
    assert!(server.socket_dir.starts_with(server.data_dir()));
    assert_eq!(query(&server, "select 1").expect("an answer"), "1");
}

#[test]
fn a_file_in_place_of_the_directory_is_reported_and_nothing_is_created_elsewhere() {
    let (dir, fallback) = (Dir::new(), Dir::new());
    let file = dir.path().join("file");
    fs::write(&file, "precious").expect("written");
    for requested in [file.clone(), file.join("below"), file.join("below/that")] {
        let error = Embedded::start_or_fall_back(&options(&requested), fallback.path()).expect_err("a refusal");
        assert!(matches!(error, EmbeddedError::NoDirectory { .. }), "{error}");
        assert!(error.to_string().contains(&format!("{} is a file", file.display())), "{error}");
        assert!(error.to_string().contains("DATA_DIR"), "{error}");
    }
    assert_eq!(fs::read_to_string(&file).expect("read"), "precious");
    assert_eq!(fs::read_dir(fallback.path()).expect("listed").count(), 0);
}

#[test]
fn a_link_in_place_of_the_socket_directory_is_refused() {
    let dir = Dir::with_cluster();
    let elsewhere = Dir::new();
    symlink(elsewhere.path(), dir.path().join("embedded/run")).expect("symlink");
    let error = Embedded::start(&options(dir.path())).expect_err("a refusal");
    assert!(matches!(error, EmbeddedError::NotOurs { .. }), "{error}");
}

#[test]
fn two_directories_inaccessible_to_the_account_fall_back_to_two_others() {
    if !rustix::process::geteuid().is_root() {
        return; // PostgreSQL then runs as the current user, who can access its own directories.
    }
    let (closed, fallback) = (Dir::new(), Dir::new());
    fs::set_permissions(closed.path(), fs::Permissions::from_mode(0o700)).expect("chmod");
    let start = |name: &str| {
        Embedded::start_or_fall_back(&options(&closed.path().join(name)), fallback.path()).expect("a start")
    };
    let (first, second) = (start("a"), start("b"));
    query(&first, MAKE).expect("a table");
    assert!(first.data_dir().starts_with(fallback.path()), "{}", first.data_dir().display());
    assert_ne!(first.data_dir(), second.data_dir());
    assert!(!closed.path().join("a").exists(), "made something it does not use");
    drop(first);

    fs::set_permissions(closed.path(), fs::Permissions::from_mode(0o755)).expect("chmod");
    let again = start("a");
    assert_eq!(query(&again, KEPT).expect("an answer"), "42", "the data stays where it is");
}

#[test]
fn a_cluster_that_has_become_inaccessible_is_an_error_and_not_replaced_by_an_empty_one() {
    if !rustix::process::geteuid().is_root() {
        return;
    }
    let (dir, fallback) = (Dir::with_cluster(), Dir::new());
    fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o700)).expect("chmod");
    let error = Embedded::start_or_fall_back(&options(dir.path()), fallback.path()).expect_err("a refusal");
    assert!(error.to_string().contains("chmod o+x"), "{error}");
}

#[test]
fn the_default_directory_follows_the_standard() {
    let dir = |xdg: Option<&str>, home: Option<&str>| data_dir_of(false, xdg.map(str::as_ref), home.map(str::as_ref));
    assert_eq!(dir(Some("/x"), Some("/h")), Some(PathBuf::from("/x/pycrudapi")));
    assert_eq!(dir(Some("relative"), Some("/h")), Some(PathBuf::from("/h/.local/share/pycrudapi")));
    assert_eq!(dir(None, None), None);
    assert_eq!(data_dir_of(true, None, Some("/root".as_ref())).as_deref(), Some(Path::new("/var/lib/pycrudapi")));
}
