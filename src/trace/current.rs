//! The span of a task's work: available to every function it calls, and passed on to batches that work for several tasks.

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

/// The current span. There is none if nothing is recorded.
#[derive(Clone)]
pub struct Current(Arc<Work>);

struct Work {
    tracer: Arc<Tracer>,
    span: SpanContext,
    /// The spans that the work is done for, if there are several.
    links: Vec<SpanContext>,
}

impl Current {
    /// Creates the context of a span.
    pub fn new(tracer: Arc<Tracer>, span: SpanContext) -> Self {
        Self(Arc::new(Work { tracer, span, links: Vec::new() }))
    }

    /// The current span of this task.
    pub fn get() -> Option<Self> {
        CURRENT.try_with(Clone::clone).ok()
    }

    /// Context of shared work: a child of the first span, and linked to each.
    fn joined(all: &[Self]) -> Option<Self> {
        let first = all.first()?;
        let links = all.iter().map(|one| one.0.span).collect();
        Some(Self(Arc::new(Work { tracer: first.0.tracer.clone(), span: first.0.span, links })))
    }

    /// Runs shared work, some of whose callers may be sampled.
    pub fn joined_scope<T: Send + 'static>(all: &[Self], work: BoxFuture<'static, T>) -> BoxFuture<'static, T> {
        match Self::joined(all) {
            None => work,
            Some(joined) => joined.scope(work).boxed(),
        }
    }

    /// The tracer of its spans.
    pub fn tracer(&self) -> &Arc<Tracer> {
        &self.0.tracer
    }

    /// The span.
    pub fn span(&self) -> SpanContext {
        self.0.span
    }

    /// The spans that the work is done for.
    pub fn links(&self) -> &[SpanContext] {
        &self.0.links
    }

    /// Runs work within this span.
    pub fn scope<F: Future>(self, work: F) -> TaskLocalFuture<Self, F> {
        CURRENT.scope(self, work)
    }

    /// As [`Self::scope`], for synchronous work.
    pub fn sync_scope<T>(self, work: impl FnOnce() -> T) -> T {
        CURRENT.sync_scope(self, work)
    }
}

/// A traced statement: its sender records its text and passes the trace context to the database.
#[derive(Debug)]
pub struct Statement {
    context: SpanContext,
    /// Whether a prepared statement may be sent as text, so that it carries the comment itself.
    may_be_planned_again: bool,
    text: OnceLock<Cow<'static, str>>,
}

impl Statement {
    /// A statement that has not been sent yet.
    pub fn new(context: SpanContext, may_be_planned_again: bool) -> Arc<Self> {
        Arc::new(Self { context, may_be_planned_again, text: OnceLock::new() })
    }

    /// The statement of this task.
    pub fn get() -> Option<Arc<Self>> {
        STATEMENT.try_with(Clone::clone).ok()
    }

    /// Returns the text to send: with a trace context comment in the format of sqlcommenter. If several statements are sent,
    /// the first one is recorded.
    pub fn sent(&self, text: Cow<'static, str>) -> String {
        let commented = format!("{text} {}", comment(&self.context));
        let _ = self.text.set(text); // only the first is kept
        commented
    }

    /// Returns the comment to send ahead of a prepared statement, which is then sent as it is; `None` if the statement itself
    /// is to carry the comment ([`Self::sent`]).
    pub fn sent_prepared(&self, text: &'static str) -> Option<String> {
        if self.may_be_planned_again {
            return None;
        }
        let _ = self.text.set(Cow::Borrowed(text)); // only the first is kept
        Some(comment(&self.context))
    }

    /// The text that was sent.
    pub fn text(&self) -> Option<Cow<'static, str>> {
        self.text.get().cloned()
    }

    /// Runs work that sends the statement.
    pub fn scope<F: Future>(self: Arc<Self>, work: F) -> TaskLocalFuture<Arc<Self>, F> {
        STATEMENT.scope(self, work)
    }
}

fn comment(context: &SpanContext) -> String {
    format!("/*traceparent='{context}'*/")
}

/// The text to send for a statement within a transaction: with a comment if the transaction is traced.
pub fn commented(text: &'static str) -> Cow<'static, str> {
    match Statement::get() {
        None => Cow::Borrowed(text),
        Some(statement) => Cow::Owned(statement.sent(Cow::Borrowed(text))),
    }
}
