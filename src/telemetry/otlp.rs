//! Converts spans to OTLP messages.

use std::time::{SystemTime, UNIX_EPOCH};

use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::any_value::Value as Any;
use opentelemetry_proto::tonic::common::v1::{AnyValue, ArrayValue, InstrumentationScope, KeyValue};
use opentelemetry_proto::tonic::resource::v1::Resource;
use opentelemetry_proto::tonic::trace::v1::span::{Link, SpanKind};
use opentelemetry_proto::tonic::trace::v1::status::StatusCode;
use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, ScopeSpans, Span as Message, Status};
use prost::Message as _;

use crate::trace::context::SpanContext;
use crate::trace::span::{Kind, Span, Value};

/// Schema of the semantic conventions for names and attributes.
const SCHEMA_URL: &str = "https://opentelemetry.io/schemas/1.37.0";

/// Encodes a request that delivers spans with these resource attributes.
pub fn request(resource: &[(String, String)], spans: Vec<Span>) -> Vec<u8> {
    let attributes = resource.iter().map(|(key, value)| attribute(key, Value::from(value.clone()))).collect();
    let scope = InstrumentationScope {
        name: env!("CARGO_PKG_NAME").to_owned(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        ..InstrumentationScope::default()
    };
    let spans = ScopeSpans {
        scope: Some(scope),
        spans: spans.into_iter().map(message).collect(),
        schema_url: SCHEMA_URL.to_owned(),
    };
    let resource = Resource { attributes, ..Resource::default() };
    let resource_spans =
        ResourceSpans { resource: Some(resource), scope_spans: vec![spans], schema_url: SCHEMA_URL.to_owned() };
    ExportTraceServiceRequest { resource_spans: vec![resource_spans] }.encode_to_vec()
}

fn message(span: Span) -> Message {
    Message {
        trace_id: span.context.trace.0.to_vec(),
        span_id: span.context.span.0.to_vec(),
        trace_state: span.state,
        parent_span_id: span.parent.map(|parent| parent.0.to_vec()).unwrap_or_default(),
        flags: flags(span.context),
        name: span.name.into_owned(),
        kind: match span.kind {
            Kind::Server => SpanKind::Server,
            Kind::Client => SpanKind::Client,
        }
        .into(),
        start_time_unix_nano: nanos(span.begun),
        // The clock may have been set back in between.
        end_time_unix_nano: nanos(span.ended.max(span.begun)),
        attributes: span.attributes.into_iter().map(|(key, value)| attribute(key, value)).collect(),
        links: span.links.into_iter().map(link).collect(),
        status: span.is_failed.then(|| Status { code: StatusCode::Error.into(), message: String::new() }),
        ..Message::default()
    }
}

fn link(to: SpanContext) -> Link {
    Link { trace_id: to.trace.0.to_vec(), span_id: to.span.0.to_vec(), flags: flags(to), ..Link::default() }
}

fn flags(context: SpanContext) -> u32 {
    u32::from(context.is_sampled)
}

fn attribute(key: &str, value: Value) -> KeyValue {
    let any = |value| AnyValue { value: Some(value) };
    let value = match value {
        Value::Text(text) => Any::StringValue(text.into_owned()),
        Value::Number(number) => Any::IntValue(number),
        Value::Texts(texts) => {
            Any::ArrayValue(ArrayValue { values: texts.into_iter().map(|text| any(Any::StringValue(text))).collect() })
        }
    };
    KeyValue { key: key.to_owned(), value: Some(any(value)), ..KeyValue::default() }
}

fn nanos(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH).map_or(0, |since| u64::try_from(since.as_nanos()).unwrap_or(u64::MAX))
}
