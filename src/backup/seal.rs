//! Reads and writes the files of backups: hashed while they are written, and encrypted when there is a key.
//!
//! An encrypted file has a magic, fingerprints of the key and of its name, and a random salt, then the payload of the age
//! format (age-encryption.org/v1): a key derived from the given one, the salt and the file's name by HKDF-SHA-256, and chunks
//! of 64 KiB in the STREAM construction over ChaCha20-Poly1305, with nonces made of a counter and a flag for the last chunk.
//! Changed, moved and missing chunks are detected when they are read. Memory use is one chunk.

use std::fs::File;
use std::io::{self, BufReader, Read, Write};
use std::path::Path;

use anyhow::{Context, bail};
use ring::aead::{Aad, CHACHA20_POLY1305, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use ring::rand::{SecureRandom, SystemRandom};
use ring::{digest, hkdf, hmac};

use super::disk::unreadable;
use crate::hexadecimal;
use crate::short_file::{self, SECRET_MAX_BYTES};

/// The first bytes of encrypted files.
const MAGIC: &[u8; 16] = b"pycrudapi-seal-2";
/// The same of the first format, whose files are not bound to their names. They are read, and not written any more.
const MAGIC_UNBOUND: &[u8; 16] = b"pycrudapi-seal-1";
/// The suffix of the names of encrypted files.
pub const SUFFIX: &str = ".sealed";
/// Separates the keys of files from other keys that may be derived from the same one.
const PURPOSE: &[u8] = b"pycrudapi backup";
/// The same for the key that signs records.
const RECORD: &[&[u8]] = &[b"pycrudapi backup record"];
const MARK_BYTES: usize = 8;
const SALT_BYTES: usize = 32;
const NAME_BYTES: usize = 8;
const CHUNK_BYTES: usize = 64 * 1024;
const TAG_BYTES: usize = 16;

/// A key of 32 bytes.
#[derive(Clone)]
pub struct Key {
    bytes: Vec<u8>,
    mark: [u8; MARK_BYTES],
}

impl Key {
    /// Reads it from a file: 64 hexadecimal digits.
    ///
    /// # Errors
    /// When the file cannot be read, or contains anything else.
    pub fn read(path: &Path) -> anyhow::Result<Self> {
        let text = short_file::read_text(path, SECRET_MAX_BYTES)
            .map_err(|error| unreadable(path, error))
            .context("the key cannot be read; correct --key-file (BACKUP_KEY_FILE)")?;
        let Some(bytes) = hexadecimal::bytes(text.trim()).filter(|bytes| bytes.len() == 32) else {
            bail!(
                "the key in {} (BACKUP_KEY_FILE) is not 64 hexadecimal digits; `openssl rand -hex 32` creates one",
                path.display()
            );
        };
        Ok(Self::of(&bytes))
    }

    pub(super) fn of(bytes: &[u8]) -> Self {
        let digest = digest::digest(&digest::SHA256, &[b"pycrudapi backup key", bytes].concat());
        Self { bytes: bytes.to_vec(), mark: digest.as_ref()[..MARK_BYTES].try_into().expect("so many bytes") }
    }

    /// The key of one file; a file of the first format has no name.
    fn of_file(&self, salt: &[u8], name: Option<&str>) -> Stream {
        let extracted = hkdf::Salt::new(hkdf::HKDF_SHA256, salt).extract(&self.bytes);
        let purpose = [PURPOSE, name.unwrap_or_default().as_bytes()];
        let expanded = extracted.expand(&purpose, &CHACHA20_POLY1305);
        let key = UnboundKey::from(expanded.expect("a key is shorter than what HKDF may give"));
        Stream { key: LessSafeKey::new(key), count: 0 }
    }

    fn of_records(&self) -> hmac::Key {
        let extracted = hkdf::Salt::new(hkdf::HKDF_SHA256, &[]).extract(&self.bytes);
        hmac::Key::from(extracted.expand(RECORD, hmac::HMAC_SHA256).expect("a key is shorter than what HKDF may give"))
    }

    /// The HMAC-SHA-256 of a record.
    pub fn sign(&self, record: &[u8]) -> String {
        hexadecimal::text(hmac::sign(&self.of_records(), record).as_ref())
    }

    /// Returns true if this is the HMAC of a record with this key.
    pub fn has_signed(&self, record: &[u8], signature: &str) -> bool {
        hexadecimal::bytes(signature).is_some_and(|tag| hmac::verify(&self.of_records(), record, &tag).is_ok())
    }

    /// The fingerprint of the key, from which the key cannot be derived.
    pub fn mark(&self) -> String {
        hexadecimal::text(&self.mark)
    }
}

/// A fingerprint of the name of a file, with which an error can state that the file was exchanged.
fn name_mark(name: &str) -> Vec<u8> {
    digest::digest(&digest::SHA256, name.as_bytes()).as_ref()[..NAME_BYTES].to_vec()
}

/// Encrypts or decrypts the chunks of one file, in their order.
struct Stream {
    key: LessSafeKey,
    count: u64,
}

impl Stream {
    /// Unique for each chunk, because each file has its own key.
    fn nonce(&mut self, is_last: bool) -> Nonce {
        let mut nonce = [0; NONCE_LEN];
        nonce[3..11].copy_from_slice(&self.count.to_be_bytes());
        nonce[11] = u8::from(is_last);
        self.count += 1;
        Nonce::assume_unique_for_key(nonce)
    }

    fn encrypt(&mut self, chunk: &mut Vec<u8>, is_last: bool) -> io::Result<()> {
        let nonce = self.nonce(is_last);
        let sealed = self.key.seal_in_place_append_tag(nonce, Aad::empty(), chunk);
        sealed.map_err(|_| io::Error::other("the chunk is too long"))
    }

    fn decrypt(&mut self, chunk: &mut Vec<u8>, is_last: bool) -> io::Result<()> {
        let nonce = self.nonce(is_last);
        let length = self.key.open_in_place(nonce, Aad::empty(), chunk).map(|text| text.len());
        // Nothing of a damaged chunk is returned.
        chunk.truncate(length.unwrap_or_default());
        length.map(drop).map_err(|_| io::Error::new(io::ErrorKind::InvalidData, "the file is damaged"))
    }
}

/// The length and SHA-256 of a file that was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Written {
    /// Its length on the disk.
    pub bytes: u64,
    /// The SHA-256 of its bytes on the disk.
    pub sha256: String,
}

