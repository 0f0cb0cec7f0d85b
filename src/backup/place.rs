//! Where backups are: a folder of this machine, or a bucket.

use jiff::Timestamp;

use super::bucket::Bucket;
use super::folder::{self, Folder};
use super::record::Backup;
use super::scratch::Scratch;

/// Where backups are.
pub enum Place {
    /// A folder.
    Folder(Folder),
    /// A place in a bucket.
    Bucket(Box<Bucket>),
}

/// A backup on this machine; what was fetched for it goes when this is dropped.
pub struct Fetched {
    /// The folder that it is in.
    pub folder: Folder,
    /// The backup.
    pub backup: Backup,
    _scratch: Option<Scratch>,
}

impl Place {
    /// Every whole backup, the oldest first.
    ///
    /// # Errors
    /// When the place cannot be read.
    pub async fn list(&self) -> anyhow::Result<Vec<Backup>> {
        match self {
            Self::Folder(folder) => folder.list(),
            Self::Bucket(bucket) => bucket.list().await,
        }
    }

    /// Reads every file of a backup and compares it with what was written.
    ///
    /// # Errors
    /// The first that is missing or differs.
    pub async fn check(&self, backup: &Backup) -> anyhow::Result<()> {
        match self {
            Self::Folder(folder) => backup.check(&folder.directory(backup)),
            Self::Bucket(bucket) => bucket.check(backup).await,
        }
    }

    /// The backup of this id, or the newest that is fit for the instant, on this machine.
    ///
    /// # Errors
    /// When there is none, or it cannot be fetched.
    pub async fn fetch(&self, id: Option<&str>, at: Option<Timestamp>) -> anyhow::Result<Fetched> {
        let name = match self {
            Self::Folder(folder) => folder.path().display().to_string(),
            Self::Bucket(bucket) => bucket.name(),
        };
        let backup = folder::choose(self.list().await?, &name, id, at)?;
        match self {
            Self::Folder(folder) => Ok(Fetched { folder: folder.clone(), backup, _scratch: None }),
            Self::Bucket(bucket) => {
                let scratch = Scratch::within(&std::env::temp_dir(), 0o700)?;
                let folder = Folder::open(scratch.path())?;
                bucket.fetch(&backup, &folder).await?;
                Ok(Fetched { folder, backup, _scratch: Some(scratch) })
            }
        }
    }
}
