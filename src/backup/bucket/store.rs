//! One bucket of a store that speaks S3: requests, what its refusals mean, and another attempt when it is away for a moment.

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

/// Pauses before further attempts; a store that is away for longer is for the next run.
const PAUSES: [Duration; 4] =
    [Duration::from_millis(200), Duration::from_millis(600), Duration::from_secs(2), Duration::from_secs(5)];
/// Longest wait for the answer to one part of a file, and for the next bytes of one.
const DEADLINE: Duration = Duration::from_secs(300);
const SILENCE: Duration = Duration::from_secs(60);
/// Longest answer that is not a file: a thousand names.
const ANSWER_MAX_BYTES: usize = 4 << 20;

/// A bucket.
#[derive(Clone)]
pub struct Store {
    is_https: bool,
    host: String,
    port: u16,
    authority: String,
    /// What paths begin with.
    root: String,
    /// For messages.
    pub name: String,
    region: String,
    access: Access,
    tls: Option<Arc<ClientConfig>>,
}

/// What is asked.
#[derive(Default)]
pub struct Ask<'a> {
    /// The method; GET without.
    pub method: Method,
    /// The key of an object; the bucket without.
    pub key: &'a str,
    /// Parameters.
    pub query: &'a [(&'a str, &'a str)],
    /// What is sent.
    pub body: Bytes,
}

/// A refusal by its status and code.
#[derive(Debug)]
pub struct Refusal {
    status: StatusCode,
    /// Such as `NoSuchKey`.
    pub code: String,
    message: String,
}

/// What became of one attempt.
enum Failure {
    /// Another attempt may succeed.
    Away(anyhow::Error),
    Refused(Refusal),
}

/// An answer, or why there is none.
pub type Answered = anyhow::Result<Result<(Bytes, Option<String>), Refusal>>;

impl Store {
    /// A bucket at an endpoint; at Amazon's without one.
    ///
    /// # Errors
    /// When the endpoint is no URL.
    pub fn new(
        bucket: &str,
        endpoint: Option<&str>,
        region: &str,
        access: Access,
        tls: Option<Arc<ClientConfig>>,
    ) -> anyhow::Result<Self> {
        // A name with a dot is in no certificate of Amazon's.
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

    /// Asks, again if need be; the answer's body and its `ETag`, or a refusal that the caller may know what to do about.
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

    /// The same where every refusal is a failure.
    ///
    /// # Errors
    /// What the store says, with what to do.
    pub async fn expect(&self, ask: &Ask<'_>) -> anyhow::Result<(Bytes, Option<String>)> {
        self.ask(ask).await?.map_err(|refusal| self.explained(refusal))
    }

    /// Writes an object into something, going on where a connection broke; false when there is none.
    ///
    /// # Errors
    /// When it cannot be read to its end, or not be written.
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
                    bail!("the store cannot go on in the middle of {key}; try again")
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
            let place = format!("{}://{}", if self.is_https { "https" } else { "http" }, self.authority);
            return Err(error.context(format!(
                "the store at {place} cannot be reached; see that it is up, and check AWS_ENDPOINT_URL and AWS_REGION"
            )));
        };
        tracing::debug!(reason = format!("{error:#}"), "asking the store again");
        tokio::time::sleep(*pause).await; // nobody announces that it is back
        Ok(())
    }

    /// What to do about a refusal.
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

    /// One attempt: a response that is no refusal.
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
        let place = if query.is_empty() { path.clone() } else { format!("{path}?{query}") };
        let mut request = Request::builder().method(&ask.method).uri(place);
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
    // It ends with the body of the answer, and what breaks it is told to whoever reads that.
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

/// Writes a body; what kept it from its end.
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

/// The texts of all elements of a name; what is in them is not looked at.
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
