//! What is recorded of a piece of work.

use std::borrow::Cow;
use std::time::SystemTime;

use super::context::{SpanContext, SpanId};

/// A piece of work that has ended.
#[derive(Debug)]
pub struct Span {
    /// Who it is.
    pub context: SpanContext,
    /// What it was a part of, if that is recorded.
    pub parent: Option<SpanId>,
    /// The `tracestate` that came with it.
    pub state: String,
    /// Its part in a conversation.
    pub kind: Kind,
    /// What kind of work it was.
    pub name: Cow<'static, str>,
    /// When it began.
    pub begun: SystemTime,
    /// When it ended.
    pub ended: SystemTime,
    /// What is known of it.
    pub attributes: Vec<Attribute>,
    /// Other spans that it worked for.
    pub links: Vec<SpanContext>,
    /// Whether it failed.
    pub is_failed: bool,
}

/// Its part in a conversation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// It answered.
    Server,
    /// It asked.
    Client,
}

/// Something that is known, under a name of the semantic conventions.
pub type Attribute = (&'static str, Value);

/// What is known.
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
