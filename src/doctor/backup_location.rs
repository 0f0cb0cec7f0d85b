//! The location of backups: whether the directory or bucket can be used, and whether the configured key decrypts the newest
//! backup in it.

use std::fs;
use std::io::{self, Read};
use std::path::Path;
use std::time::Duration;

use anyhow::anyhow;
use jiff::Timestamp;

use super::backup_runs::{AREA, BACKUP_AGE_MAX_HOURS};
use super::machine;
use super::report::Report;
use crate::backup::bucket::Bucket;
use crate::backup::folder::{self, Folder};
use crate::backup::record::Backup;
use crate::backup::seal::{self, Key, SUFFIX};
use crate::config::BackupPlaceConfig;
use crate::db::error_chain::error_chain;
use crate::shell::quoted;

/// Longest wait for a response of the store.
const TIMEOUT: Duration = Duration::from_secs(20);

/// Checks BACKUP_DIR and BACKUP_KEY_FILE.
pub async fn check(report: &mut Report, config: &BackupPlaceConfig) {
    let key = config.backup.key();
    if let Err(error) = &key {
        let remedy = "restore the file from its copy; openssl rand -hex 32 creates another key, which cannot decrypt \
         earlier backups";
        report.wrong(AREA, error_chain(error.as_ref()), remedy);
    }
    let Some(location) = config.backup_dir.as_deref() else { return };
    let newest = match config.bucket.bucket(location) {
        Err(error) => return report.setting(error_chain(error.as_ref()), "correct BACKUP_DIR or the AWS_ settings"),
        Ok(Some(bucket)) => in_bucket(report, &bucket, location).await,
        Ok(None) => in_folder(report, Path::new(location)),
    };
    let Some(newest) = newest else { return };
    age(report, &newest, location);
    if let Ok(key) = key {
        decrypts(report, &newest, key.as_ref(), location);
    }
}

/// The newest backup in a bucket, if the bucket can be listed and has one.
async fn in_bucket(report: &mut Report, bucket: &Bucket, location: &str) -> Option<Backup> {
    let timed_out = || anyhow!("the store of {location} does not respond within {} s", TIMEOUT.as_secs());
    match tokio::time::timeout(TIMEOUT, bucket.list()).await.unwrap_or_else(|_| Err(timed_out())) {
        Ok(backups) => newest(report, backups, location),
        Err(error) => {
            let remedy = format!(
                "check AWS_ENDPOINT_URL, AWS_REGION, AWS_ACCESS_KEY_ID, its secret and its permissions; then: pycrudapi \
                 backups --from {}",
                quoted(location)
            );
            report.wrong(AREA, error_chain(error.as_ref()), remedy);
            None
        }
    }
}

/// The newest backup in a directory, if there is one; also checks whether another can be written.
fn in_folder(report: &mut Report, path: &Path) -> Option<Backup> {
    let shown = path.display().to_string();
    let argument = quoted(&shown);
    if !path.is_dir() {
        let reason = fs::metadata(path).map_or_else(|error| error.to_string(), |_| "it is not a directory".to_owned());
        let remedy = format!(
            "mount its disk, or: mkdir -p {argument}, owned by the user that makes backups; or correct BACKUP_DIR"
        );
        report.wrong(AREA, format!("BACKUP_DIR={shown} cannot be used: {reason}"), remedy);
        return None;
    }
    machine::disk(report, "BACKUP_DIR", path);
    let listed = Folder::open(path).and_then(|folder| {
        let backups = folder.list()?;
        without_record(report, path, &backups);
        Ok((folder, backups))
    });
    match listed {
        Err(error) => {
            let remedy = format!(
                "chown -R the directory to the user that makes backups, and check as that user: ls -ld {argument}"
            );
            report.wrong(AREA, error_chain(error.as_ref()), remedy);
            None
        }
        Ok((folder, backups)) => {
            let newest = newest(report, backups, &shown)?;
            let missing =
                newest.files.iter().find_map(|file| lacks(&folder.directory(&newest).join(&file.path), file.bytes));
            if let Some(what) = missing {
                let remedy = format!(
                    "pycrudapi backup --to {argument}; pycrudapi backups --check --from {argument} checks the others"
                );
                report.wrong(AREA, format!("the newest backup, {}, is damaged: {what}", newest.id), remedy);
                return None;
            }
            Some(newest)
        }
    }
}

