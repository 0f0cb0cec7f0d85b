//! What the work of a task belongs to: known to whatever it calls, and handed on to batches that work for several.

use std::borrow::Cow;
use std::sync::{Arc, OnceLock};

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use tokio::task::futures::TaskLocalFuture;

use super::context::SpanContext;
use super::tracer::Tracer;

tokio::task_local! {
    static CURRENT: Current;
    static STATEMENT: Arc<Statement>;
}

/// The span that work is a part of. There is none where nothing is recorded.
#[derive(Clone)]
pub struct Current(Arc<Work>);

struct Work {
    tracer: Arc<Tracer>,
    span: SpanContext,
    /// Those that the work is done for, where that is not the span alone.
    links: Vec<SpanContext>,
}

impl Current {
    /// Work that is a part of a span.
    pub fn new(tracer: Arc<Tracer>, span: SpanContext) -> Self {
        Self(Arc::new(Work { tracer, span, links: Vec::new() }))
    }

    /// What the work of this task belongs to.
    pub fn get() -> Option<Self> {
        CURRENT.try_with(Clone::clone).ok()
    }

    /// Work for several at once: a part of the first, and linked to each.
    fn joined(all: &[Self]) -> Option<Self> {
        let first = all.first()?;
        let links = all.iter().map(|one| one.0.span).collect();
        Some(Self(Arc::new(Work { tracer: first.0.tracer.clone(), span: first.0.span, links })))
    }

    /// Does work for several at once, of whom some may be recorded.
    pub fn joined_scope<T: Send + 'static>(all: &[Self], work: BoxFuture<'static, T>) -> BoxFuture<'static, T> {
        match Self::joined(all) {
            None => work,
            Some(joined) => joined.scope(work).boxed(),
        }
    }

    /// Where its spans go.
    pub fn tracer(&self) -> &Arc<Tracer> {
        &self.0.tracer
    }

    /// The span.
    pub fn span(&self) -> SpanContext {
        self.0.span
    }

    /// Those that the work is done for.
    pub fn links(&self) -> &[SpanContext] {
        &self.0.links
    }

    /// Does work that belongs to it.
    pub fn scope<F: Future>(self, work: F) -> TaskLocalFuture<Self, F> {
        CURRENT.scope(self, work)
    }

    /// The same without waiting.
    pub fn sync_scope<T>(self, work: impl FnOnce() -> T) -> T {
        CURRENT.sync_scope(self, work)
    }
}

/// A statement that is recorded: whoever sends it writes down what it was, and tells the database whose it is.
#[derive(Debug)]
pub struct Statement {
    context: SpanContext,
    text: OnceLock<Cow<'static, str>>,
}

impl Statement {
    /// One that nobody has sent.
    pub fn new(context: SpanContext) -> Arc<Self> {
        Arc::new(Self { context, text: OnceLock::new() })
    }

    /// The statement of this task.
    pub fn get() -> Option<Arc<Self>> {
        STATEMENT.try_with(Clone::clone).ok()
    }

    /// The text to send in place of a statement's: with a comment that says whose it is, as sqlcommenter writes it. Where
    /// several are sent, the first is what is recorded.
    pub fn sent(&self, text: Cow<'static, str>) -> String {
        let commented = format!("{text} /*traceparent='{}'*/", self.context);
        let _ = self.text.set(text); // that of the first stays
        commented
    }

    /// What was sent.
    pub fn text(&self) -> Option<Cow<'static, str>> {
        self.text.get().cloned()
    }

    /// Does work in which it is sent.
    pub fn scope<F: Future>(self: Arc<Self>, work: F) -> TaskLocalFuture<Arc<Self>, F> {
        STATEMENT.scope(self, work)
    }
}

/// The text to send of a statement that belongs to a transaction: with a comment where the transaction is recorded.
pub fn commented(text: &'static str) -> Cow<'static, str> {
    match Statement::get() {
        None => Cow::Borrowed(text),
        Some(statement) => Cow::Owned(statement.sent(Cow::Borrowed(text))),
    }
}
