//! TLS to PostgreSQL with rustls, with libpq's three levels of verification.
//!
//! It only defines how a server's certificate is verified; whether TLS is used is determined by `sslmode` in `conninfo`.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{CertificateError, ClientConfig, DigitallySignedStruct, Error, RootCertStore, SignatureScheme};
use thiserror::Error;
use tokio_postgres_rustls::MakeRustlsConnect;

/// How the server's certificate is verified.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verify {
    /// Encryption only (`prefer`, `require`).
    Nothing,
    /// Signed by a trusted authority (`verify-ca`).
    Chain,
    /// Signed by a trusted authority for the host's name (`verify-full`).
    ChainAndName,
}

/// Why trusted certificates could not be loaded.
#[derive(Debug, Error)]
pub enum TlsError {
    /// `sslrootcert` names a file without usable certificates.
    #[error("sets sslrootcert to {0}")]
    RootFile(RootsError),
    /// The system has no trusted certificates.
    #[error("requires a verified certificate, but {0}; set sslrootcert=/path/to/ca.pem")]
    NoRoots(RootsError),
    /// rustls rejected the configuration.
    #[error("cannot set up TLS: {0}")]
    Setup(String),
}

/// Why no trusted authorities could be loaded.
#[derive(Debug, Error)]
pub enum RootsError {
    /// A file without usable certificates.
    #[error("{}, which has no usable PEM certificate: {reason}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// The system has none.
    #[error("this system has no trusted certificate authorities")]
    None,
}

/// The certificate authorities in a file, or those that the system trusts.
///
/// # Errors
/// If there are none.
fn roots(file: Option<&Path>) -> Result<RootCertStore, RootsError> {
    let mut roots = RootCertStore::empty();
    let Some(path) = file else {
        roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        return if roots.is_empty() { Err(RootsError::None) } else { Ok(roots) };
    };
    let fault = |reason: String| RootsError::File { path: path.to_owned(), reason };
    let certificates = CertificateDer::pem_file_iter(path).map_err(|error| fault(error.to_string()))?;
    for certificate in certificates {
        let certificate = certificate.map_err(|error| fault(error.to_string()))?;
        roots.add(certificate).map_err(|error| fault(error.to_string()))?;
    }
    if roots.is_empty() { Err(fault("the file is empty".to_owned())) } else { Ok(roots) }
}

/// TLS configuration of an HTTPS client that trusts the authorities in a file, or those of the system.
///
/// # Errors
/// If there are none.
pub fn client_config(file: Option<&Path>) -> Result<Arc<ClientConfig>, RootsError> {
    let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .expect("ring supports the ciphers of TLS 1.2 and 1.3")
        .with_root_certificates(roots(file)?)
        .with_no_client_auth();
    Ok(Arc::new(config))
}

/// Creates the connector with which tokio-postgres opens TLS sessions.
///
/// # Errors
/// If certificates are required and cannot be loaded.
pub fn connector(verify: Verify, root: Option<&Path>) -> Result<MakeRustlsConnect, TlsError> {
    let provider = Arc::new(ring::default_provider());
    let verifier = Verifier { verify, chain: chain(verify, root, &provider)?, provider: provider.clone() };
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| TlsError::Setup(error.to_string()))?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier))
        .with_no_client_auth();
    Ok(MakeRustlsConnect::new(config))
}

/// The standard verifier with the given or the system's authorities; `None` if nothing is verified.
fn chain(
    verify: Verify,
    root: Option<&Path>,
    provider: &Arc<CryptoProvider>,
) -> Result<Option<Arc<WebPkiServerVerifier>>, TlsError> {
    if verify == Verify::Nothing {
        return Ok(None);
    }
    let roots = roots(root).map_err(|error| match error {
        RootsError::File { .. } => TlsError::RootFile(error),
        RootsError::None => TlsError::NoRoots(error),
    })?;
    WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider.clone())
        .build()
        .map(Some)
        .map_err(|error| TlsError::Setup(error.to_string()))
}

/// Verifies a certificate as `sslmode` specifies, and always checks that the server has the private key.
#[derive(Debug)]
struct Verifier {
    verify: Verify,
    chain: Option<Arc<WebPkiServerVerifier>>,
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let Some(chain) = &self.chain else {
            return Ok(ServerCertVerified::assertion());
        };
        match chain.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now) {
            // The name is checked after the chain, so a wrong name as the only error means that the chain is valid.
            Err(Error::InvalidCertificate(
                CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. },
            )) if self.verify == Verify::Chain => Ok(ServerCertVerified::assertion()),
            result => result,
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, cert, dss, &self.provider.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, cert, dss, &self.provider.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}
