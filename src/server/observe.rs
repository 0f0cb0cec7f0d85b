//! The record of a request: one log line and one measurement, made when its last byte has been handed over.
//!
//! The record travels with the request's future and then with the response's body. Whenever it is dropped (answered,
//! aborted, client gone) it is written, so no request is missed and none is counted twice.

use std::collections::HashMap;
use std::convert::Infallible;
use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use hyper::service::Service;
use metrics::{Gauge, Histogram};
use uuid::Uuid;
use warp::http::header::{CONNECTION, HeaderName, HeaderValue, X_CONTENT_TYPE_OPTIONS};
use warp::http::{HeaderMap, Method, Request, Response};

use super::access_log::{AccessLog, Entry};
use super::refusal::Answer;
use super::unread::{self, Received, Watched};
use crate::auth::principal::{Kind, Principal};
use crate::http::route::{Caller, Route, Unproven};

const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");

/// Name of the request duration histogram (OpenTelemetry semantic conventions, `http.server.request.duration`).
pub const REQUEST_DURATION: &str = "http_server_request_duration_seconds";

/// Name of the gauge of requests that are being answered (`http.server.active_requests`).
pub const ACTIVE_REQUESTS: &str = "http_server_active_requests";
/// Name of the histogram of request bodies, of requests that have one (`http.server.request.body.size`).
pub const REQUEST_SIZE: &str = "http_server_request_body_size_bytes";
/// Name of the histogram of response bodies (`http.server.response.body.size`).
pub const RESPONSE_SIZE: &str = "http_server_response_body_size_bytes";

/// The label of credentials that prove nothing.
const INVALID: &str = "invalid";

/// Longest request id that is taken over from a client.
const REQUEST_ID_MAX_BYTES: usize = 128;

/// What is recorded when the client went away before there was an answer (nginx's convention).
const CLIENT_CLOSED: u16 = 499;

/// The label of what could not be read as a request.
const MALFORMED: Route = Route("malformed");
/// The label of requests that no route took.
const UNMATCHED: Route = Route("unmatched");

/// Where records go. Clones share it.
#[derive(Clone)]
pub struct Recorder {
    log: AccessLog,
    active: Gauge,
    /// Histograms by their labels: finding them here costs a tenth of registering them anew for each request.
    series: Arc<RwLock<HashMap<Labels, Series>>>,
}

/// What tells the series of a request: its template, method, status and the kind of its credentials.
type Labels = (Route, &'static str, u16, &'static str);

/// What is measured of requests.
struct Series {
    duration: Histogram,
    request_size: Histogram,
    response_size: Histogram,
}

impl Series {
    fn of((route, method, status, credential): Labels) -> Self {
        Self {
            duration: metrics::histogram!(
                REQUEST_DURATION,
                "http_request_method" => method,
                "http_route" => route.0,
                "http_response_status_code" => status.to_string(),
                "url_scheme" => "http",
                "credential" => credential,
            ),
            request_size: metrics::histogram!(REQUEST_SIZE, "http_route" => route.0),
            response_size: metrics::histogram!(RESPONSE_SIZE, "http_route" => route.0),
        }
    }

    #[expect(clippy::cast_precision_loss, reason = "a size in a bucket need not be exact")]
    fn record(&self, duration: Duration, received: Option<u64>, sent: usize) {
        self.duration.record(duration.as_secs_f64());
        self.response_size.record(sent as f64);
        if let Some(received) = received {
            self.request_size.record(received as f64);
        }
    }
}

impl Recorder {
    /// Records into this log and the process's metrics.
    pub fn new(log: AccessLog) -> Self {
        Self { log, active: metrics::gauge!(ACTIVE_REQUESTS), series: Arc::default() }
    }

    /// Records an answer to what hyper could not read as a request.
    pub fn refused(&self, answer: &Answer) {
        let duration = Duration::ZERO;
        let method = "_OTHER";
        self.measure((MALFORMED, method, answer.status, Kind::Anonymous.label()), duration, None, answer.length);
        self.log.log(&Entry {
            method,
            route: MALFORMED.0,
            status: answer.status,
            bytes: answer.length,
            truncated: false,
            duration,
            request_id: &answer.request_id,
            trace_id: "",
            principal: "",
        });
    }

