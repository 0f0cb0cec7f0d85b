//! Queries a running server's readiness: the client side of `/readyz`, for `pycrudapi healthcheck`.
//!
//! The image has no curl; this needs only the binary.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use http_body_util::{BodyExt, Empty, Limited};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use thiserror::Error;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};
use warp::http::{Request, StatusCode};

use crate::masked::masked;

/// Maximum wait for the whole response; shorter than the usual timeout of a container's health check.
const TIMEOUT: Duration = Duration::from_secs(3);
/// Maximum size of a response; a health check's is shorter.
const BODY_MAX_BYTES: usize = 64 * 1024;

/// The server to query.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ProbeTarget {
    /// `http://host:port/path`.
    Http {
        /// `host:port`.
        authority: String,
        /// Begins with a slash.
        path: String,
    },
    /// `unix:/path`, queried for `/readyz`.
    Unix(PathBuf),
}

impl ProbeTarget {
    /// `/readyz` on a port of this machine.
    pub fn local(port: u16) -> Self {
        Self::Http { authority: format!("127.0.0.1:{port}"), path: "/readyz".to_owned() }
    }
}

impl FromStr for ProbeTarget {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if let Some(path) = text.strip_prefix("unix:") {
            return Ok(Self::Unix(path.into()));
        }
        let rest = text
            .strip_prefix("http://")
            .ok_or("expected http://host:port/path or unix:/path, for example http://127.0.0.1:8080/readyz")?;
        let (authority, path) = rest.split_once('/').unwrap_or((rest, "readyz"));
        let authority = if authority.contains(':') { authority.to_owned() } else { format!("{authority}:80") };
        Ok(Self::Http { authority, path: format!("/{path}") })
    }
}

impl fmt::Display for ProbeTarget {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Http { authority, path } => formatter.write_str(&masked(&format!("http://{authority}{path}"))),
            Self::Unix(path) => write!(formatter, "unix:{}", path.display()),
        }
    }
}

/// Why the server does not count as ready.
#[derive(Debug, Error)]
pub enum ProbeError {
    /// The connection was refused.
    #[error("cannot connect")]
    Connect(#[from] std::io::Error),
    /// The response is not HTTP.
    #[error("the response is not HTTP")]
    Http(#[from] hyper::Error),
    /// The status is not 200.
    #[error("status {0}: {1}")]
    Status(StatusCode, String),
    /// The server did not respond in time.
    #[error("no response within {} s", TIMEOUT.as_secs())]
    Timeout,
}

/// Sends one request; returns the body of a 200.
///
/// # Errors
/// If the response is not a 200, or there is none.
pub async fn ask(target: &ProbeTarget) -> Result<String, ProbeError> {
    let asking = async {
        match target {
            ProbeTarget::Http { authority, path } => {
                request(TcpStream::connect(authority).await?, authority, path).await
            }
            ProbeTarget::Unix(socket) => request(UnixStream::connect(socket).await?, "localhost", "/readyz").await,
        }
    };
    tokio::time::timeout(TIMEOUT, asking).await.unwrap_or(Err(ProbeError::Timeout))
}

async fn request(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    host: &str,
    path: &str,
) -> Result<String, ProbeError> {
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    tokio::spawn(connection);
    let request = Request::get(path)
        .header("host", host)
        .body(Empty::<bytes::Bytes>::new())
        .map_err(|error| std::io::Error::new(std::io::ErrorKind::InvalidInput, error))?;
    let response = sender.send_request(request).await?;
    let status = response.status();
    let body =
        Limited::new(response.into_body(), BODY_MAX_BYTES).collect().await.map(http_body_util::Collected::to_bytes);
    let text = String::from_utf8_lossy(&body.unwrap_or_default()).into_owned();
    if status == StatusCode::OK { Ok(text) } else { Err(ProbeError::Status(status, text)) }
}
