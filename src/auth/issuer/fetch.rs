//! Fetches a document of the identity provider over verified TLS, with a deadline and a size limit, without redirects.
//!
//! Plain HTTP is accepted for this machine only. A redirect is an error: only the operator and the issuer's own document
//! determine where keys come from.

use std::fmt;
use std::path::Path;
use std::str::FromStr;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Empty, Limited};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use rustls::pki_types::ServerName;
use thiserror::Error;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::TlsConnector;
use warp::http::header::{ACCEPT, HOST, USER_AGENT};
use warp::http::uri::{Scheme, Uri};
use warp::http::{Request, StatusCode};

use crate::db::tls::{RootsError, client_config};
use crate::staggered;

/// Maximum time for a whole document.
const DEADLINE: Duration = Duration::from_secs(5);
/// A key with its certificates takes about 4 KiB.
pub const DOCUMENT_MAX_BYTES: usize = 256 * 1024;

/// The URL of a document.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Address {
    uri: Uri,
    host: String,
}

impl FromStr for Address {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let uri: Uri = text.parse().map_err(|_| "expected a URL")?;
        let host = uri.host().unwrap_or_default();
        let host = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host).to_owned();
        if host.is_empty() || uri.authority().is_some_and(|authority| authority.as_str().contains('@')) {
            return Err("expected https://host/path, without user and password");
        }
        // `Uri` silently drops a fragment.
        if text.contains('#') {
            return Err("expected a URL without a fragment");
        }
        if uri.scheme() == Some(&Scheme::HTTPS) || (uri.scheme() == Some(&Scheme::HTTP) && is_loopback(&host)) {
            return Ok(Self { uri, host });
        }
        Err("expected an https URL; http is accepted for localhost, 127.0.0.1 and [::1] only")
    }
}

impl fmt::Display for Address {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.uri.fmt(formatter)
    }
}

fn is_loopback(host: &str) -> bool {
    host.eq_ignore_ascii_case("localhost")
        || host.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback())
}

impl Address {
    /// Returns true if it is fetched over TLS.
    pub fn is_https(&self) -> bool {
        self.uri.scheme() == Some(&Scheme::HTTPS)
    }

    /// Scheme, host and port as a content security policy source; `None` for an IPv6 address, which such a source cannot
    /// express.
    pub fn origin(&self) -> Option<String> {
        let authority = self.uri.authority()?.as_str();
        let is_plain = authority.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-._:".contains(&byte));
        is_plain.then(|| format!("{}://{authority}", if self.is_https() { "https" } else { "http" }))
    }

    fn port(&self) -> u16 {
        self.uri.port_u16().unwrap_or(if self.is_https() { 443 } else { 80 })
    }
}

