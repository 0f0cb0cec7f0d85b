//! Records each request: one log line and one measurement, made when its last byte has been written.
//!
//! The record moves from the request's future to the response's body. It is written when it is dropped (completed, aborted,
//! client disconnected), so that each request is recorded exactly once.

use std::collections::HashMap;
use std::convert::Infallible;
use std::future::Future;
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_util::future::Either;
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use hyper::service::Service;
use metrics::{Gauge, Histogram};
use warp::http::header::{CONNECTION, HeaderName, HeaderValue, X_CONTENT_TYPE_OPTIONS};
use warp::http::{Method, Request, Response};

use super::access_log::{AccessLog, Entry};
use super::identity::{Ended, Identity, OTHER, TRACEPARENT, ascii, method_label};
use super::refusal::Answer;
use super::unread::{self, Received, Watched};
use crate::auth::principal::{Kind, Principal};
use crate::http::client::FORWARDED_FOR;
use crate::http::problem;
use crate::http::request_id::REQUEST_ID;
use crate::http::route::{Caller, InvalidCredentials, Route};
use crate::trace::current::Current;
use crate::trace::tracer::Tracer;

/// Name of the request duration histogram (OpenTelemetry semantic conventions, `http.server.request.duration`).
pub const REQUEST_DURATION: &str = "http_server_request_duration_seconds";

/// Name of the gauge of requests in progress (`http.server.active_requests`).
pub const ACTIVE_REQUESTS: &str = "http_server_active_requests";
/// Name of the histogram of request bodies, for requests that have one (`http.server.request.body.size`).
pub const REQUEST_SIZE: &str = "http_server_request_body_size_bytes";
/// Name of the histogram of response bodies (`http.server.response.body.size`).
pub const RESPONSE_SIZE: &str = "http_server_response_body_size_bytes";

/// The label of invalid credentials.
const INVALID: &str = "invalid";

/// The header that reports the principal to nginx.
const PRINCIPAL: HeaderName = HeaderName::from_static("x-principal");

/// The status recorded if the client disconnected before the response (nginx's convention).
const CLIENT_CLOSED: u16 = 499;

/// The route label of requests that could not be parsed.
const MALFORMED: Route = Route("malformed");
/// The route label of requests that no route matched.
const UNMATCHED: Route = Route("unmatched");

/// Records requests. Clones share the outputs.
#[derive(Clone)]
pub struct Recorder {
    log: AccessLog,
    tracer: Option<Arc<Tracer>>,
    active: Gauge,
    /// Histograms by their labels: a lookup here costs a tenth of registering them for each request.
    series: Arc<RwLock<HashMap<Labels, Series>>>,
}

/// The labels of a series: template, method, status and kind of credentials.
type Labels = (Route, &'static str, u16, &'static str);

/// The histograms of requests.
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
    /// Records to this log, to the process's metrics and, if there is one, to this tracer.
    pub fn new(log: AccessLog, tracer: Option<Arc<Tracer>>) -> Self {
        Self { log, tracer, active: metrics::gauge!(ACTIVE_REQUESTS), series: Arc::default() }
    }

    /// Records a request that hyper could not parse.
    pub fn refused(&self, answer: &Answer) {
        let duration = Duration::ZERO;
        let method = OTHER;
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
        // Routes, methods, statuses and credentials have few values, none chosen by clients.
        let mut known = self.series.write().unwrap_or_else(PoisonError::into_inner);
        known.entry(labels).or_insert_with(|| Series::of(labels)).record(duration, received, sent);
    }
}

/// A service whose requests are recorded.
#[derive(Clone)]
pub struct Observed<S> {
    /// The recorded service.
    pub service: S,
    /// The destination of the records.
    pub recorder: Recorder,
    /// Whether every response closes its connection.
    pub draining: Arc<AtomicBool>,
    /// Whether to report the principal to nginx, whose log line may be the only one. nginx does not forward the header.
    pub is_behind_proxy: bool,
    /// The public address that the connection is from; it replaces the one that the client may claim to be.
    pub public_peer: Option<IpAddr>,
}

