//! nginx's certificate and its key: whether they can be read, match, and are valid now.

use std::fs;
use std::io::ErrorKind;
use std::path::Path;
use std::time::{Duration, SystemTime};

use jiff::Timestamp;
use rustls::crypto::ring;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use x509_cert::der::{Decode, Encode};

use super::report::Report;
use crate::config::nginx::Certificate;

const AREA: &str = "nginx";
const DAY: Duration = Duration::from_secs(24 * 60 * 60);
/// Renewing a certificate manually takes some days.
const WARNING: Duration = DAY.saturating_mul(14);

/// Checks both files.
pub fn check(report: &mut Report, found: &Certificate) {
    let shown = found.certificate.display();
    let remedy = if found.self_signed { "pycrudapi nginx reload" } else { "renew it, then pycrudapi nginx reload" };
    let Some(pem) = read(report, "certificate", &found.certificate) else { return };
    let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&pem).collect();
    let chain = match chain {
        Ok(chain) if !chain.is_empty() => chain,
        _ => {
            return report.wrong(
                AREA,
                format!("{shown} contains no certificate"),
                format!("put it there in PEM format; {remedy}"),
            );
        }
    };
    let mut is_valid = true;
    for (index, der) in chain.iter().enumerate() {
        let name = if index == 0 {
            format!("the certificate {shown}")
        } else {
            format!("certificate {} in {shown}", index + 1)
        };
        is_valid &= validity(report, der, &name, remedy);
    }
    let is_pair = key(report, found, &chain);
    if is_valid && is_pair {
        report.fine(AREA, "the certificate is valid for more than two weeks");
    }
}

/// Reads a file; reports an error.
fn read(report: &mut Report, what: &str, path: &Path) -> Option<Vec<u8>> {
    let error = match fs::read(path) {
        Ok(bytes) => return Some(bytes),
        Err(error) => error,
    };
    let shown = path.display();
    let remedy = match error.kind() {
        ErrorKind::PermissionDenied => {
            format!("make it readable by nginx's user, and its directories accessible: namei -l {shown}")
        }
        _ => format!("put the file there: ls -l {shown}; or set TLS_CERT and TLS_KEY to other files"),
    };
    report.wrong(AREA, format!("the {what} {shown} cannot be read: {error}"), remedy);
    None
}

/// Whether a certificate is valid now and for some days; reports if not.
fn validity(report: &mut Report, der: &CertificateDer<'_>, name: &str, remedy: &str) -> bool {
    let Ok(read) = x509_cert::Certificate::from_der(der) else {
        report.wrong(AREA, format!("{name} is malformed"), remedy);
        return false;
    };
    let validity = read.tbs_certificate.validity;
    let (begin, end, now) =
        (validity.not_before.to_system_time(), validity.not_after.to_system_time(), SystemTime::now());
    if begin > now {
        let when = Timestamp::try_from(begin).map_or_else(|_| "later".to_owned(), |begin| format!("{begin:.0}"));
        let remedy = format!("check this machine's clock (date -u; timedatectl set-ntp true), or {remedy}");
        report.wrong(AREA, format!("{name} is not valid until {when}: clients reject it"), remedy);
        return false;
    }
    match end.duration_since(now) {
        Err(_) => report.wrong(AREA, format!("{name} has expired"), remedy),
        Ok(left) if left < WARNING => {
            report.warning(AREA, format!("{name} expires in {} days", left.as_secs() / DAY.as_secs()), remedy);
        }
        Ok(_) => return true,
    }
    false
}

/// Whether the key matches the certificate; reports if not.
fn key(report: &mut Report, found: &Certificate, chain: &[CertificateDer<'static>]) -> bool {
    let (certificate, shown) = (found.certificate.display(), found.key.display());
    let Some(pem) = read(report, "key", &found.key) else { return false };
    let Ok(key) = PrivateKeyDer::from_pem_slice(&pem) else {
        let is_encrypted = String::from_utf8_lossy(&pem).contains("ENCRYPTED");
        let (what, remedy) = if is_encrypted {
            (
                "is protected by a passphrase, which nginx cannot prompt for",
                format!("openssl pkey -in {shown} -out {shown}.open, and TLS_KEY={shown}.open"),
            )
        } else {
            (
                "contains no private key",
                format!("put the key of {certificate} there, in PEM format, or correct TLS_KEY"),
            )
        };
        report.wrong(AREA, format!("{shown} {what}"), remedy);
        return false;
    };
    // Unsupported kinds of keys are left to nginx.
    let public = ring::default_provider()
        .key_provider
        .load_private_key(key)
        .ok()
        .and_then(|key| Some(key.public_key()?.to_vec()));
    let Some(public) = public else { return true };
    let is_of = |certificate: &CertificateDer<'static>| {
        let read = x509_cert::Certificate::from_der(certificate).ok();
        let info = read.and_then(|read| read.tbs_certificate.subject_public_key_info.to_der().ok());
        info.is_some_and(|info| info == public)
    };
    if is_of(&chain[0]) {
        return true;
    }
    let (what, remedy) = match chain.iter().position(is_of) {
        Some(_) => (
            format!("the first certificate in {certificate} does not match the key {shown}, but a later one does"),
            format!("put the server's own certificate before the intermediate certificates in {certificate}"),
        ),
        None => (
            format!("the key {shown} does not match the certificate {certificate}"),
            "set TLS_CERT and TLS_KEY to the two files of one pair; openssl pkey -pubout and openssl x509 -noout -pubkey \
             must print the same for both"
                .to_owned(),
        ),
    };
    report.wrong(AREA, what, remedy);
    false
}