/// Reports directories that are named like a backup but have no record: restores ignore them.
fn without_record(report: &mut Report, path: &Path, known: &[Backup]) {
    for entry in fs::read_dir(path).into_iter().flatten().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        if folder::time_of(&name).is_some() && !known.iter().any(|backup| backup.id == name) {
            let what = format!("the backup {name} has no readable record and cannot be restored");
            report.warning(
                AREA,
                what,
                format!("rm -r {}, once there is another", quoted(&entry.path().to_string_lossy())),
            );
        }
    }
}

fn newest(report: &mut Report, mut backups: Vec<Backup>, location: &str) -> Option<Backup> {
    let count = backups.len();
    let newest = backups.pop();
    match &newest {
        None => {
            report.warning(
                AREA,
                format!("there is no backup in {location}"),
                format!("pycrudapi backup --to {}", quoted(location)),
            );
        }
        Some(newest) => report.fine(AREA, format!("{count} backups in {location}; the newest is {}", newest.id)),
    }
    newest
}

fn age(report: &mut Report, newest: &Backup, location: &str) {
    let Ok(at) = newest.state.instant() else { return };
    let hours = Timestamp::now().duration_since(at).as_hours();
    if hours > BACKUP_AGE_MAX_HOURS {
        let what = format!("the newest backup in {location} is {hours} hours old");
        report.warning(
            AREA,
            what,
            format!("pycrudapi backup --to {}, and find out why no backup is made every night", quoted(location)),
        );
    }
}

/// How a file's length differs from the recorded one; `backups --check` checks contents.
fn lacks(path: &Path, bytes: u64) -> Option<String> {
    match fs::metadata(path) {
        Err(error) => Some(format!("{}: {error}", path.display())),
        Ok(found) if found.len() != bytes => {
            Some(format!("{} has {} bytes instead of {bytes}", path.display(), found.len()))
        }
        Ok(_) => None,
    }
}

/// Checks whether the configured key decrypts the newest backup.
fn decrypts(report: &mut Report, newest: &Backup, key: Option<&Key>, location: &str) {
    let id = &newest.id;
    match (newest.key.as_deref(), key.map(Key::mark)) {
        (None, None) => {}
        (None, Some(_)) => {
            let what = format!("the newest backup, {id}, is not encrypted, although BACKUP_KEY_FILE is set");
            report.warning(AREA, what, format!("create an encrypted one: pycrudapi backup --to {}", quoted(location)));
        }
        (Some(mark), None) => {
            let what = format!("the newest backup, {id}, is encrypted with key {mark}, but BACKUP_KEY_FILE is not set");
            report.wrong(AREA, what, "BACKUP_KEY_FILE=/path/to/that/key");
        }
        (Some(mark), Some(given)) if mark != given => {
            let what = format!(
                "the newest backup, {id}, is encrypted with key {mark}, not with the one in BACKUP_KEY_FILE, {given}"
            );
            let remedy = format!(
                "set BACKUP_KEY_FILE to the file with key {mark}; if it is lost, make a backup with this key at once: \
                 pycrudapi backup --to {}",
                quoted(location)
            );
            report.wrong(AREA, what, remedy);
        }
        (Some(_), Some(_)) => match first_byte(newest, key, Path::new(location)) {
            Ok(()) => report.fine(AREA, "the key in BACKUP_KEY_FILE decrypts the newest backup"),
            Err(error) => {
                let location = quoted(location);
                let remedy = format!(
                    "pycrudapi backup --to {location}; pycrudapi backups --check --from {location} checks the others"
                );
                report.wrong(
                    AREA,
                    format!("the newest backup, {id}, cannot be opened: {}", error_chain(error.as_ref())),
                    remedy,
                );
            }
        },
    }
}

/// Decrypts the first byte of a file; does nothing for a backup in a bucket.
fn first_byte(newest: &Backup, key: Option<&Key>, folder: &Path) -> anyhow::Result<()> {
    let mut names = newest.files.iter().map(|file| format!("{}/{}", newest.id, file.path));
    match names.find(|name| name.ends_with(SUFFIX) && folder.join(name).exists()) {
        None => Ok(()),
        Some(name) => match seal::open(&folder.join(&name), &name, key)?.read_exact(&mut [0; 1]) {
            Err(error) if error.kind() != io::ErrorKind::UnexpectedEof => Err(error.into()),
            _ => Ok(()), // an empty table has no first byte
        },
    }
}
