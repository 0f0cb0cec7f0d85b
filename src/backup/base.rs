//! The files of a cluster: writes the output of `pg_basebackup` as one tar, and reads that tar.
//!
//! Every file is compared with the manifest that the server sends with it, as `pg_verifybackup` does, both after the tar was
//! written and while it is unpacked.

use std::collections::HashMap;
use std::fs::{DirBuilder, File};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Component, Path};
use std::process::Stdio;

use anyhow::{Context, anyhow, bail};
use ring::digest;
use serde::Deserialize;

use super::disk::{self, unwritable};
use super::folder::is_segment;
use super::seal::{Key, Writer, Written};
use crate::db::conninfo::ConnInfo;
use crate::db::embedded::Programs;
use crate::hexadecimal;
use crate::short_file::Bounded;

/// Its name in the directory of a backup.
pub const TAR: &str = "base.tar";
const MANIFEST: &str = "backup_manifest";
const LABEL: &str = "backup_label";
const WAL: &str = "pg_wal/";
const COPY_BYTES: usize = 256 * 1024;
/// Longest manifest, which has about 150 bytes for each file of the cluster.
const KEPT_MAX_BYTES: u64 = 512 << 20;

/// The server's list of the files that it has sent.
#[derive(Deserialize)]
struct Manifest {
    #[serde(rename = "Files")]
    files: Vec<ManifestFile>,
}

#[derive(Deserialize)]
struct ManifestFile {
    #[serde(rename = "Path")]
    path: Option<String>,
    #[serde(rename = "Encoded-Path")]
    encoded_path: Option<String>,
    #[serde(rename = "Size")]
    size: u64,
    #[serde(rename = "Checksum")]
    checksum: String,
}

/// What was found in a tar.
#[derive(Debug)]
pub struct Contents {
    /// The segment of WAL at which replay begins.
    pub first_wal: String,
    /// The last segment in the tar.
    pub last_wal: String,
}

/// Writes the server's base backup to a file; `label` is the id of the backup.
///
/// # Errors
/// When `pg_basebackup` fails or the file cannot be written.
pub fn write(
    programs: &Programs,
    server: &ConnInfo,
    label: &str,
    path: &Path,
    key: Option<&Key>,
) -> anyhow::Result<Written> {
    let folder = path.parent().unwrap_or(Path::new("/"));
    let mut child = programs
        .command("pg_basebackup", folder)?
        .args(["--pgdata=-", "--format=tar", "--wal-method=fetch", "--checkpoint=fast", "--no-password"])
        .args(["--manifest-checksums=SHA256", &format!("--label=pycrudapi {label}")])
        .envs(server.variables())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .context("cannot run pg_basebackup")?;
    let mut output = child.stdout.take().expect("piped");
    let written = (|| {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let mut writer = Writer::create(path, &format!("{label}/{name}"), key)?;
        let mut buffer = vec![0; COPY_BYTES];
        loop {
            match output.read(&mut buffer)? {
                0 => return writer.finish(),
                length => writer.write_all(&buffer[..length])?,
            }
        }
    })();
    drop(output); // pg_basebackup ends when it cannot write
    let mut said = String::new();
    let _ = child.stderr.take().expect("piped").read_to_string(&mut said); // the status is checked below
    let status = child.wait().context("cannot wait for pg_basebackup")?;
    let written = written.map_err(|error| unwritable(path, error))?;
    if !status.success() {
        let failure = anyhow!("pg_basebackup failed ({status}): {}{}", said.trim(), remedy(&said, server));
        // Its output is written by this process, so the full disk is the server's.
        return Err(disk::explain_disk_full(failure, None));
    }
    Ok(written)
}

/// What to do about a server that does not allow replication connections.
fn remedy(said: &str, server: &ConnInfo) -> String {
    if said.contains("pg_hba.conf") {
        let user = server.config.get_user().unwrap_or("postgres");
        return format!(
            "; add a line such as `host replication {user} samenet scram-sha-256` to its pg_hba.conf and run `select \
             pg_reload_conf()`, or make a logical backup with --kind logical"
        );
    }
    String::new()
}

