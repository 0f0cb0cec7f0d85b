//! Identifies a request: its id, its trace context, and its span if it is sampled.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::SystemTime;

use warp::http::header::{HOST, HeaderName, HeaderValue, USER_AGENT};
use warp::http::uri::Authority;
use warp::http::{HeaderMap, Method, Request, Version};

use crate::auth::exposed;
use crate::http::client;
use crate::http::request_id::REQUEST_ID;
use crate::http::route::Route;
use crate::trace::context::{SpanContext, SpanId, TraceId};
use crate::trace::current::Current;
use crate::trace::span::{Attribute, Kind, Span, Value};
use crate::trace::tracer::Tracer;

/// The header with the trace context.
pub const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
const TRACESTATE: HeaderName = HeaderName::from_static("tracestate");
const FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");

/// Maximum length of a request id accepted from a client.
const REQUEST_ID_MAX_BYTES: usize = 128;
/// Maximum length of an accepted `tracestate` (W3C Trace Context, section 3.3.1.5).
const TRACESTATE_MAX_BYTES: usize = 512;

/// The label of an unknown method.
pub const OTHER: &str = "_OTHER";

/// The identity of a request.
pub struct Identity {
    /// Printable ASCII: the client's own id if it is short, otherwise the trace id.
    pub request_id: HeaderValue,
    /// W3C Trace Context: the context for downstream requests.
    pub traceparent: HeaderValue,
    /// The span, if the request is sampled.
    pub span: Option<Box<RequestSpan>>,
}

impl Identity {
    /// Accepts the ids that the client sends if they are well-formed. A request without a trace context uses its request id as
    /// the trace id if that is possible, as it is for nginx's ids, so that both are the same everywhere. Handlers of changes
    /// find the request id in the headers.
    pub fn of<B>(request: &mut Request<B>, tracer: Option<&Arc<Tracer>>) -> Self {
        let headers = request.headers();
        let given_id = headers.get(REQUEST_ID).filter(|id| is_printable(id));
        let header = headers.get(TRACEPARENT).filter(|_| tracer.is_none_or(|tracer| tracer.continues()));
        let given = header.and_then(|header| SpanContext::parse(ascii(header)));
        let trace = given.map(|given| given.trace).or_else(|| as_trace(ascii(given_id?)));
        let trace = trace.unwrap_or_else(TraceId::random);
        let span = tracer
            .filter(|tracer| tracer.samples(given.as_ref(), trace))
            .map(|tracer| Box::new(RequestSpan::begin(request, tracer, given, trace)));
        let traceparent = match (&span, header.filter(|_| given.is_some())) {
            (Some(span), _) => spelled(span.current.span()),
            (None, Some(header)) => header.clone(),
            (None, None) => spelled(SpanContext::unsampled_in(trace)),
        };
        let request_id = given_id.cloned().unwrap_or_else(|| {
            let made = HeaderValue::from_str(trace_id(&traceparent)).expect("hexadecimal digits are printable");
            // Safe requests, the majority, do not store the id.
            if !request.method().is_safe() {
                request.headers_mut().insert(REQUEST_ID, made.clone());
            }
            made
        });
        Self { request_id, traceparent, span }
    }

    /// The trace id.
    pub fn trace_id(&self) -> &str {
        trace_id(&self.traceparent)
    }
}

fn spelled(context: SpanContext) -> HeaderValue {
    HeaderValue::from_bytes(&context.traceparent()).expect("hexadecimal digits are printable")
}

/// The trace id in a well-formed `traceparent`.
fn trace_id(traceparent: &HeaderValue) -> &str {
    ascii(traceparent).get(3..35).unwrap_or_default()
}

/// The text of a validated header.
pub fn ascii(value: &HeaderValue) -> &str {
    value.to_str().unwrap_or_default()
}

/// A part of the head as it is traced.
fn shown(text: &str) -> String {
    if exposed::contains_credential(text) { exposed::MASKED } else { text }.to_owned()
}

/// Returns true if it is a valid request id, which may be logged.
pub fn is_printable(value: &HeaderValue) -> bool {
    let bytes = value.as_bytes();
    (1..=REQUEST_ID_MAX_BYTES).contains(&bytes.len())
        && bytes.iter().all(u8::is_ascii_graphic)
        && !exposed::contains_credential(ascii(value))
}

/// The trace id equal to a request id: 32 hexadecimal digits, or a UUID.
fn as_trace(id: &str) -> Option<TraceId> {
    match id.len() {
        36 => TraceId::parse(&id.split('-').collect::<String>()),
        _ => TraceId::parse(id),
    }
}

/// The method's label; unknown methods share one, so that clients cannot increase the number of series.
pub fn method_label(method: &Method) -> &'static str {
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
        _ => OTHER,
    }
}

/// The span of a request: a server span of the semantic conventions for HTTP.
pub struct RequestSpan {
    current: Current,
    parent: Option<SpanId>,
    state: String,
    begun: SystemTime,
    attributes: Vec<Attribute>,
}

