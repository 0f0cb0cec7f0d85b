//! Where backups are: whether the folder or bucket can be used, and whether the newest backup in it can be opened with the key that
//! there is.

use std::fs;
use std::io::{self, Read};
use std::path::Path;
use std::time::Duration;

use anyhow::anyhow;
use jiff::Timestamp;

use super::backups::{AREA, BACKUP_AGE_MAX_HOURS};
use super::machine;
use super::report::Report;
use crate::backup::bucket::Bucket;
use crate::backup::folder::{self, Folder};
use crate::backup::record::Backup;
use crate::backup::seal::{self, Key, SUFFIX};
use crate::config::BackupPlaceConfig;
use crate::db::error_chain::error_chain;

/// A store that says nothing for so long is away.
const PATIENCE: Duration = Duration::from_secs(20);

/// Looks at BACKUP_DIR, and at BACKUP_KEY_FILE.
pub async fn look(report: &mut Report, config: &BackupPlaceConfig) {
    let key = config.backup.key();
    if let Err(error) = &key {
        let mend = "bring the file back from where its copy is; openssl rand -hex 32 makes another, which opens no backup of before";
        report.wrong(AREA, error_chain(error.as_ref()), mend);
    }
    let Some(place) = config.backup_dir.as_deref() else { return };
    let newest = match config.bucket.bucket(place) {
        Err(error) => return report.setting(error_chain(error.as_ref()), "correct BACKUP_DIR or the AWS_ settings"),
        Ok(Some(bucket)) => in_bucket(report, &bucket, place).await,
        Ok(None) => in_folder(report, Path::new(place)),
    };
    let Some(newest) = newest else { return };
    age(report, &newest, place);
    if let Ok(key) = key {
        opens(report, &newest, key.as_ref(), place);
    }
}

/// The newest backup of a bucket, if it can be listed and has one.
async fn in_bucket(report: &mut Report, bucket: &Bucket, place: &str) -> Option<Backup> {
    let silence = || anyhow!("the store of {place} does not answer within {} s", PATIENCE.as_secs());
    match tokio::time::timeout(PATIENCE, bucket.list()).await.unwrap_or_else(|_| Err(silence())) {
        Ok(backups) => newest(report, backups, place),
        Err(error) => {
            let mend = format!(
                "see AWS_ENDPOINT_URL, AWS_REGION, AWS_ACCESS_KEY_ID and its secret, and what the key may do; then: pycrudapi backups \
                 --from {place}"
            );
            report.wrong(AREA, error_chain(error.as_ref()), mend);
            None
        }
    }
}

/// The newest backup of a folder, if there is one; whether another can be written besides.
fn in_folder(report: &mut Report, path: &Path) -> Option<Backup> {
    let shown = path.display().to_string();
    if !path.is_dir() {
        let reason = fs::metadata(path).map_or_else(|error| error.to_string(), |_| "it is no directory".to_owned());
        let mend = format!(
            "mount its disk, or: mkdir -p {shown}, and let the user who makes backups own it; or correct BACKUP_DIR"
        );
        report.wrong(AREA, format!("BACKUP_DIR={shown} cannot be used: {reason}"), mend);
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
            let mend =
                format!("chown -R the folder to the user who makes backups, and look as that user: ls -ld {shown}");
            report.wrong(AREA, error_chain(error.as_ref()), mend);
            None
        }
        Ok((folder, backups)) => {
            let newest = newest(report, backups, &shown)?;
            let missing =
                newest.files.iter().find_map(|file| lacks(&folder.directory(&newest).join(&file.path), file.bytes));
            if let Some(what) = missing {
                let mend = format!(
                    "pycrudapi backup --to {shown}; pycrudapi backups --check --from {shown} looks at the others"
                );
                report.wrong(AREA, format!("the newest backup, {}, is damaged: {what}", newest.id), mend);
                return None;
            }
            Some(newest)
        }
    }
}

