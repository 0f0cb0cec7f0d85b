//! The record of a backup: its file `backup.json`.

use std::path::Path;

use anyhow::{Context, bail};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::disk::unreadable;
use super::seal::{self, Key, Written};

/// Its name in the directory of a backup.
pub const FILE: &str = "backup.json";
/// Maximum length of a record, which has some hundred bytes for each table and each file.
pub const FILE_MAX_BYTES: u64 = 16 << 20;

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
    /// The place in WAL: exactly the transactions committed at that instant have their commit record before it.
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
