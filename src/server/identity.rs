//! Who a request is: its id, its place in a trace, and its span where it is recorded.

use std::borrow::Cow;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::SystemTime;

use warp::http::header::{HOST, HeaderName, HeaderValue, USER_AGENT};
use warp::http::uri::Authority;
use warp::http::{HeaderMap, Method, Request, Version};

use crate::auth::exposed;
use crate::http::request_id::REQUEST_ID;
use crate::http::route::Route;
use crate::trace::context::{SpanContext, SpanId, TraceId};
use crate::trace::current::Current;
use crate::trace::span::{Attribute, Kind, Span, Value};
use crate::trace::tracer::Tracer;

/// The header with its place in a trace.
pub const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
const TRACESTATE: HeaderName = HeaderName::from_static("tracestate");
const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");

/// Longest request id that is taken over from a client.
const REQUEST_ID_MAX_BYTES: usize = 128;
/// Longest `tracestate` that is taken over (W3C Trace Context, section 3.3.1.5).
const TRACESTATE_MAX_BYTES: usize = 512;

/// The label of a method that is none of those that are known.
pub const OTHER: &str = "_OTHER";

/// Who a request is.
pub struct Identity {
    /// Printable ASCII: the client's own if it is short, otherwise the trace's.
    pub request_id: HeaderValue,
    /// W3C Trace Context: where the trace goes on.
    pub traceparent: HeaderValue,
    /// What is recorded, if it is.
    pub span: Option<Box<RequestSpan>>,
}

impl Identity {
    /// Takes over what the client says of itself as far as it is well formed. A request without a trace has one of the name
    /// of its id, if that can be one, as nginx's can; so the two are one, whoever is asked for it. Whoever carries out a
    /// change behind this finds the id in its headers.
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
            // Those that only read leave no trace of it, and are most.
            if !request.method().is_safe() {
                request.headers_mut().insert(REQUEST_ID, made.clone());
            }
            made
        });
        Self { request_id, traceparent, span }
    }

    /// The trace's id.
    pub fn trace_id(&self) -> &str {
        trace_id(&self.traceparent)
    }
}

fn spelled(context: SpanContext) -> HeaderValue {
    HeaderValue::from_bytes(&context.traceparent()).expect("hexadecimal digits are printable")
}

/// The trace's id inside of a well-formed `traceparent`.
fn trace_id(traceparent: &HeaderValue) -> &str {
    ascii(traceparent).get(3..35).unwrap_or_default()
}

/// The text of a header that has been looked at.
pub fn ascii(value: &HeaderValue) -> &str {
    value.to_str().unwrap_or_default()
}

/// A part of a URL as it is traced.
fn shown(text: &str) -> String {
    if exposed::is_in(text) { exposed::MASKED } else { text }.to_owned()
}

/// Whether it can be a request's id: it is logged.
pub fn is_printable(value: &HeaderValue) -> bool {
    let bytes = value.as_bytes();
    (1..=REQUEST_ID_MAX_BYTES).contains(&bytes.len())
        && bytes.iter().all(u8::is_ascii_graphic)
        && !exposed::is_in(ascii(value))
}

/// The trace whose id a request's id spells: 32 hexadecimal digits, or a uuid.
fn as_trace(id: &str) -> Option<TraceId> {
    match id.len() {
        36 => TraceId::parse(&id.split('-').collect::<String>()),
        _ => TraceId::parse(id),
    }
}

/// The method if it is a known one, so that clients cannot grow the number of series.
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

/// What is recorded of a request: a server's span, by the semantic conventions of HTTP.
pub struct RequestSpan {
    current: Current,
    parent: Option<SpanId>,
    state: String,
    begun: SystemTime,
    attributes: Vec<Attribute>,
}

/// What is known at its end.
pub struct Ended<'a> {
    /// The label of its method.
    pub method: &'static str,
    /// Where it went.
    pub route: Route,
    /// What it was answered with; nothing when its client did not wait.
    pub status: Option<u16>,
    /// Bytes of its body, if it has one.
    pub received: Option<u64>,
    /// Bytes of the answer's.
    pub sent: usize,
    /// Who asked; nobody without credentials.
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
            attributes.push(("http.request.method_original", request.method().as_str().to_owned().into()));
        }
        attributes.push(("url.scheme", scheme.into()));
        attributes.push(("url.path", shown(uri.path()).into()));
        if let Some(query) = uri.query() {
            attributes.push(("url.query", shown(query).into()));
        }
        let host = headers.get(HOST).and_then(|host| ascii(host).parse::<Authority>().ok());
        if let Some(host) = host.as_ref().or(uri.authority()) {
            attributes.push(("server.address", host.host().to_owned().into()));
            attributes.extend(host.port_u16().map(|port| ("server.port", port.into())));
        }
        attributes.extend(client(headers).map(|address| ("client.address", address.to_string().into())));
        let version = if request.version() == Version::HTTP_10 { "1.0" } else { "1.1" };
        attributes.push(("network.protocol.version", version.into()));
        if let Some(agent) = headers.get(USER_AGENT) {
            attributes.push(("user_agent.original", String::from_utf8_lossy(agent.as_bytes()).into_owned().into()));
        }
        Self {
            current,
            parent: parent.map(|parent| parent.span),
            state: parent.and_then(|_| state(headers)).unwrap_or_default(),
            begun: SystemTime::now(),
            attributes,
        }
    }

    /// What its work belongs to.
    pub fn current(&self) -> Current {
        self.current.clone()
    }

    /// Hands it in.
    pub fn end(self, request_id: &HeaderValue, ended: &Ended<'_>) {
        let Self { current, parent, state, begun, mut attributes } = self;
        let method = if ended.method == OTHER { "HTTP" } else { ended.method };
        // Other labels say why there is no template.
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

/// The address that the nearest proxy has seen.
fn client(headers: &HeaderMap) -> Option<IpAddr> {
    ascii(headers.get(FORWARDED_FOR)?).rsplit(',').next()?.trim().parse().ok()
}

fn state(headers: &HeaderMap) -> Option<String> {
    let state = headers.get(TRACESTATE).map(ascii).filter(|state| state.len() <= TRACESTATE_MAX_BYTES)?;
    Some(state.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_id_that_can_be_a_traces_is() {
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