impl<S, B: Body + From<Vec<u8>> + Send> Service<Request<Incoming>> for Observed<S>
where
    S: Service<Request<Watched>, Response = Response<B>, Error = Infallible>,
    S::Future: Send + 'static,
{
    type Response = Response<ObservedBody<B>>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Infallible>> + Send>>;

    fn call(&self, mut request: Request<Incoming>) -> Self::Future {
        if let Some(Ok(peer)) = self.public_peer.map(|peer| HeaderValue::try_from(peer.to_string())) {
            request.headers_mut().insert(FORWARDED_FOR, peer);
        }
        let mut record = Record::begin(&mut request, self.recorder.clone());
        let (request, unread) = unread::watch(request);
        record.received = unread.received.clone();
        let answering = self.service.call(request);
        let (draining, is_behind_proxy) = (self.draining.clone(), self.is_behind_proxy);
        let answering = match record.current() {
            None => Either::Left(answering),
            Some(current) => Either::Right(current.scope(answering)),
        };
        Box::pin(async move {
            let mut response = answering.await?;
            unread.discard().await;
            record.status = response.status().as_u16();
            if record.status >= 400 {
                problem::write(&mut response, ascii(&record.identity.request_id));
            }
            record.route = response.extensions().get().copied().unwrap_or(UNMATCHED);
            record.principal = response.extensions().get::<Caller>().map(|caller| caller.principal.clone());
            record.credential = match &record.principal {
                Some(principal) => principal.kind.label(),
                None if response.extensions().get::<InvalidCredentials>().is_some() => INVALID,
                None => Kind::Anonymous.label(),
            };
            // Until the end of the body is seen: if a client disconnects, the body is dropped without notice.
            record.truncated = record.method != Method::HEAD && !response.body().is_end_stream();
            let headers = response.headers_mut();
            headers.insert(REQUEST_ID, record.identity.request_id.clone());
            headers.insert(TRACEPARENT, record.identity.traceparent.clone());
            headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
            let name = record.principal.as_ref().and_then(|principal| principal.name.as_deref());
            if is_behind_proxy && let Some(Ok(name)) = name.map(|name| HeaderValue::from_bytes(name.as_bytes())) {
                headers.insert(PRINCIPAL, name);
            }
            if draining.load(Ordering::Relaxed) {
                headers.insert(CONNECTION, HeaderValue::from_static("close"));
            }
            Ok(response.map(|inner| ObservedBody { inner, record }))
        })
    }
}

/// A body that holds its request's record until it has been sent.
pub struct ObservedBody<B> {
    inner: B,
    record: Record,
}

impl<B: Body<Data = Bytes> + Unpin> Body for ObservedBody<B> {
    type Data = Bytes;
    type Error = B::Error;

    fn poll_frame(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, B::Error>>> {
        let polled = match self.record.current() {
            None => Pin::new(&mut self.inner).poll_frame(context),
            Some(current) => current.sync_scope(|| Pin::new(&mut self.inner).poll_frame(context)),
        };
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

/// The record of a request; written when dropped.
struct Record {
    recorder: Recorder,
    started: Instant,
    method: Method,
    route: Route,
    status: u16,
    bytes: usize,
    truncated: bool,
    identity: Identity,
    received: Received,
    principal: Option<Arc<Principal>>,
    credential: &'static str,
}

impl Record {
    fn begin(request: &mut Request<Incoming>, recorder: Recorder) -> Self {
        let identity = Identity::of(request, recorder.tracer.as_ref());
        recorder.active.increment(1);
        Self {
            recorder,
            started: Instant::now(),
            method: request.method().clone(),
            route: UNMATCHED,
            status: CLIENT_CLOSED,
            bytes: 0,
            truncated: false,
            identity,
            received: Received::default(),
            principal: None,
            credential: Kind::Anonymous.label(),
        }
    }
}

impl Record {
    /// The trace context, if the request is sampled.
    fn current(&self) -> Option<Current> {
        self.identity.span.as_ref().map(|span| span.current())
    }
}

impl Drop for Record {
    fn drop(&mut self) {
        let duration = self.started.elapsed();
        let method = method_label(&self.method);
        self.recorder.active.decrement(1);
        let labels = (self.route, method, self.status, self.credential);
        self.recorder.measure(labels, duration, self.received.bytes(), self.bytes);
        let principal = self.principal.as_ref().and_then(|principal| principal.name.as_deref());
        self.recorder.log.log(&Entry {
            method,
            route: self.route.0,
            status: self.status,
            bytes: self.bytes,
            truncated: self.truncated,
            duration,
            request_id: ascii(&self.identity.request_id),
            trace_id: self.identity.trace_id(),
            principal: principal.unwrap_or_default(),
        });
        if let Some(span) = self.identity.span.take() {
            let status = Some(self.status).filter(|status| *status != CLIENT_CLOSED);
            let (received, sent) = (self.received.bytes(), self.bytes);
            span.end(
                &self.identity.request_id,
                &Ended { method, route: self.route, status, received, sent, principal },
            );
        }
    }
}
