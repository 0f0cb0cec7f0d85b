//! A client for one bucket of an S3-compatible store: sends requests, explains error responses, and retries when the store is
//! unreachable.

use std::io::Write;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, anyhow, bail};
use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use jiff::Timestamp;
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use warp::http::uri::{Scheme, Uri};
use warp::http::{Method, Request, Response, StatusCode};

use super::sign::{self, Access, Signed};
use crate::masked::masked;
use crate::staggered;

/// Pauses before further attempts; after the last one the request fails.
const PAUSES: [Duration; 4] =
    [Duration::from_millis(200), Duration::from_millis(600), Duration::from_secs(2), Duration::from_secs(5)];
/// Longest wait for the response to one request, and for the next bytes of a body.
const DEADLINE: Duration = Duration::from_secs(300);
const SILENCE: Duration = Duration::from_secs(60);
/// Longest response that is not an object: a list of a thousand names.
const ANSWER_MAX_BYTES: usize = 4 << 20;

/// A bucket.
#[derive(Clone)]
pub struct Store {
    is_https: bool,
    host: String,
    port: u16,
    authority: String,
    /// The prefix of all paths.
    root: String,
    /// The name of the bucket, for messages.
    pub name: String,
    region: String,
    access: Access,
    tls: Option<Arc<ClientConfig>>,
}

/// A request.
#[derive(Default)]
pub struct Ask<'a> {
    /// The method; GET by default.
    pub method: Method,
    /// The key of an object; empty for the bucket.
    pub key: &'a str,
    /// The parameters of the query.
    pub query: &'a [(&'a str, &'a str)],
    /// The body.
    pub body: Bytes,
}

/// An error response.
#[derive(Debug)]
pub struct Refusal {
    status: StatusCode,
    /// Such as `NoSuchKey`.
    pub code: String,
    message: String,
}

/// Why an attempt failed.
enum Failure {
    /// Another attempt may succeed.
    Away(anyhow::Error),
    Refused(Refusal),
}

/// The body and `ETag` of a response, or an error response; an error when the store cannot be reached.
pub type Answered = anyhow::Result<Result<(Bytes, Option<String>), Refusal>>;

impl Store {
    /// A bucket at an endpoint; without one, at Amazon S3.
    ///
    /// # Errors
    /// When the endpoint is not a URL.
    pub fn new(
        bucket: &str,
        endpoint: Option<&str>,
        region: &str,
        access: Access,
        tls: Option<Arc<ClientConfig>>,
    ) -> anyhow::Result<Self> {
        // Amazon's wildcard certificate does not match a bucket's name with a dot.
        let (text, root) = match endpoint {
            Some(endpoint) => (endpoint.to_owned(), format!("/{bucket}")),
            None if bucket.contains('.') => (format!("https://s3.{region}.amazonaws.com"), format!("/{bucket}")),
            None => (format!("https://{bucket}.s3.{region}.amazonaws.com"), String::new()),
        };
        let wrong = || format!("AWS_ENDPOINT_URL={}: expected a URL such as https://s3.example.com", masked(&text));
        let uri: Uri = text.parse().with_context(wrong)?;
        let is_https = uri.scheme() == Some(&Scheme::HTTPS);
        let (Some(authority), true) = (uri.authority(), is_https || uri.scheme() == Some(&Scheme::HTTP)) else {
            bail!(wrong());
        };
        if uri.path() != "/" || uri.query().is_some() || authority.as_str().contains('@') {
            bail!("{}, without path, user and query", wrong());
        }
        Ok(Self {
            is_https,
            host: authority.host().trim_matches(['[', ']']).to_owned(),
            port: authority.port_u16().unwrap_or(if is_https { 443 } else { 80 }),
            authority: authority.as_str().to_owned(),
            root,
            name: bucket.to_owned(),
            region: region.to_owned(),
            access,
            tls,
        })
    }

    /// Sends a request, with retries; returns the body and its `ETag`, or an error response that the caller may handle.
    ///
    /// # Errors
    /// When the store cannot be reached.
    pub async fn ask(&self, ask: &Ask<'_>) -> Answered {
        let mut pauses = PAUSES.iter();
        loop {
            let attempt = async {
                let response = self.once(ask, 0).await?;
                let etag = response.headers().get("etag").and_then(|etag| Some(etag.to_str().ok()?.to_owned()));
                Ok((whole(response).await?, etag))
            };
            match attempt.await {
                Ok(answer) => return Ok(Ok(answer)),
                Err(Failure::Refused(refusal)) => return Ok(Err(refusal)),
                Err(Failure::Away(error)) => self.pause(error, &mut pauses).await?,
            }
        }
    }

