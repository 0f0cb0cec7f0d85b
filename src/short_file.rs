//! Reads files that should be short (keys, secrets, records) without relying on their length.
//!
//! Invariant: an unexpectedly long file, such as an endless device, uses no more memory than its limit.

use std::fs::File;
use std::io::{Error, ErrorKind, Read, Result, Write};
use std::path::Path;

/// Maximum size of a file with a secret: a password, a key, a URL.
pub const SECRET_MAX_BYTES: u64 = 64 * 1024;

/// Reads a file of at most this many bytes.
///
/// # Errors
/// If it cannot be read, or is longer (`FileTooLarge`).
pub fn read(path: &Path, max_bytes: u64) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    File::open(path)?.take(max_bytes + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > max_bytes { Err(too_long(max_bytes)) } else { Ok(bytes) }
}

/// Reads such a file as text.
///
/// # Errors
/// As [`read`], and if it is not UTF-8.
pub fn read_text(path: &Path, max_bytes: u64) -> Result<String> {
    String::from_utf8(read(path, max_bytes)?).map_err(|_| Error::new(ErrorKind::InvalidData, "it is not UTF-8"))
}

/// Stores what is written, up to a limit.
#[derive(Debug)]
pub struct Bounded {
    /// The stored bytes.
    pub bytes: Vec<u8>,
    max_bytes: u64,
}

impl Bounded {
    /// Stores at most this many bytes; further writes fail.
    pub fn new(max_bytes: u64) -> Self {
        Self { bytes: Vec::new(), max_bytes }
    }
}

impl Write for Bounded {
    fn write(&mut self, bytes: &[u8]) -> Result<usize> {
        if (self.bytes.len() + bytes.len()) as u64 > self.max_bytes {
            return Err(too_long(self.max_bytes));
        }
        self.bytes.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> Result<()> {
        Ok(())
    }
}

fn too_long(max_bytes: u64) -> Error {
    Error::new(ErrorKind::FileTooLarge, format!("it has more than {max_bytes} bytes, so it is not the expected file"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_is_too_long_or_never_ends_is_refused() {
        let folder = tempfile::tempdir().expect("a temporary directory");
        let path = folder.path().join("file");
        std::fs::write(&path, "12345").expect("written");
        assert_eq!(read_text(&path, 5).expect("read"), "12345");
        assert_eq!(read(&path, 4).expect_err("refused").kind(), ErrorKind::FileTooLarge);
        let endless = read(Path::new("/dev/zero"), 1000).expect_err("refused").to_string();
        assert!(endless.contains("more than 1000 bytes"), "{endless}");
        std::fs::write(&path, [0xff]).expect("written");
        assert!(read_text(&path, 5).expect_err("refused").to_string().contains("UTF-8"));
        let mut bounded = Bounded::new(3);
        assert!(bounded.write_all(b"123").is_ok() && bounded.write_all(b"4").is_err());
    }
}
