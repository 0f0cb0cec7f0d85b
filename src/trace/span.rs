//! Spans: records of finished operations.

use std::borrow::Cow;
use std::time::SystemTime;

use super::context::{SpanContext, SpanId};

/// A finished operation.
#[derive(Debug)]
pub struct Span {
    /// Its identity.
    pub context: SpanContext,
    /// The parent span, if it is sampled.
    pub parent: Option<SpanId>,
    /// The received `tracestate`.
    pub state: String,
    /// Its role.
    pub kind: Kind,
    /// The kind of operation.
    pub name: Cow<'static, str>,
    /// When it began.
    pub begun: SystemTime,
    /// When it ended.
    pub ended: SystemTime,
    /// Its attributes.
    pub attributes: Vec<Attribute>,
    /// Other spans that it was done for.
    pub links: Vec<SpanContext>,
    /// Whether it failed.
    pub is_failed: bool,
}

/// The role of a span in a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// It handled a request.
    Server,
    /// It sent a request.
    Client,
}

/// An attribute, named after the semantic conventions.
pub type Attribute = (&'static str, Value);

/// The value of an attribute.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Value {
    /// A text.
    Text(Cow<'static, str>),
    /// A number.
    Number(i64),
    /// Texts.
    Texts(Vec<String>),
}

impl From<&'static str> for Value {
    fn from(text: &'static str) -> Self {
        Self::Text(Cow::Borrowed(text))
    }
}

impl From<String> for Value {
    fn from(text: String) -> Self {
        Self::Text(Cow::Owned(text))
    }
}

impl From<Cow<'static, str>> for Value {
    fn from(text: Cow<'static, str>) -> Self {
        Self::Text(text)
    }
}

impl From<u16> for Value {
    fn from(number: u16) -> Self {
        Self::Number(number.into())
    }
}