/// Reads a tar to its end and compares every file with the manifest. Files are unpacked into `into`, or only the segments of
/// WAL into `wal`.
///
/// # Errors
/// When a file is missing, was changed or cannot be unpacked.
pub fn read(tar: impl Read, into: Option<&Path>, wal: Option<&Path>) -> anyhow::Result<Contents> {
    const DAMAGED: &str = "the backup is damaged: its tar cannot be read to its end";
    let mut found: HashMap<String, (u64, String)> = HashMap::new();
    let (mut manifest, mut label, mut last_wal) = (None, None, String::new());
    let mut archive = tar::Archive::new(tar);
    for entry in archive.entries().context(DAMAGED)? {
        let mut entry = entry.context(DAMAGED)?;
        let path = entry.path().context(DAMAGED)?.into_owned();
        if path.components().any(|part| !matches!(part, Component::Normal(_) | Component::CurDir)) {
            bail!("the backup is damaged: it has a file {}", path.display());
        }
        let name = path.to_string_lossy().trim_start_matches("./").trim_end_matches('/').to_owned();
        if entry.header().entry_type().is_dir() {
            if let Some(into) = into {
                let directory = into.join(&name);
                let made = DirBuilder::new().recursive(true).mode(0o700).create(&directory);
                made.map_err(|error| unwritable(&directory, error))?;
            }
            continue;
        }
        if !entry.header().entry_type().is_file() {
            bail!("the cluster has a tablespace, {name}; this program cannot restore one");
        }
        let segment = name.strip_prefix(WAL).filter(|segment| is_segment(segment)).map(str::to_owned);
        let kept = [MANIFEST, LABEL].contains(&name.as_str());
        let target = into.map(|into| into.join(&name)).or_else(|| Some(wal?.join(segment.as_ref()?)));
        let mut copy = Copy::to(target.as_deref(), kept)?;
        let copied = io::copy(&mut entry, &mut copy).with_context(|| format!("cannot unpack {name}"));
        copied.map_err(|error| disk::explain_disk_full(error, target.as_deref()))?;
        let (bytes, sha256, text) = copy.finish();
        match name.as_str() {
            MANIFEST => manifest = Some(text),
            LABEL => label = Some(String::from_utf8_lossy(&text).into_owned()),
            _ => {}
        }
        if let Some(segment) = segment {
            last_wal = last_wal.max(segment);
        }
        found.insert(name, (bytes, sha256));
    }
    let manifest = manifest.context("the backup is damaged: it ends before its manifest")?;
    compare(&manifest, &found)?;
    // START WAL LOCATION: 0/2000028 (file 000000010000000000000002)
    let first = label.as_deref().and_then(|text| text.split("(file ").nth(1)?.get(..24));
    let first_wal = first.context("the backup is damaged: its backup_label has no segment of WAL")?.to_owned();
    Ok(Contents { first_wal, last_wal })
}

fn compare(manifest: &[u8], found: &HashMap<String, (u64, String)>) -> anyhow::Result<()> {
    const DAMAGED: &str = "the backup is damaged: its manifest cannot be read";
    let text = std::str::from_utf8(manifest).context(DAMAGED)?;
    // The last line is the hash of all the others.
    let end = text.rfind("\"Manifest-Checksum\"").context(DAMAGED)?;
    let hash = hexadecimal::text(digest::digest(&digest::SHA256, &manifest[..end]).as_ref());
    if !text[end..].contains(&hash) {
        bail!("the backup is damaged: its manifest was changed");
    }
    let manifest: Manifest = serde_json::from_str(text).context(DAMAGED)?;
    for file in manifest.files {
        let Some(path) = file.path else {
            bail!("the cluster has a file whose name is not UTF-8: {}", file.encoded_path.unwrap_or_default());
        };
        match found.get(&path) {
            None => bail!("the backup is damaged: {path} is missing"),
            Some((bytes, _)) if *bytes != file.size => {
                bail!("the backup is damaged: {path} has {bytes} bytes instead of {}", file.size)
            }
            Some((_, sha256)) if *sha256 != file.checksum => bail!("the backup is damaged: {path} was changed"),
            Some(_) => {}
        }
    }
    Ok(())
}

/// The destination of a file of a tar: hashes it, and writes it or keeps it in memory.
struct Copy {
    file: Option<File>,
    hash: digest::Context,
    bytes: u64,
    text: Option<Bounded>,
}

impl Copy {
    fn to(path: Option<&Path>, kept: bool) -> anyhow::Result<Self> {
        // Readable by PostgreSQL alone, whatever the mode of the directory.
        let create = |path: &Path| {
            let opened = File::options().write(true).create(true).truncate(true).mode(0o600).open(path);
            opened.map_err(|error| unwritable(path, error))
        };
        let file = path.map(create).transpose()?;
        Ok(Self {
            file,
            hash: digest::Context::new(&digest::SHA256),
            bytes: 0,
            text: kept.then(|| Bounded::new(KEPT_MAX_BYTES)),
        })
    }

    /// Does not sync the file: PostgreSQL syncs the data directory before it replays the first record.
    fn finish(self) -> (u64, String, Vec<u8>) {
        (
            self.bytes,
            hexadecimal::text(self.hash.finish().as_ref()),
            self.text.map(|text| text.bytes).unwrap_or_default(),
        )
    }
}

impl Write for Copy {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if let Some(file) = &mut self.file {
            file.write_all(bytes)?;
        }
        if let Some(text) = &mut self.text {
            text.write_all(bytes)?;
        }
        self.hash.update(bytes);
        self.bytes += bytes.len() as u64;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
