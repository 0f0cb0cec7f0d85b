//! The record of a backup: its file `backup.json`.
//!
//! It is not encrypted. With a key it is signed (HMAC-SHA-256): a restore executes SQL with its names of tables and columns.

use std::path::{Component, Path};

use anyhow::{Context, bail};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::disk::unreadable;
use super::seal::{self, Key, SUFFIX, Written};
use crate::short_file;

/// Its name in the directory of a backup.
pub const FILE: &str = "backup.json";
/// Maximum length of a record, which has some hundred bytes for each table and each file.
pub const FILE_MAX_BYTES: u64 = 16 << 20;
/// The member with the signature of all others.
const SIGNATURE: &str = "signature";

/// How a backup was made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, strum::IntoStaticStr)]
#[serde(rename_all = "lowercase")]
#[strum(serialize_all = "lowercase")]
pub enum Kind {
    /// The files of a whole cluster.
    Physical,
    /// The rows of one database.
    Logical,
}

/// A backup.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Backup {
    /// When it was begun, in the format of its directory's name.
    pub id: String,
    /// How it was made.
    pub kind: Kind,
    /// The version of this program.
    pub program: String,
    /// PostgreSQL's version.
    pub postgres: String,
    /// Its major version.
    pub major: u32,
    /// The name of the database.
    pub database: String,
    /// The cluster's system identifier.
    pub system: String,
    /// The newest applied migration.
    pub schema_version: i32,
    /// The WAL that it includes; none in a logical backup.
    pub wal: Option<Wal>,
    /// The contents of the tables at one instant, as counts and hashes.
    pub state: State,
    /// The sequences of a logical backup.
    #[serde(default)]
    pub sequences: Vec<Sequence>,
    /// The fingerprint of the key that it is encrypted with.
    pub key: Option<String>,
    /// All other files in its directory.
    pub files: Vec<Entry>,
}

/// A range of segments of WAL; the last may be incomplete.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Wal {
    /// The first segment that it needs.
    pub first: String,
    /// The last segment that it has.
    pub last: String,
    /// The length of a complete segment.
    pub segment_bytes: u64,
}

/// A file of a backup.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Entry {
    /// Its path in the directory.
    pub path: String,
    /// Its length.
    pub bytes: u64,
    /// Its SHA-256.
    pub sha256: String,
}

impl Entry {
    /// What was written.
    pub fn written(&self) -> Written {
        Written { bytes: self.bytes, sha256: self.sha256.clone() }
    }
}

/// The state of a sequence.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Sequence {
    /// Its name.
    pub name: String,
    /// The last value that it returned or reserved.
    pub last: i64,
}

/// The contents of every table at one instant, as counts and hashes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct State {
    /// The instant, by the database's clock.
    pub at: String,
    /// The position in WAL: exactly the transactions committed at that instant have their commit record before it.
    pub lsn: String,
    /// The tables, by name.
    pub tables: Vec<Table>,
}

/// A table of the service.
#[derive(Debug, Clone)]
pub struct Columns {
    /// Its name.
    pub table: String,
    /// Its columns, quoted, with commas between them.
    pub names: String,
}

/// The contents of a table, as a count and a hash.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Table {
    /// Its name.
    pub name: String,
    /// Its columns, quoted, with commas between them.
    pub columns: String,
    /// The number of rows.
    pub rows: i64,
    /// A hash of all rows, independent of their order.
    pub hash: String,
}

impl State {
    /// The instant.
    ///
    /// # Errors
    /// When the record was changed by hand.
    pub fn instant(&self) -> anyhow::Result<Timestamp> {
        self.at.parse().with_context(|| format!("{FILE} is damaged: {} is not a time", self.at))
    }

    /// Describes the tables that differ.
    pub fn differences(&self, found: &[Table]) -> Vec<String> {
        let differs = |table: &Table| match found.iter().find(|candidate| candidate.name == table.name) {
            None => Some(format!("{} is missing", table.name)),
            Some(found) if found.rows != table.rows => {
                Some(format!("{} has {} rows instead of {}", table.name, found.rows, table.rows))
            }
            Some(found) if found.hash != table.hash => Some(format!("rows of {} differ", table.name)),
            Some(_) => None,
        };
        self.tables.iter().filter_map(differs).collect()
    }

    /// The tables and their columns.
    pub fn columns(&self) -> Vec<Columns> {
        let columns = |table: &Table| Columns { table: table.name.clone(), names: table.columns.clone() };
        self.tables.iter().map(columns).collect()
    }
}

impl Backup {
    /// Its size in bytes.
    pub fn bytes(&self) -> u64 {
        self.files.iter().map(|file| file.bytes).sum()
    }

    /// The text of the record, signed if there is a key.
    ///
    /// # Errors
    /// When it cannot be serialized.
    pub fn to_text(&self, key: Option<&Key>) -> serde_json::Result<String> {
        let mut record = serde_json::to_value(self)?;
        if let Some(key) = key {
            record[SIGNATURE] = key.sign(&serde_json::to_vec(&record)?).into();
        }
        serde_json::to_string_pretty(&record)
    }

