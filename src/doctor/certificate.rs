//! The certificate that nginx shows, and its key: read, of one pair, and valid now.

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
/// Who renews certificates by hand needs some days.
const WARNING: Duration = DAY.saturating_mul(14);

/// Looks at both files.
pub fn look(report: &mut Report, found: &Certificate) {
    let shown = found.certificate.display();
    let mend = if found.self_signed { "pycrudapi nginx reload" } else { "renew it, then pycrudapi nginx reload" };
    let Some(pem) = read(report, "certificate", &found.certificate) else { return };
    let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&pem).collect();
    let chain = match chain {
        Ok(chain) if !chain.is_empty() => chain,
        _ => {
            return report.wrong(AREA, format!("{shown} holds no certificate"), format!("put it there in PEM; {mend}"));
        }
    };
    let mut is_valid = true;
    for (index, der) in chain.iter().enumerate() {
        let name = if index == 0 {
            format!("the certificate {shown}")
        } else {
            format!("certificate {} in {shown}", index + 1)
        };
        is_valid &= validity(report, der, &name, mend);
    }
    let is_pair = key(report, found, &chain);
    if is_valid && is_pair {
        report.fine(AREA, "the certificate is good for more than two weeks");
    }
}

/// What a file holds; says why it cannot be read.
fn read(report: &mut Report, what: &str, path: &Path) -> Option<Vec<u8>> {
    let error = match fs::read(path) {
        Ok(bytes) => return Some(bytes),
        Err(error) => error,
    };
    let shown = path.display();
    let mend = match error.kind() {
        ErrorKind::PermissionDenied => {
            format!("let the user of nginx read it, and its directories be entered: namei -l {shown}")
        }
        _ => format!("put the file there: ls -l {shown}; TLS_CERT and TLS_KEY name others"),
    };
    report.wrong(AREA, format!("the {what} {shown} cannot be read: {error}"), mend);
    None
}

/// Whether a certificate is valid now and for some days; says so otherwise.
fn validity(report: &mut Report, der: &CertificateDer<'_>, name: &str, mend: &str) -> bool {
    let Ok(read) = x509_cert::Certificate::from_der(der) else {
        report.wrong(AREA, format!("{name} cannot be understood"), mend);
        return false;
    };
    let validity = read.tbs_certificate.validity;
    let (begin, end, now) =
        (validity.not_before.to_system_time(), validity.not_after.to_system_time(), SystemTime::now());
    if begin > now {
        let when =
            Timestamp::try_from(begin).map_or_else(|_| "later".to_owned(), |begin| format!("from {begin:.0} on"));
        let mend = format!("see this machine's clock (date -u; timedatectl set-ntp true), or {mend}");
        report.wrong(AREA, format!("{name} is not valid yet, but {when}: clients refuse it"), mend);
        return false;
    }
    match end.duration_since(now) {
        Err(_) => report.wrong(AREA, format!("{name} has expired"), mend),
        Ok(left) if left < WARNING => {
            report.warning(AREA, format!("{name} expires in {} days", left.as_secs() / DAY.as_secs()), mend);
        }
        Ok(_) => return true,
    }
    false
}

/// Whether the key is the certificate's; says so otherwise.
fn key(report: &mut Report, found: &Certificate, chain: &[CertificateDer<'static>]) -> bool {
    let (certificate, shown) = (found.certificate.display(), found.key.display());
    let Some(pem) = read(report, "key", &found.key) else { return false };
    let Ok(key) = PrivateKeyDer::from_pem_slice(&pem) else {
        let is_locked = String::from_utf8_lossy(&pem).contains("ENCRYPTED");
        let (what, mend) = if is_locked {
            (
                "is protected by a passphrase, for which nginx cannot ask",
                format!("openssl pkey -in {shown} -out {shown}.open, and TLS_KEY={shown}.open"),
            )
        } else {
            ("holds no private key", format!("put the key of {certificate} there, in PEM, or correct TLS_KEY"))
        };
        report.wrong(AREA, format!("{shown} {what}"), mend);
        return false;
    };
    // Kinds of keys that are not known here are nginx's to judge.
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
    let (what, mend) = match chain.iter().position(is_of) {
        Some(_) => (
            format!("the first certificate in {certificate} is not that of the key {shown}, but a later one is"),
            format!("put the server's own certificate before those that vouch for it in {certificate}"),
        ),
        None => (
            format!("the key {shown} is not that of the certificate {certificate}"),
            "name both files of one pair in TLS_CERT and TLS_KEY; openssl pkey -pubout and openssl x509 -noout -pubkey must print the \
             same of both"
                .to_owned(),
        ),
    };
    report.wrong(AREA, what, mend);
    false
}