    fn measure(&self, labels: Labels, duration: Duration, received: Option<u64>, sent: usize) {
        if let Some(series) = self.series.read().unwrap_or_else(PoisonError::into_inner).get(&labels) {
            return series.record(duration, received, sent);
        }
        // Routes, methods, statuses and credentials are few, and none is chosen by a client.
        let mut known = self.series.write().unwrap_or_else(PoisonError::into_inner);
        known.entry(labels).or_insert_with(|| Series::of(labels)).record(duration, received, sent);
    }
}

/// A service whose requests are recorded.
#[derive(Clone)]
pub struct Observed<S> {
    /// What answers.
    pub service: S,
    /// Where the records go.
    pub recorder: Recorder,
    /// Whether every answer is the last one on its connection.
    pub draining: Arc<AtomicBool>,
}

impl<S, B: Body + Send> Service<Request<Incoming>> for Observed<S>
where
    S: Service<Request<Watched>, Response = Response<B>, Error = Infallible>,
    S::Future: Send + 'static,
{
    type Response = Response<ObservedBody<B>>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Infallible>> + Send>>;

    fn call(&self, request: Request<Incoming>) -> Self::Future {
        let mut record = Record::begin(&request, self.recorder.clone());
        let (request, unread) = unread::watch(request);
        record.received = unread.received.clone();
        let answering = self.service.call(request);
        let draining = self.draining.clone();
        Box::pin(async move {
            let mut response = answering.await?;
            unread.discard().await;
            record.status = response.status().as_u16();
            record.route = response.extensions().get().copied().unwrap_or(UNMATCHED);
            record.principal = response.extensions().get::<Caller>().map(|caller| caller.principal.clone());
            record.credential = match &record.principal {
                Some(principal) => principal.kind.label(),
                None if response.extensions().get::<Unproven>().is_some() => INVALID,
                None => Kind::Anonymous.label(),
            };
            // Until its end is seen: a client that leaves has the body dropped without a word.
            record.truncated = record.method != Method::HEAD && !response.body().is_end_stream();
            let headers = response.headers_mut();
            headers.insert(REQUEST_ID, record.request_id.clone());
            headers.insert(TRACEPARENT, record.traceparent.clone());
            headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
            if draining.load(Ordering::Relaxed) {
                headers.insert(CONNECTION, HeaderValue::from_static("close"));
            }
            Ok(response.map(|inner| ObservedBody { inner, record }))
        })
    }
}

/// A body that carries its request's record until it has been sent.
pub struct ObservedBody<B> {
    inner: B,
    record: Record,
}

impl<B: Body<Data = Bytes> + Unpin> Body for ObservedBody<B> {
    type Data = Bytes;
    type Error = B::Error;