/// Directories that are called as a backup and have no record: whoever restores passes over them.
fn without_record(report: &mut Report, path: &Path, known: &[Backup]) {
    for entry in fs::read_dir(path).into_iter().flatten().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        if folder::time_of(&name).is_some() && !known.iter().any(|backup| backup.id == name) {
            let what = format!("the backup {name} has no record that can be read, and nobody can restore it");
            report.warning(AREA, what, format!("rm -r {}, once there is another", entry.path().display()));
        }
    }
}

fn newest(report: &mut Report, mut backups: Vec<Backup>, place: &str) -> Option<Backup> {
    let count = backups.len();
    let newest = backups.pop();
    match &newest {
        None => {
            report.warning(AREA, format!("there is no backup in {place}"), format!("pycrudapi backup --to {place}"));
        }
        Some(newest) => report.fine(AREA, format!("{count} backups in {place}; the newest is {}", newest.id)),
    }
    newest
}

fn age(report: &mut Report, newest: &Backup, place: &str) {
    let Ok(at) = newest.state.instant() else { return };
    let hours = Timestamp::now().duration_since(at).as_hours();
    if hours > BACKUP_AGE_MAX_HOURS {
        let what = format!("the newest backup in {place} is {hours} hours old");
        report.warning(AREA, what, format!("pycrudapi backup --to {place}, and see why nobody makes it every night"));
    }
}

/// Why a file is not as it was written, by its length; its contents are `backups --check`'s.
fn lacks(path: &Path, bytes: u64) -> Option<String> {
    match fs::metadata(path) {
        Err(error) => Some(format!("{}: {error}", path.display())),
        Ok(found) if found.len() != bytes => Some(format!("{} has {} bytes of {bytes}", path.display(), found.len())),
        Ok(_) => None,
    }
}

/// Whether the key that there is opens the newest backup.
fn opens(report: &mut Report, newest: &Backup, key: Option<&Key>, place: &str) {
    let id = &newest.id;
    match (newest.key.as_deref(), key.map(Key::mark)) {
        (None, None) => {}
        (None, Some(_)) => {
            let what = format!("the newest backup, {id}, is not encrypted, although there is a BACKUP_KEY_FILE");
            report.warning(AREA, what, format!("pycrudapi backup --to {place} makes one that is"));
        }
        (Some(mark), None) => {
            let what = format!(
                "the newest backup, {id}, is encrypted with key {mark}, and there is no BACKUP_KEY_FILE to open it with"
            );
            report.wrong(AREA, what, "BACKUP_KEY_FILE=/path/to/that/key");
        }
        (Some(mark), Some(given)) if mark != given => {
            let what = format!(
                "the newest backup, {id}, is encrypted with key {mark}; the one in BACKUP_KEY_FILE, {given}, does not open it"
            );
            let mend = format!(
                "name the file of key {mark}; if it is lost, make a backup with this one at once: pycrudapi backup --to {place}"
            );
            report.wrong(AREA, what, mend);
        }
        (Some(_), Some(_)) => match first_byte(newest, key, Path::new(place)) {
            Ok(()) => report.fine(AREA, "the key in BACKUP_KEY_FILE opens the newest backup"),
            Err(error) => {
                let mend = format!(
                    "pycrudapi backup --to {place}; pycrudapi backups --check --from {place} looks at the others"
                );
                report.wrong(
                    AREA,
                    format!("the newest backup, {id}, cannot be opened: {}", error_chain(error.as_ref())),
                    mend,
                );
            }
        },
    }
}

/// Decrypts the beginning of a file; that of a bucket is not fetched for it.
fn first_byte(newest: &Backup, key: Option<&Key>, folder: &Path) -> anyhow::Result<()> {
    let sealed = newest.files.iter().map(|file| folder.join(&newest.id).join(&file.path));
    match sealed.into_iter().find(|path| path.to_string_lossy().ends_with(SUFFIX) && path.exists()) {
        None => Ok(()),
        Some(path) => match seal::open(&path, key)?.read_exact(&mut [0; 1]) {
            Err(error) if error.kind() != io::ErrorKind::UnexpectedEof => Err(error.into()),
            _ => Ok(()), // an empty table has no byte
        },
    }
}
