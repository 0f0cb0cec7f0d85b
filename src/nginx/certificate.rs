//! The certificate: a self-signed one is created and renewed; a mounted one is read to detect changes.
//!
//! Key and certificate of the self-signed one share a file, so that one rename replaces both.

use std::fs;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use anyhow::Context;
use rcgen::{CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair, KeyUsagePurpose};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use x509_cert::der::Decode;
use xxhash_rust::xxh3::Xxh3Default;

use super::private;
use crate::config::nginx::Certificate;

const DAY: Duration = Duration::from_secs(24 * 60 * 60);
/// A self-signed certificate is valid for three months and is replaced a month before it expires.
const LIFE: Duration = DAY.saturating_mul(90);
const RENEW_BEFORE: Duration = DAY.saturating_mul(30);

/// The file from which Linux reports the host name.
const HOST_NAME: &str = "/proc/sys/kernel/hostname";

/// Renews an expiring self-signed certificate, and returns a fingerprint of the files that nginx should use.
pub fn prepare(certificate: Option<&Certificate>) -> anyhow::Result<String> {
    let mut digest = Xxh3Default::new();
    if let Some(Certificate { certificate, key, self_signed }) = certificate {
        if *self_signed {
            private::directory(certificate.parent().unwrap_or(Path::new("/")), "TLS_DIR", false)?;
            if !is_good(certificate) {
                make(certificate)
                    .with_context(|| format!("TLS_SELF_SIGNED=true: cannot create {}", certificate.display()))?;
            }
        }
        for file in [certificate, key] {
            digest.update(&fs::read(file).with_context(|| format!("cannot read {}", file.display()))?);
        }
    }
    Ok(format!("{:032x}", digest.digest128()))
}

/// Returns true if a file has a key and a certificate that does not expire soon.
fn is_good(file: &Path) -> bool {
    let has_key = fs::read(file).is_ok_and(|pem| PrivateKeyDer::from_pem_slice(&pem).is_ok());
    has_key && end(file).is_some_and(|end| end > SystemTime::now() + RENEW_BEFORE)
}

/// The expiry of the first certificate in a file; `None` if there is none.
fn end(file: &Path) -> Option<SystemTime> {
    let der = CertificateDer::from_pem_slice(&fs::read(file).ok()?).ok()?;
    let read = x509_cert::Certificate::from_der(&der).ok()?;
    Some(read.tbs_certificate.validity.not_after.to_system_time())
}

/// Writes a new key, and a certificate for this machine's names.
fn make(file: &Path) -> anyhow::Result<()> {
    let mut names = vec!["localhost".to_owned(), "127.0.0.1".to_owned(), "::1".to_owned()];
    let host = fs::read_to_string(HOST_NAME).unwrap_or_default().trim().to_owned();
    if is_name(&host) && host != "localhost" {
        names.push(host);
    }
    let mut wanted = CertificateParams::new(names)?;
    wanted.distinguished_name.push(DnType::CommonName, "localhost");
    wanted.is_ca = IsCa::ExplicitNoCa;
    wanted.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    wanted.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    let now = SystemTime::now();
    wanted.not_before = now.into();
    wanted.not_after = (now + LIFE).into();
    let key = KeyPair::generate()?;
    let certificate = wanted.self_signed(&key)?;

    let new = file.with_extension(format!("{}.new", std::process::id()));
    let written = fs::OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(&new)
        .and_then(|mut out| out.write_all((key.serialize_pem() + &certificate.pem()).as_bytes()))
        .and_then(|()| fs::rename(&new, file));
    if written.is_err() {
        let _ = fs::remove_file(&new);
    }
    Ok(written?)
}

fn is_name(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b".-".contains(&byte))
}

/// The fingerprint of the certificate with which nginx was last started or reloaded.
pub struct StoredFingerprint<'a>(pub &'a Path);

impl StoredFingerprint<'_> {
    /// Returns true if it equals this fingerprint.
    pub fn is(&self, fingerprint: &str) -> bool {
        fs::read_to_string(self.file()).is_ok_and(|known| known == fingerprint)
    }

    /// Stores a new fingerprint.
    pub fn set(&self, fingerprint: &str) -> anyhow::Result<()> {
        fs::write(self.file(), fingerprint).with_context(|| format!("cannot write {}", self.file().display()))
    }

    fn file(&self) -> PathBuf {
        self.0.join("certificate.fingerprint")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::MetadataExt;

    #[test]
    fn a_created_certificate_is_usable_private_and_valid_for_ninety_days() {
        let folder = tempfile::tempdir().expect("a temporary directory");
        let file = folder.path().join("self-signed.pem");
        assert!(!is_good(&file));
        make(&file).expect("made");
        assert!(is_good(&file));
        assert_eq!(fs::metadata(&file).expect("it exists").mode() & 0o777, 0o600);
        assert_eq!(fs::read_dir(folder.path()).expect("a folder").count(), 1, "nothing else is left");
        let pem = fs::read(&file).expect("read");
        let der = CertificateDer::from_pem_slice(&pem).expect("a certificate");
        let validity = x509_cert::Certificate::from_der(&der).expect("X.509").tbs_certificate.validity;
        let life = validity.not_after.to_unix_duration() - validity.not_before.to_unix_duration();
        assert_eq!(life, LIFE);
        let without_key: Vec<u8> =
            pem.split(|byte| *byte == b'\n').skip(3).flat_map(|line| [line, b"\n"].concat()).collect();
        fs::write(&file, without_key).expect("written");
        assert!(!is_good(&file), "it has no key");
        fs::write(&file, "not a certificate").expect("written");
        assert!(!is_good(&file));
    }
}