    fn poll_frame(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, B::Error>>> {
        let polled = Pin::new(&mut self.inner).poll_frame(context);
        match &polled {
            Poll::Ready(Some(Ok(frame))) => {
                self.record.bytes += frame.data_ref().map_or(0, Bytes::len);
                self.record.truncated = !self.inner.is_end_stream();
            }
            Poll::Ready(None) => self.record.truncated = false,
            _ => {}
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

/// What is known of a request; written when dropped.
struct Record {
    recorder: Recorder,
    started: Instant,
    method: Method,
    route: Route,
    status: u16,
    bytes: usize,
    truncated: bool,
    request_id: HeaderValue,
    traceparent: HeaderValue,
    received: Received,
    principal: Option<Arc<Principal>>,
    credential: &'static str,
}

impl Record {
    fn begin(request: &Request<Incoming>, recorder: Recorder) -> Self {
        let traceparent = traceparent(request.headers());
        recorder.active.increment(1);
        Self {
            recorder,
            started: Instant::now(),
            method: request.method().clone(),
            route: UNMATCHED,
            status: CLIENT_CLOSED,
            bytes: 0,
            truncated: false,
            request_id: request_id(request.headers(), &traceparent),
            traceparent,
            received: Received::default(),
            principal: None,
            credential: Kind::Anonymous.label(),
        }
    }
}

impl Drop for Record {
    fn drop(&mut self) {
        let duration = self.started.elapsed();
        let method = method_label(&self.method);
        self.recorder.active.decrement(1);
        let labels = (self.route, method, self.status, self.credential);
        self.recorder.measure(labels, duration, self.received.bytes(), self.bytes);
        self.recorder.log.log(&Entry {
            method,
            route: self.route.0,
            status: self.status,
            bytes: self.bytes,
            truncated: self.truncated,
            duration,
            request_id: ascii(&self.request_id),
            trace_id: trace_id(ascii(&self.traceparent)),
            principal: self.principal.as_ref().and_then(|principal| principal.name.as_deref()).unwrap_or_default(),
        });
    }
}

/// A client's own request id if it is short and printable, otherwise the trace id.
fn request_id(headers: &HeaderMap, traceparent: &HeaderValue) -> HeaderValue {
    let printable = |value: &&HeaderValue| {
        let bytes = value.as_bytes();
        (1..=REQUEST_ID_MAX_BYTES).contains(&bytes.len()) && bytes.iter().all(u8::is_ascii_graphic)
    };
    match headers.get(REQUEST_ID).filter(printable) {
        Some(given) => given.clone(),
        None => HeaderValue::from_str(trace_id(ascii(traceparent))).expect("hexadecimal digits are printable"),
    }
}

/// The client's trace context if it is well formed (W3C Trace Context, section 3.2), otherwise a new one.
fn traceparent(headers: &HeaderMap) -> HeaderValue {
    let given = headers.get(TRACEPARENT).filter(|value| is_traceparent(ascii(value)));
    given.cloned().unwrap_or_else(|| {
        let mut text = *b"00-________________________________-________________-00";
        Uuid::new_v4().simple().encode_lower(&mut text[3..35]);
        let mut span = [0; 32];
        text[36..52].copy_from_slice(&Uuid::new_v4().simple().encode_lower(&mut span).as_bytes()[16..]);
        HeaderValue::from_bytes(&text).expect("hexadecimal digits are printable")
    })
}

fn is_traceparent(text: &str) -> bool {
    let mut parts = text.split('-');
    let mut hex = |length: usize| {
        parts.next().filter(|part| {
            part.len() == length && part.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
        })
    };
    let nonzero = |part: &&str| part.bytes().any(|b| b != b'0');
    let (version, trace, span, flags) = (hex(2), hex(32).filter(nonzero), hex(16).filter(nonzero), hex(2));
    version.is_some_and(|version| version != "ff" && (version != "00" || text.len() == 55))
        && trace.is_some()
        && span.is_some()
        && flags.is_some()
}

/// The trace id inside of a well-formed traceparent.
fn trace_id(traceparent: &str) -> &str {
    traceparent.get(3..35).unwrap_or_default()
}

fn ascii(value: &HeaderValue) -> &str {
    value.to_str().unwrap_or_default()
}

/// The method if it is a known one, `_OTHER` otherwise, so that clients cannot grow the number of series.
fn method_label(method: &Method) -> &'static str {
    match method.as_str() {
        "GET" => "GET",
        "HEAD" => "HEAD",
        "POST" => "POST",
        "PUT" => "PUT",
        "PATCH" => "PATCH",
        "DELETE" => "DELETE",
        "OPTIONS" => "OPTIONS",
        "CONNECT" => "CONNECT",
        "TRACE" => "TRACE",
        _ => "_OTHER",
    }
}

#[cfg(test)]
mod tests {
    use super::{is_traceparent, trace_id};

    #[test]
    fn only_well_formed_trace_contexts_are_taken_over() {
        let good = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
        assert!(is_traceparent(good));
        assert_eq!(trace_id(good), "4bf92f3577b34da6a3ce929d0e0e4736");
        for wrong in [
            "",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7",
            "ff-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            "00-00000000000000000000000000000000-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01",
            "00-4BF92F3577B34DA6A3CE929D0E0E4736-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-extra",
        ] {
            assert!(!is_traceparent(wrong), "{wrong}");
        }
        assert!(is_traceparent("01-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-later"));
    }
}
