//! Creates a cluster, and detects an existing one.
//!
//! A cluster is never created over existing files. Invariant: `data` is absent or a complete cluster on disk, even after a
//! power failure; an incomplete one is called `data.new`.

use std::fs;
use std::io::ErrorKind;
use std::path::Path;
use std::process::Output;
use std::time::Instant;

use rustix::process::Signal;
use tracing::info;

use super::binaries::Binaries;
use super::data_directory::DataDirectory;
use super::error::{self, EmbeddedError};
use super::{files, orphans, spawn};

/// The role that initdb creates and every local connection uses, if it has access to the socket.
pub(super) const SUPERUSER: &str = "postgres";

/// With the first, `lower('Ż')` works and text still sorts by code point; the second supports only ASCII and is for systems
/// without the first.
const LOCALES: [&str; 2] = ["C.UTF-8", "C"];

/// The major version of the cluster in `data`; none if the directory does not exist.
pub(super) fn version(data: &Path) -> Result<Option<u32>, EmbeddedError> {
    let file = data.join("PG_VERSION");
    match fs::read_to_string(&file) {
        Ok(text) => match text.trim().parse() {
            Ok(major) => Ok(Some(major)),
            Err(_) => Err(EmbeddedError::NotACluster { data: data.to_path_buf() }),
        },
        Err(failure) if failure.kind() != ErrorKind::NotFound => Err(error::file("read", &file)(failure)),
        Err(_) if data.symlink_metadata().is_ok() => Err(EmbeddedError::NotACluster { data: data.to_path_buf() }),
        Err(_) => Ok(None),
    }
}

/// Creates the cluster in a temporary directory and renames it when it is complete.
pub(super) fn create(directory: &DataDirectory, binaries: &Binaries) -> Result<(), EmbeddedError> {
    let begun = Instant::now();
    let unfinished = directory.home.join("data.new");
    let mut made = initdb(directory, binaries, &unfinished, LOCALES[0])?;
    if !made.status.success() {
        made = initdb(directory, binaries, &unfinished, LOCALES[1])?;
    }
    if !made.status.success() {
        return Err(EmbeddedError::Initdb { path: unfinished, status: made.status, output: output_text(&made) });
    }
    // initdb has synced the cluster; the rename also requires the directory around it to be synced.
    let data = directory.data();
    fs::rename(&unfinished, &data).map_err(error::file("rename", &unfinished))?;
    files::sync_dir(&directory.home)?;
    info!(
        postgres.data = %data.display(),
        postgres.version = %binaries.version,
        duration_ms = begun.elapsed().as_millis(),
        "made a new embedded postgresql cluster"
    );
    Ok(())
}

fn initdb(
    directory: &DataDirectory,
    binaries: &Binaries,
    unfinished: &Path,
    locale: &str,
) -> Result<Output, EmbeddedError> {
    clear(directory, unfinished)?;
    files::private_dir(unfinished, directory.account)?;
    let program = binaries.dir.join("initdb");
    spawn::command(&program, unfinished, directory.account, Signal::KILL)
        .arg("--pgdata")
        .arg(unfinished)
        .arg(format!("--locale={locale}"))
        .args(["--encoding=UTF8", "--auth=trust", "--username", SUPERUSER])
        .output()
        .map_err(|source| EmbeddedError::Spawn { program, uid: directory.uid(), source })
}

/// Removes the files of an interrupted start, after ending programs that may still be writing them.
fn clear(directory: &DataDirectory, unfinished: &Path) -> Result<(), EmbeddedError> {
    if unfinished.symlink_metadata().is_err() {
        return Ok(());
    }
    orphans::end(unfinished, directory.account)?;
    fs::remove_dir_all(unfinished).map_err(error::file("remove", unfinished))
}

fn output_text(output: &Output) -> String {
    let both = [&output.stdout[..], &output.stderr[..]].concat();
    String::from_utf8_lossy(&both).trim().to_owned()
}