/// Writes a new file.
pub struct Writer {
    file: File,
    hash: digest::Context,
    bytes: u64,
    seal: Option<Stream>,
    chunk: Vec<u8>,
}

impl Writer {
    /// Creates the file, readable by this user only. With a key it can be read only under this name, which is its path in the
    /// folder or bucket.
    ///
    /// # Errors
    /// When it cannot be created, or exists.
    pub fn create(path: &Path, name: &str, key: Option<&Key>) -> io::Result<Self> {
        use std::os::unix::fs::OpenOptionsExt;
        let file = File::options().write(true).create_new(true).mode(0o600).open(path)?;
        let mut writer = Self {
            file,
            hash: digest::Context::new(&digest::SHA256),
            bytes: 0,
            seal: None,
            chunk: Vec::with_capacity(CHUNK_BYTES),
        };
        if let Some(key) = key {
            let mut salt = [0; SALT_BYTES];
            SystemRandom::new().fill(&mut salt).map_err(|_| io::Error::other("the system has no random numbers"))?;
            writer.put(&[&MAGIC[..], &key.mark, &salt, &name_mark(name)].concat())?;
            writer.seal = Some(key.of_file(&salt, Some(name)));
        }
        Ok(writer)
    }

    fn put(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.file.write_all(bytes)?;
        self.hash.update(bytes);
        self.bytes += bytes.len() as u64;
        Ok(())
    }

    fn put_chunk(&mut self, is_last: bool) -> io::Result<()> {
        let mut chunk = std::mem::take(&mut self.chunk);
        if let Some(seal) = &mut self.seal {
            seal.encrypt(&mut chunk, is_last)?;
        }
        self.put(&chunk)?;
        chunk.clear();
        self.chunk = chunk;
        Ok(())
    }

    /// Writes the rest, and syncs the file.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn finish(mut self) -> io::Result<Written> {
        self.put_chunk(true)?;
        self.file.sync_all()?;
        Ok(Written { bytes: self.bytes, sha256: hexadecimal::text(self.hash.finish().as_ref()) })
    }
}