    /// Reads the record of this backup again, and requires it to be signed with the key. A record without a signature is
    /// accepted if all files were encrypted with the key in the first format.
    ///
    /// # Errors
    /// When the record was changed, or as [`Backup::expect_key`].
    pub fn verified(self, directory: &Path, key: Option<&Key>) -> anyhow::Result<Self> {
        self.expect_key(key)?;
        let Some(key) = key else { return Ok(self) };
        let path = directory.join(FILE);
        let text = short_file::read(&path, FILE_MAX_BYTES).map_err(|error| unreadable(&path, error))?;
        let mut record: Map<String, Value> =
            serde_json::from_slice(&text).with_context(|| format!("{} is damaged", path.display()))?;
        let signature = record.shift_remove(SIGNATURE);
        let unsigned = serde_json::to_vec(&record).context("cannot write the record")?;
        let read: Self =
            serde_json::from_value(record.into()).with_context(|| format!("{} is damaged", path.display()))?;
        let is_old =
            |file: &Entry| file.path.ends_with(SUFFIX) && seal::is_of_first_format(&directory.join(&file.path), key);
        let is_genuine = match &signature {
            Some(signature) => signature.as_str().is_some_and(|signature| key.has_signed(&unsigned, signature)),
            None => !read.files.is_empty() && read.files.iter().all(is_old),
        };
        if !is_genuine || read.id != self.id || !read.is_well_formed() {
            bail!(
                "{} is not the record that was written with this key: it was changed, or another one was put in its place; \
                 name another backup with --backup",
                path.display()
            );
        }
        read.expect_key(Some(key))?;
        Ok(read)
    }

    /// Returns true if the names, places and columns in the record have the form in which they are written. SQL, settings of
    /// PostgreSQL and paths are made of them.
    pub fn is_well_formed(&self) -> bool {
        let is_segment = |name: &str| name.len() == 24 && name.bytes().all(|byte| byte.is_ascii_hexdigit());
        let is_hex = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_hexdigit());
        let is_lsn = |lsn: &str| lsn.split_once('/').is_some_and(|(high, low)| is_hex(high) && is_hex(low));
        self.wal.as_ref().is_none_or(|wal| is_segment(&wal.first) && is_segment(&wal.last))
            && (self.state.lsn.is_empty() || is_lsn(&self.state.lsn))
            && self.state.tables.iter().all(|table| are_identifiers(&table.columns))
            && self
                .files
                .iter()
                .all(|file| Path::new(&file.path).components().all(|part| matches!(part, Component::Normal(_))))
    }

    /// Adds a file that was written.
    pub fn note(&mut self, path: &str, written: Written) {
        self.files.push(Entry { path: path.to_owned(), bytes: written.bytes, sha256: written.sha256 });
    }

    /// Reads every file and compares it with what was written.
    ///
    /// # Errors
    /// When a file is missing or differs.
    pub fn check(&self, directory: &Path) -> anyhow::Result<()> {
        for file in &self.files {
            let path = directory.join(&file.path);
            let found = seal::measure(&path)
                .map_err(|error| unreadable(&path, error))
                .with_context(|| format!("backup {} cannot be checked", self.id))?;
            if found.bytes != file.bytes {
                bail!(
                    "backup {} is damaged: {} has {} bytes instead of {}",
                    self.id,
                    path.display(),
                    found.bytes,
                    file.bytes
                );
            }
            if found.sha256 != file.sha256 {
                bail!("backup {} is damaged: {} is not what was written", self.id, path.display());
            }
        }
        Ok(())
    }

    /// Requires tables to be as they were at the instant of the backup.
    ///
    /// # Errors
    /// When a table differs.
    pub fn expect_same(&self, found: &[Table]) -> anyhow::Result<()> {
        let different = self.state.differences(found);
        if !different.is_empty() {
            bail!("backup {} is not what the database was at {}: {}", self.id, self.state.at, different.join("; "));
        }
        Ok(())
    }

    /// Requires the key to be that of the backup, before anything is read; with a key, an unencrypted backup is refused.
    ///
    /// # Errors
    /// When the key is another one, or is given for an unencrypted backup, or missing for an encrypted one.
    pub fn expect_key(&self, key: Option<&Key>) -> anyhow::Result<()> {
        match (&self.key, key) {
            (Some(_), None) => {
                bail!("backup {} is encrypted; name the file of its key with --key-file (BACKUP_KEY_FILE)", self.id)
            }
            (Some(mark), Some(key)) if *mark != key.mark() => bail!(
                "wrong key: backup {} was encrypted with key {mark}, and the one given is {}",
                self.id,
                key.mark()
            ),
            (None, Some(_)) => bail!(
                "backup {} is not encrypted, and a key is given: whoever may write where backups are may have put it there; if it is \
                 wanted, restore it without --key-file (BACKUP_KEY_FILE), otherwise name an encrypted one with --backup",
                self.id
            ),
            _ => Ok(()),
        }
    }
}

/// Returns true if a text is a list of SQL identifiers, quoted where necessary.
fn are_identifiers(list: &str) -> bool {
    let mut rest = list;
    loop {
        let end = match rest.strip_prefix('"') {
            // Two quotes are a quote in the name.
            Some(quoted) => match quoted.replace("\"\"", "__").find('"') {
                Some(0) | None => return false,
                Some(end) => end + 2,
            },
            None => rest.find(|letter: char| !letter.is_alphanumeric() && letter != '_').unwrap_or(rest.len()),
        };
        rest = match (end, rest[end..].strip_prefix(", ")) {
            (0, _) => return false,
            (_, Some(next)) => next,
            (_, None) => return end == rest.len(),
        };
    }
}

#[cfg(test)]
pub mod tests;
