//! An HTTP connection to a trace collector: OTLP over HTTP with Protocol Buffers.

use std::io::{self, Write};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use flate2::Compression;
use flate2::write::GzEncoder;
use http_body_util::{BodyExt, Full, Limited};
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceResponse;
use prost::Message;
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use thiserror::Error;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::TlsConnector;
use warp::http::header::{CONTENT_ENCODING, CONTENT_TYPE, HOST, HeaderName, HeaderValue, RETRY_AFTER, USER_AGENT};
use warp::http::uri::{Scheme, Uri};
use warp::http::{Request, StatusCode};

use crate::staggered;

/// Maximum size of a collector's response.
const ANSWER_MAX_BYTES: usize = 64 * 1024;

/// The collector's URL and request options.
#[derive(Clone)]
pub struct Address {
    /// An `http` or `https` URL.
    pub url: Uri,
    /// Additional headers, such as an API key.
    pub headers: Vec<(HeaderName, HeaderValue)>,
    /// Whether bodies are compressed.
    pub gzip: bool,
    /// TLS configuration for an `https` URL.
    pub tls: Option<Arc<ClientConfig>>,
}

/// Why spans were not delivered.
#[derive(Debug, Error)]
pub enum DeliveryError {
    /// The connection is refused, or the certificate is not trusted.
    #[error("cannot connect")]
    Connect(#[source] io::Error),
    /// The connection was lost, or the server does not speak HTTP.
    #[error("no response")]
    Http(#[source] hyper::Error),
    /// The collector may accept them later.
    #[error("the collector is busy: status {0}")]
    Busy(StatusCode, Option<Duration>),
    /// The collector rejects them permanently.
    #[error("the collector rejects the spans: status {0}")]
    Refused(StatusCode),
    /// It did not respond in time.
    #[error("no response in time")]
    Timeout,
}

/// A collector.
pub struct Collector {
    address: Address,
    /// Kept open for the next batch.
    connection: Option<SendRequest<Full<Bytes>>>,
}

impl Collector {
    /// Creates a collector, which is not connected yet.
    pub fn new(address: Address) -> Self {
        Self { address, connection: None }
    }

    /// Encodes the body of a request.
    pub fn body(&self, message: Vec<u8>) -> Bytes {
        if !self.address.gzip {
            return message.into();
        }
        let mut encoder = GzEncoder::new(Vec::with_capacity(message.len() / 4), Compression::fast());
        let packed = encoder.write_all(&message).and_then(|()| encoder.finish());
        packed.expect("a vector takes everything").into()
    }

    /// Delivers a request; returns how many of its spans the collector rejected.
    ///
    /// # Errors
    /// [`DeliveryError`].
    pub async fn deliver(&mut self, body: Bytes) -> Result<usize, DeliveryError> {
        let mut kept = self.connection.take();
        // It may have been closed in the meantime.
        if let Some(sender) = &mut kept
            && sender.ready().await.is_err()
        {
            kept = None;
        }
        let mut sender = match kept {
            Some(sender) => sender,
            None => self.connect().await?,
        };
        let response = sender.send_request(self.request(body)).await.map_err(DeliveryError::Http)?;
        let (status, headers) = (response.status(), response.headers().clone());
        let answer = Limited::new(response.into_body(), ANSWER_MAX_BYTES).collect().await;
        if answer.is_ok() {
            self.connection = Some(sender);
        }
        match status.as_u16() {
            200..300 => {
                let answer = answer.map(http_body_util::Collected::to_bytes).unwrap_or_default();
                let partial = ExportTraceServiceResponse::decode(answer).unwrap_or_default().partial_success;
                Ok(partial.and_then(|partial| usize::try_from(partial.rejected_spans).ok()).unwrap_or_default())
            }
            429 | 502 | 503 | 504 => {
                let seconds = headers.get(RETRY_AFTER).and_then(|value| value.to_str().ok()?.parse().ok());
                Err(DeliveryError::Busy(status, seconds.map(Duration::from_secs)))
            }
            _ => Err(DeliveryError::Refused(status)),
        }
    }

    async fn connect(&self) -> Result<SendRequest<Full<Bytes>>, DeliveryError> {
        let url = &self.address.url;
        let is_https = url.scheme() == Some(&Scheme::HTTPS);
        let host = url.host().unwrap_or_default().trim_matches(['[', ']']);
        let port = url.port_u16().unwrap_or(if is_https { 443 } else { 80 });
        let stream = staggered::connect(host, port).await.map_err(DeliveryError::Connect)?;
        let Some(tls) = self.address.tls.clone().filter(|_| is_https) else { return begin(stream).await };
        let name = ServerName::try_from(host.to_owned())
            .map_err(|error| DeliveryError::Connect(io::Error::new(io::ErrorKind::InvalidInput, error)))?;
        begin(TlsConnector::from(tls).connect(name, stream).await.map_err(DeliveryError::Connect)?).await
    }

    fn request(&self, body: Bytes) -> Request<Full<Bytes>> {
        let Address { url, headers, gzip, .. } = &self.address;
        let mut request = Request::post(url.path_and_query().map_or("/", |path| path.as_str()))
            .header(HOST, url.authority().map_or("", |authority| authority.as_str()))
            .header(CONTENT_TYPE, "application/x-protobuf")
            .header(USER_AGENT, concat!("pycrudapi/", env!("CARGO_PKG_VERSION")));
        if *gzip {
            request = request.header(CONTENT_ENCODING, "gzip");
        }
        for (name, value) in headers {
            request = request.header(name, value);
        }
        request.body(Full::new(body)).expect("a URL's own parts make a request")
    }
}

async fn begin(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
) -> Result<SendRequest<Full<Bytes>>, DeliveryError> {
    let (sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(DeliveryError::Http)?;
    // It ends with the sender; its errors are reported to the pending request.
    tokio::spawn(async { drop(connection.await) });
    Ok(sender)
}
