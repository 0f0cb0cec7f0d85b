//! Reading a request's body: its media type, its size and the time it takes are all bounded.

use std::time::Duration;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use futures_util::{Stream, StreamExt};
use warp::http::HeaderMap;
use warp::http::header::{CONTENT_LENGTH, CONTENT_TYPE, TRANSFER_ENCODING};

use super::browser::is_browser;
use super::problem::{Code, Problem};

/// A document.
pub const JSON: &str = "application/json";
/// Some members of a document (RFC 7396).
pub const MERGE_PATCH: &str = "application/merge-patch+json";
/// A table: a header, and one line per row.
pub const CSV: &str = "text/csv";
/// One JSON document per line.
pub const NDJSON: &str = "application/x-ndjson";
/// What an HTML form sends, and `curl -d`.
pub const FORM: &str = "application/x-www-form-urlencoded";

/// The bounds of a body.
#[derive(Debug, Clone, Copy)]
pub struct BodyLimits {
    /// Most bytes taken.
    pub bytes: usize,
    /// Longest time from the first wait to the last byte.
    pub timeout: Duration,
}

/// Reads a JSON body whole.
///
/// # Errors
/// As [`read`].
pub async fn read_json<B: Buf>(
    headers: &HeaderMap,
    body: impl Stream<Item = Result<B, warp::Error>>,
    limits: BodyLimits,
) -> Result<Bytes, Problem> {
    read(headers, body, limits, &[JSON]).await.map(|(_, bytes)| bytes)
}

/// Reads a body whole and says which of the media types taken it is of.
///
/// # Errors
/// 415 for another media type, 413 over the limit, 408 when it takes too long, 400 when the client breaks off.
pub async fn read<B: Buf>(
    headers: &HeaderMap,
    body: impl Stream<Item = Result<B, warp::Error>>,
    limits: BodyLimits,
    taken: &'static [&'static str],
) -> Result<(&'static str, Bytes), Problem> {
    let media_type = media_type(headers, taken)?;
    limits.check_length(headers)?;
    let read = async {
        let mut body = std::pin::pin!(body);
        let mut bytes = BytesMut::new();
        while let Some(chunk) = body.next().await {
            let chunk = chunk.map_err(|_| broken_off())?;
            if bytes.len() + chunk.remaining() > limits.bytes {
                return Err(limits.too_large());
            }
            bytes.put(chunk);
        }
        Ok((media_type, bytes.freeze()))
    };
    tokio::time::timeout(limits.timeout, read).await.unwrap_or_else(|_| Err(limits.too_slow()))
}

impl BodyLimits {
    /// Refuses a body that announces itself as too large.
    ///
    /// # Errors
    /// 413.
    pub fn check_length(&self, headers: &HeaderMap) -> Result<(), Problem> {
        if announced(headers).is_some_and(|length| length > self.bytes as u64) { Err(self.too_large()) } else { Ok(()) }
    }

    /// There are more bytes than are taken.
    pub fn too_large(&self) -> Problem {
        Problem::new(Code::BodyTooLarge, format!("the body may hold at most {} bytes; send a smaller one", self.bytes))
    }

    /// The time is up.
    pub fn too_slow(&self) -> Problem {
        Problem::new(
            Code::RequestTimeout,
            format!("the body must arrive within {} ms; send the request again", self.timeout.as_millis()),
        )
    }
}

/// How long the body says that it is.
pub fn announced(headers: &HeaderMap) -> Option<u64> {
    headers.get(CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}

/// Whether the request says that it has no body (RFC 9112, section 6.3).
fn is_empty(headers: &HeaderMap) -> bool {
    announced(headers).unwrap_or(0) == 0 && !headers.contains_key(TRANSFER_ENCODING)
}

/// The client has gone, or its connection.
pub fn broken_off() -> Problem {
    Problem::new(Code::InvalidJson, "the body broke off before its end; send the request again")
}

/// The body's media type; a missing one counts as the first of those taken, unless a browser sent the body: its pages may
/// send any bytes without a type anywhere.
///
/// # Errors
/// 415 when it is none of them.
pub fn media_type(headers: &HeaderMap, taken: &'static [&'static str]) -> Result<&'static str, Problem> {
    let is_untyped = headers.get(CONTENT_TYPE).is_none() && is_browser(headers) && !is_empty(headers);
    let given = headers.get(CONTENT_TYPE).map(|value| value.to_str().unwrap_or_default());
    let given = if is_untyped { Some("") } else { given };
    let essence = given.map(|value| value.split(';').next().unwrap_or_default().trim());
    let fits = |media_type: &&&str| essence.is_none_or(|essence| essence.eq_ignore_ascii_case(media_type));
    taken.iter().find(fits).copied().ok_or_else(|| {
        Problem::new(
            Code::UnsupportedMediaType,
            format!("send the body with the header Content-Type: {}", taken.join(" or ")),
        )
    })
}