    /// Does the same, and treats every error response as an error.
    ///
    /// # Errors
    /// The store's message with the remedy.
    pub async fn expect(&self, ask: &Ask<'_>) -> anyhow::Result<(Bytes, Option<String>)> {
        self.ask(ask).await?.map_err(|refusal| self.explained(refusal))
    }

    /// Copies an object into a writer, and resumes after a lost connection; false when there is no such object.
    ///
    /// # Errors
    /// When the object cannot be read to its end, or the writer fails.
    pub async fn read(&self, key: &str, into: &mut (impl Write + ?Sized)) -> anyhow::Result<bool> {
        let ask = Ask { key, ..Ask::default() };
        let (mut done, mut pauses) = (0, PAUSES.iter());
        loop {
            let before = done;
            let failure = match self.once(&ask, done).await {
                Err(Failure::Refused(refusal)) if refusal.code == "NoSuchKey" => return Ok(false),
                Err(Failure::Refused(refusal)) => return Err(self.explained(refusal)),
                Err(Failure::Away(error)) => error,
                Ok(response) if done > 0 && response.status() != StatusCode::PARTIAL_CONTENT => {
                    bail!("the store cannot send the rest of {key}; try again")
                }
                Ok(response) => match pour(response, into, &mut done).await? {
                    None => return Ok(true),
                    Some(error) => error,
                },
            };
            if done > before {
                pauses = PAUSES.iter();
            }
            self.pause(failure, &mut pauses).await?;
        }
    }

    async fn pause(&self, error: anyhow::Error, pauses: &mut std::slice::Iter<'_, Duration>) -> anyhow::Result<()> {
        let Some(pause) = pauses.next() else {
            let origin = format!("{}://{}", if self.is_https { "https" } else { "http" }, self.authority);
            return Err(error.context(format!(
                "the store at {origin} cannot be reached; check that it is running, and AWS_ENDPOINT_URL and AWS_REGION"
            )));
        };
        tracing::debug!(reason = format!("{error:#}"), "retrying a request to the store");
        tokio::time::sleep(*pause).await; // polling: nothing announces that the store is back
        Ok(())
    }

    /// An error response with the remedy.
    pub fn explained(&self, refusal: Refusal) -> anyhow::Error {
        let Refusal { status, code, message } = refusal;
        let name = &self.name;
        let advice = match code.as_str() {
            "NoSuchBucket" => format!("there is no bucket {name} at {}; make it first", self.authority),
            "InvalidAccessKeyId" | "SignatureDoesNotMatch" | "InvalidToken" | "ExpiredToken" => {
                "the store does not accept the key; check AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY".to_owned()
            }
            "AccessDenied" | "AllAccessDisabled" => format!(
                "the key may not do this; it needs s3:ListBucket on bucket {name}, and s3:GetObject, s3:PutObject and s3:DeleteObject \
                 on what is in it"
            ),
            "RequestTimeTooSkewed" => "the clock of this machine is wrong; set it".to_owned(),
            "PermanentRedirect"
            | "TemporaryRedirect"
            | "AuthorizationHeaderMalformed"
            | "IllegalLocationConstraintException" => {
                format!("bucket {name} is in another region; set AWS_REGION")
            }
            _ if status == StatusCode::FORBIDDEN => {
                "the store refuses the key; check AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY".to_owned()
            }
            _ => format!("the store refuses a request for bucket {name}"),
        };
        anyhow!("{advice} ({status}{}{code}: {message})", if code.is_empty() { "" } else { ", " })
    }

    /// Sends a request once; returns a successful response.
    async fn once(&self, ask: &Ask<'_>, from: u64) -> Result<Response<Incoming>, Failure> {
        let request = self.request(ask, from);
        let asking = async {
            let stream = staggered::connect(&self.host, self.port).await?;
            let Some(tls) = self.tls.clone().filter(|_| self.is_https) else {
                return send(stream, request).await;
            };
            let name = ServerName::try_from(self.host.clone())?;
            send(TlsConnector::from(tls).connect(name, stream).await?, request).await
        };
        let response = match timeout(DEADLINE, asking).await {
            Ok(answered) => answered.map_err(Failure::Away)?,
            Err(_) => return Err(Failure::Away(anyhow!("no answer within {} s", DEADLINE.as_secs()))),
        };
        let status = response.status();
        if status.is_success() {
            return Ok(response);
        }
        let body = whole(response).await?;
        let text = String::from_utf8_lossy(&body);
        let part = |tag| elements(&text, tag).into_iter().next().unwrap_or_default();
        let refusal = Refusal { status, code: part("Code"), message: part("Message") };
        let is_for_now = matches!(status.as_u16(), 408 | 429 | 500 | 502..=599);
        Err(if is_for_now { Failure::Away(self.explained(refusal)) } else { Failure::Refused(refusal) })
    }

