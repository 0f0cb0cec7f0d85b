//! What is known of a backup: its file `backup.json`.

use std::path::Path;

use anyhow::{Context, bail};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::disk::unreadable;
use super::seal::{self, Key, Written};

/// Its name in the directory of a backup.
pub const FILE: &str = "backup.json";
/// Longest such file: some hundred bytes for a table, and for a file.
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
    /// When it was begun, in the form of its directory's name.
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
    /// The cluster's own number.
    pub system: String,
    /// The newest migration in it.
    pub schema_version: i32,
    /// The WAL that it has itself; none in a logical one.
    pub wal: Option<Wal>,
    /// What the tables were at one instant.
    pub state: State,
    /// Sequences, of a logical one.
    #[serde(default)]
    pub sequences: Vec<Sequence>,
    /// The mark of the key that it is encrypted with.
    pub key: Option<String>,
    /// Everything else in its directory.
    pub files: Vec<Entry>,
}

/// Segments of WAL, the first and the last one, which may not be whole.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Wal {
    /// The first that it needs.
    pub first: String,
    /// The last that it has.
    pub last: String,
    /// The length of a whole one.
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

/// A sequence and what it would give out next.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Sequence {
    /// Its name.
    pub name: String,
    /// The last value that it gave out, or reserved.
    pub last: i64,
}

/// What every table was at one instant.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct State {
    /// The instant, by the database's clock.
    pub at: String,
    /// The place in WAL: what was committed then is before it, and nothing else.
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

/// What a table was.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Table {
    /// Its name.
    pub name: String,
    /// Its columns, quoted, with commas between them.
    pub columns: String,
    /// How many rows.
    pub rows: i64,
    /// A hash of all of them, whatever their order.
    pub hash: String,
}

impl State {
    /// The instant.
    ///
    /// # Errors
    /// When the record was changed by hand.
    pub fn instant(&self) -> anyhow::Result<Timestamp> {
        self.at.parse().with_context(|| format!("{FILE} is damaged: {} is no time", self.at))
    }

    /// The tables that differ, in words.
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
    /// How many bytes it takes.
    pub fn bytes(&self) -> u64 {
        self.files.iter().map(|file| file.bytes).sum()
    }

    /// Notes a file that was written.
    pub fn note(&mut self, path: &str, written: Written) {
        self.files.push(Entry { path: path.to_owned(), bytes: written.bytes, sha256: written.sha256 });
    }

    /// Reads every file again and compares it with what was written.
    ///
    /// # Errors
    /// The first that is missing or differs.
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

    /// Refuses tables that are not what they were at the instant of the backup.
    ///
    /// # Errors
    /// Which they are.
    pub fn expect_same(&self, found: &[Table]) -> anyhow::Result<()> {
        let different = self.state.differences(found);
        if !different.is_empty() {
            bail!("backup {} is not what the database was at {}: {}", self.id, self.state.at, different.join("; "));
        }
        Ok(())
    }

    /// Refuses a key that does not open it, before anything is done; and a backup that nobody with the key has made.
    ///
    /// # Errors
    /// When it is another one, or only one of the two has a key.
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