impl Write for Writer {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        // A full chunk is kept until more follows, because the last one is encrypted with another nonce.
        if self.chunk.len() == CHUNK_BYTES {
            self.put_chunk(false)?;
        }
        let taken = bytes.len().min(CHUNK_BYTES - self.chunk.len());
        self.chunk.extend_from_slice(&bytes[..taken]);
        Ok(taken)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Reads a file that [`Writer`] has written.
pub struct Reader {
    file: BufReader<File>,
    seal: Option<Stream>,
    chunk: Vec<u8>,
    at: usize,
}

/// Opens a file by its path, and by its name in the folder or bucket; an encrypted one has [`SUFFIX`].
///
/// # Errors
/// When it cannot be read, or not with this key, or is not encrypted although there is a key.
pub fn open(path: &Path, name: &str, key: Option<&Key>) -> anyhow::Result<Reader> {
    let file = File::open(path).map_err(|error| unreadable(path, error))?;
    let mut file = BufReader::with_capacity(CHUNK_BYTES + TAG_BYTES, file);
    let seal = if path.to_string_lossy().ends_with(SUFFIX) {
        let Some(key) = key else {
            bail!("{} is encrypted; name the file of its key with --key-file (BACKUP_KEY_FILE)", path.display());
        };
        let mut head = [0; MAGIC.len() + MARK_BYTES + SALT_BYTES];
        file.read_exact(&mut head).with_context(|| format!("{} is damaged: it is cut off", path.display()))?;
        let (magic, rest) = head.split_at(MAGIC.len());
        let (mark, salt) = rest.split_at(MARK_BYTES);
        let is_bound = magic == MAGIC;
        if !is_bound && magic != MAGIC_UNBOUND {
            bail!("{} is damaged: it is not an encrypted file of a backup", path.display());
        }
        if mark != key.mark {
            bail!(
                "wrong key: {} was encrypted with key {}, and the one given is {}",
                path.display(),
                hexadecimal::text(mark),
                key.mark()
            );
        }
        if is_bound {
            let mut found = [0; NAME_BYTES];
            file.read_exact(&mut found).with_context(|| format!("{} is damaged: it is cut off", path.display()))?;
            if found[..] != name_mark(name) {
                bail!(
                    "{} is not the file that was written as {name}: another one was put in its place; name another backup \
                     with --backup",
                    path.display()
                );
            }
        }
        Some(key.of_file(salt, is_bound.then_some(name)))
    } else if key.is_some() {
        bail!("{} is not encrypted, and a key is given: whoever may write there may have put it there", path.display());
    } else {
        None
    };
    Ok(Reader { file, seal, chunk: Vec::new(), at: 0 })
}

/// Returns true if a file was encrypted with this key in the first format, in which records were not signed.
pub fn is_of_first_format(path: &Path, key: &Key) -> bool {
    let mut magic = [0; MAGIC_UNBOUND.len()];
    let is_marked =
        File::open(path).and_then(|mut file| file.read_exact(&mut magic)).is_ok() && magic == *MAGIC_UNBOUND;
    is_marked && open(path, "", Some(key)).is_ok_and(|mut file| file.read(&mut [0]).is_ok())
}

impl Read for Reader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.at == self.chunk.len() {
            let Some(mut seal) = self.seal.take() else {
                return if self.chunk.is_empty() { self.file.read(buffer) } else { Ok(0) };
            };
            self.chunk.clear();
            self.at = 0;
            (&mut self.file).take((CHUNK_BYTES + TAG_BYTES) as u64).read_to_end(&mut self.chunk)?;
            let is_last = io::BufRead::fill_buf(&mut self.file)?.is_empty();
            seal.decrypt(&mut self.chunk, is_last)?;
            if !is_last {
                self.seal = Some(seal);
            }
        }
        let taken = buffer.len().min(self.chunk.len() - self.at);
        buffer[..taken].copy_from_slice(&self.chunk[self.at..self.at + taken]);
        self.at += taken;
        Ok(taken)
    }
}

/// The SHA-256 and length of a file.
///
/// # Errors
/// When it cannot be read.
pub fn measure(path: &Path) -> io::Result<Written> {
    let mut file = File::open(path)?;
    let mut hash = digest::Context::new(&digest::SHA256);
    let (mut buffer, mut bytes) = (vec![0; CHUNK_BYTES], 0);
    loop {
        match file.read(&mut buffer)? {
            0 => return Ok(Written { bytes, sha256: hexadecimal::text(hash.finish().as_ref()) }),
            length => {
                hash.update(&buffer[..length]);
                bytes += length as u64;
            }
        }
    }
}

#[cfg(test)]
pub mod tests;