/// What is known at the end of a request.
pub struct Ended<'a> {
    /// The method's label.
    pub method: &'static str,
    /// The route.
    pub route: Route,
    /// The status; `None` if the client disconnected before the response.
    pub status: Option<u16>,
    /// Bytes of the request body, if there is one.
    pub received: Option<u64>,
    /// Bytes of the response body.
    pub sent: usize,
    /// The principal; `None` without credentials.
    pub principal: Option<&'a str>,
}

impl RequestSpan {
    fn begin<B>(request: &Request<B>, tracer: &Arc<Tracer>, parent: Option<SpanContext>, trace: TraceId) -> Self {
        let (headers, uri) = (request.headers(), request.uri());
        let current = Current::new(tracer.clone(), SpanContext::sampled_in(trace));
        let method = method_label(request.method());
        let scheme =
            if headers.get(FORWARDED_PROTO).is_some_and(|scheme| scheme == "https") { "https" } else { "http" };
        let mut attributes: Vec<Attribute> = Vec::with_capacity(20);
        attributes.push(("http.request.method", method.into()));
        if method == OTHER {
            attributes.push(("http.request.method_original", shown(request.method().as_str()).into()));
        }
        attributes.push(("url.scheme", scheme.into()));
        attributes.push(("url.path", shown(uri.path()).into()));
        if let Some(query) = uri.query() {
            attributes.push(("url.query", shown(query).into()));
        }
        let host = headers.get(HOST).and_then(|host| ascii(host).parse::<Authority>().ok());
        if let Some(host) = host.as_ref().or(uri.authority()) {
            attributes.push(("server.address", shown(host.host()).into()));
            attributes.extend(host.port_u16().map(|port| ("server.port", port.into())));
        }
        attributes.extend(client::nearest(headers).map(|address| ("client.address", address.to_string().into())));
        let version = if request.version() == Version::HTTP_10 { "1.0" } else { "1.1" };
        attributes.push(("network.protocol.version", version.into()));
        if let Some(agent) = headers.get(USER_AGENT) {
            attributes.push(("user_agent.original", shown(&String::from_utf8_lossy(agent.as_bytes())).into()));
        }
        Self {
            current,
            parent: parent.map(|parent| parent.span),
            state: parent.and_then(|_| state(headers)).unwrap_or_default(),
            begun: SystemTime::now(),
            attributes,
        }
    }

    /// The context for the work of the request.
    pub fn current(&self) -> Current {
        self.current.clone()
    }

    /// Ends the span and hands it to the tracer.
    pub fn end(self, request_id: &HeaderValue, ended: &Ended<'_>) {
        let Self { current, parent, state, begun, mut attributes } = self;
        let method = if ended.method == OTHER { "HTTP" } else { ended.method };
        // Labels without a leading slash are not templates.
        let name = match ended.route.0 {
            template if template.starts_with('/') => {
                attributes.push(("http.route", template.into()));
                Cow::Owned([method, " ", template].concat())
            }
            _ => Cow::Borrowed(method),
        };
        let failure = match ended.status {
            None => Some(Value::from("client_closed")),
            Some(status) => {
                attributes.push(("http.response.status_code", status.into()));
                (status >= 500).then(|| status.to_string().into())
            }
        };
        let is_failed = failure.is_some();
        attributes.extend(failure.map(|failure| ("error.type", failure)));
        let number = |bytes: u64| Value::Number(i64::try_from(bytes).unwrap_or(i64::MAX));
        attributes.extend(ended.received.map(|bytes| ("http.request.body.size", number(bytes))));
        attributes.push(("http.response.body.size", number(ended.sent as u64)));
        attributes.push(("http.response.header.x-request-id", Value::Texts(vec![ascii(request_id).to_owned()])));
        attributes.extend(ended.principal.map(|name| ("enduser.id", name.to_owned().into())));
        let (kind, ended) = (Kind::Server, SystemTime::now());
        let (context, links) = (current.span(), Vec::new());
        current.tracer().end(Span { context, parent, state, kind, name, begun, ended, attributes, links, is_failed });
    }
}

fn state(headers: &HeaderMap) -> Option<String> {
    let state = headers.get(TRACESTATE).map(ascii)?;
    (state.len() <= TRACESTATE_MAX_BYTES && !exposed::contains_credential(state)).then(|| state.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_id_in_the_form_of_a_trace_id_is_the_trace_id() {
        let of = |id: &str| {
            let mut request = Request::get("/").header("x-request-id", id).body(()).expect("a request");
            let identity = Identity::of(&mut request, None);
            (identity.request_id.to_str().expect("printable").to_owned(), identity.trace_id().to_owned())
        };
        let id = "4bf92f3577b34da6a3ce929d0e0e4736";
        assert_eq!(of(id), (id.to_owned(), id.to_owned()));
        let uuid = "4bf92f35-77b3-4da6-a3ce-929d0e0e4736";
        assert_eq!(of(uuid), (uuid.to_owned(), id.to_owned()));
        for other in ["mine", "4BF92F3577B34DA6A3CE929D0E0E4736", "00000000000000000000000000000000"] {
            let (request, trace) = of(other);
            assert_eq!((request.as_str(), trace.len()), (other, 32));
            assert_ne!(trace, other);
        }
    }
}