/// Why a document could not be fetched. The texts are for the log.
#[derive(Debug, Error)]
pub enum FetchError {
    /// The connection was refused, or the certificate is not trusted.
    #[error("cannot connect")]
    Connect(#[source] std::io::Error),
    /// The response is not HTTP.
    #[error("the response is not HTTP")]
    Http(#[source] hyper::Error),
    /// The status is not 200.
    #[error("expected status 200, found {0}; redirects are not followed")]
    Status(StatusCode),
    /// The document is too long or incomplete.
    #[error("the document is longer than 256 KiB, or incomplete")]
    Body(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// The deadline passed.
    #[error("no response within {} s", DEADLINE.as_secs())]
    Timeout,
    /// Plain HTTP to another machine.
    #[error("the host of an http URL is not this machine; use https")]
    NotLoopback,
    /// TLS is not configured.
    #[error("no certificate authority is trusted on this machine; set AUTH_CA_FILE to a file with one")]
    NoRoots,
}

/// Fetches documents.
#[derive(Clone)]
pub struct Client {
    /// `None` if no certificate authority is trusted.
    tls: Option<TlsConnector>,
}

impl Client {
    /// A client that trusts the certificate authorities in a file, or those of the system.
    ///
    /// # Errors
    /// If the file has none.
    pub fn new(file: Option<&Path>) -> Result<Self, RootsError> {
        match client_config(file) {
            Ok(config) => Ok(Self { tls: Some(TlsConnector::from(config)) }),
            Err(RootsError::None) => Ok(Self { tls: None }),
            Err(error) => Err(error),
        }
    }

    /// Fetches the document at a URL.
    ///
    /// # Errors
    /// [`FetchError`].
    pub async fn get(&self, address: &Address) -> Result<Bytes, FetchError> {
        tokio::time::timeout(DEADLINE, self.request(address)).await.unwrap_or(Err(FetchError::Timeout))
    }

    async fn request(&self, address: &Address) -> Result<Bytes, FetchError> {
        let host = address.host.as_str();
        let stream = staggered::connect(host, address.port()).await.map_err(FetchError::Connect)?;
        if !address.is_https() {
            // `localhost` may be another machine where it is resolved by a name server.
            let is_here = stream.peer_addr().is_ok_and(|peer| peer.ip().is_loopback());
            return if is_here { exchange(stream, address).await } else { Err(FetchError::NotLoopback) };
        }
        let tls = self.tls.as_ref().ok_or(FetchError::NoRoots)?;
        let name = ServerName::try_from(host.to_owned())
            .map_err(|error| FetchError::Connect(std::io::Error::new(std::io::ErrorKind::InvalidInput, error)))?;
        exchange(tls.connect(name, stream).await.map_err(FetchError::Connect)?, address).await
    }
}

/// Sends one request on a new connection: the next one is minutes away.
async fn exchange(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    address: &Address,
) -> Result<Bytes, FetchError> {
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(FetchError::Http)?;
    let path = address.uri.path_and_query().map_or("/", |path| path.as_str());
    let authority = address.uri.authority().map_or("", |authority| authority.as_str());
    let request = Request::get(path)
        .header(HOST, authority)
        .header(ACCEPT, "application/json")
        .header(USER_AGENT, concat!("pycrudapi/", env!("CARGO_PKG_VERSION")))
        .body(Empty::<Bytes>::new())
        .expect("the parts of a valid URL make a valid request");
    let answering = async {
        let response = sender.send_request(request).await.map_err(FetchError::Http)?;
        if response.status() != StatusCode::OK {
            return Err(FetchError::Status(response.status()));
        }
        let body = Limited::new(response.into_body(), DOCUMENT_MAX_BYTES).collect().await.map_err(FetchError::Body)?;
        Ok(body.to_bytes())
    };
    // Driven here instead of in a task, so that the connection is closed when the deadline passes.
    tokio::pin!(answering);
    tokio::select! {
        answer = &mut answering => answer,
        _ = connection => answering.await,
    }
}

#[cfg(test)]
mod tests {
    use super::Address;

    #[test]
    fn only_https_is_accepted_and_http_on_this_machine() {
        for text in [
            "https://id.example",
            "https://id.example:8443/keys?tenant=a",
            "https://[2001:db8::1]/keys",
            "http://localhost:9000/keys",
            "http://127.8.0.1/keys",
            "http://[::1]:9000/keys",
        ] {
            assert!(text.parse::<Address>().is_ok(), "{text}");
        }
        for text in [
            "",
            "id.example",
            "/keys",
            "http://id.example/keys",
            "http://localhost.id.example/keys",
            "http://127.0.0.1.id.example/keys",
            "http://10.0.0.1/keys",
            "http://[::ffff:10.0.0.1]/keys",
            "http://user@localhost/keys",
            "https://user:password@id.example/keys",
            "http://localhost@id.example/keys",
            "https://id.example/keys#one",
            "file:///etc/passwd",
            "ftp://localhost/keys",
            "https:///keys",
        ] {
            assert!(text.parse::<Address>().is_err(), "{text}");
        }
    }
}