    fn request(&self, ask: &Ask<'_>, from: u64) -> Request<Full<Bytes>> {
        let (path, query) = (format!("{}/{}", self.root, sign::path(ask.key)), sign::query(ask.query));
        let body = sign::sha256(&ask.body);
        let signed =
            Signed { method: ask.method.as_str(), path: &path, query: &query, host: &self.authority, body: &body };
        let target = if query.is_empty() { path.clone() } else { format!("{path}?{query}") };
        let mut request = Request::builder().method(&ask.method).uri(target);
        for (name, value) in self.access.headers(&signed, &self.region, Timestamp::now()) {
            request = request.header(name, value);
        }
        if from > 0 {
            request = request.header("range", format!("bytes={from}-"));
        }
        request.body(Full::new(ask.body.clone())).expect("encoded parts make a request")
    }
}

async fn send(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    request: Request<Full<Bytes>>,
) -> anyhow::Result<Response<Incoming>> {
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    // The task ends with the body of the response; reading that body reports a broken connection.
    tokio::spawn(async { drop(connection.await) });
    Ok(sender.send_request(request).await?)
}

async fn whole(response: Response<Incoming>) -> Result<Bytes, Failure> {
    let body = Limited::new(response.into_body(), ANSWER_MAX_BYTES).collect();
    match timeout(SILENCE, body).await {
        Ok(Ok(body)) => Ok(body.to_bytes()),
        Ok(Err(error)) => Err(Failure::Away(anyhow!("the answer was cut off: {error}"))),
        Err(_) => Err(Failure::Away(anyhow!("the answer stops for {} s", SILENCE.as_secs()))),
    }
}

/// Copies a body into a writer; returns the error that ended it early.
async fn pour(
    response: Response<Incoming>,
    into: &mut (impl Write + ?Sized),
    done: &mut u64,
) -> anyhow::Result<Option<anyhow::Error>> {
    let mut body = response.into_body();
    loop {
        let data = match timeout(SILENCE, body.frame()).await {
            Err(_) => return Ok(Some(anyhow!("the answer stops for {} s", SILENCE.as_secs()))),
            Ok(None) => return Ok(None),
            Ok(Some(Err(error))) => return Ok(Some(error.into())),
            Ok(Some(Ok(frame))) => frame.into_data().unwrap_or_default(),
        };
        into.write_all(&data).context("cannot write what the store sends")?;
        *done += data.len() as u64;
    }
}

/// The texts of all elements with a name; nested elements are not parsed.
pub fn elements(xml: &str, tag: &str) -> Vec<String> {
    let (open, close) = (format!("<{tag}>"), format!("</{tag}>"));
    let inside = xml.split(&open).skip(1).filter_map(|rest| rest.split(&close).next());
    let plain = |text: &str| {
        ["&lt;<", "&gt;>", "&quot;\"", "&apos;'", "&amp;&"].iter().fold(text.to_owned(), |text, pair| {
            let (escaped, letter) = pair.split_at(pair.len() - 1);
            text.replace(escaped, letter)
        })
    };
    inside.map(plain).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn elements_are_found_and_their_texts_are_plain() {
        let xml = "<A><Key>a&amp;lt;b</Key><Key>&quot;c&quot;</Key><Keys>d</Keys></A>";
        assert_eq!(elements(xml, "Key"), ["a&lt;b", "\"c\""]);
        assert_eq!(elements(xml, "None"), Vec::<String>::new());
    }

    #[test]
    fn an_endpoint_is_a_url_without_anything_behind_it() {
        let access = Access { key_id: String::new(), secret: String::new(), session: None };
        let of = |bucket: &str, endpoint| Store::new(bucket, endpoint, "eu-central-1", access.clone(), None);
        let amazon = of("b", None).expect("a store");
        assert_eq!((amazon.host.as_str(), amazon.port), ("b.s3.eu-central-1.amazonaws.com", 443));
        let own = of("b", Some("http://[::1]:9000")).expect("a store");
        assert_eq!((own.host.as_str(), own.port, own.root.as_str()), ("::1", 9000, "/b"));
        for wrong in ["", "minio:9000", "ftp://minio", "https://key:secret@minio", "https://minio/path"] {
            let error = of("b", Some(wrong)).err().expect(wrong);
            let said = error.to_string();
            assert!(said.contains("AWS_ENDPOINT_URL") && !said.contains("secret"), "{said}");
        }
    }
}
