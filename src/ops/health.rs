//! Liveness, readiness and the greetings.
//!
//! Liveness asks nothing of anybody. Readiness asks PostgreSQL, briefly, at most once a second however many ask us, and
//! writes nothing; it fails as soon as a stop was asked for.

use std::sync::Arc;
use std::time::{Duration, Instant};

use serde::Serialize;
use tokio::sync::Mutex;
use utoipa::ToSchema;
use warp::Filter;
use warp::filters::BoxedFilter;
use warp::http::StatusCode;
use warp::http::header::{CACHE_CONTROL, HeaderValue};
use warp::reply::Response;

use crate::app::State;
use crate::db::migrate;
use crate::http::problem::Problem;
use crate::http::reply;
use crate::http::route::{Allowed, Matched, at, at_each, get_or_head, method_not_allowed};
use crate::shutdown::Shutdown;

pub(super) const GREETINGS: &[&str] = &["/hello", "/zero", "/helloworld"];
pub(super) const LIVE: &[&str] = &["/livez"];
pub(super) const READY: &[&str] = &["/readyz"];
/// Each template with the methods that it takes.
pub const ALLOWED: Allowed = &[(GREETINGS, "GET, HEAD"), (LIVE, "GET, HEAD"), (READY, "GET, HEAD")];

/// An answer about the database is good for this long; a cluster's probes come once a second or less often.
const CHECK_FRESH: Duration = Duration::from_secs(1);
/// Longest that a readiness probe waits for PostgreSQL; shorter than any sensible probe timeout.
const CHECK_TIMEOUT: Duration = Duration::from_millis(800);

/// What is known about being ready.
pub struct Health {
    shutdown: Shutdown,
    database: Mutex<Option<(Instant, Database)>>,
}

/// What one look at the database said.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Database {
    postgres: &'static str,
    migrations: &'static str,
}

const OK: &str = "ok";

/// The body of `/readyz`, check by check.
#[derive(Serialize, ToSchema)]
pub struct Readiness {
    status: &'static str,
    checks: Checks,
}

#[derive(Serialize, ToSchema)]
#[schema(as = ReadinessChecks)]
struct Checks {
    postgres: &'static str,
    migrations: &'static str,
    shutdown: &'static str,
}

impl Health {
    /// Readiness that ends when the shutdown is requested.
    pub fn new(shutdown: Shutdown) -> Self {
        Self { shutdown, database: Mutex::new(None) }
    }

    async fn checks(&self, state: &State) -> Checks {
        let shutdown = if self.shutdown.is_requested() { "draining" } else { OK };
        let Database { postgres, migrations } = self.database(state).await;
        Checks { postgres, migrations, shutdown }
    }

    /// The lock makes callers that come together share one look.
    async fn database(&self, state: &State) -> Database {
        let mut known = self.database.lock().await;
        if let Some((at, database)) = *known
            && at.elapsed() < CHECK_FRESH
            && database.postgres == OK
        {
            return database;
        }
        let look = tokio::time::timeout(CHECK_TIMEOUT, migrate::is_current(&state.probe)).await;
        let database = match look {
            Ok(Ok(true)) => Database { postgres: OK, migrations: OK },
            Ok(Ok(false)) => Database { postgres: OK, migrations: "pending" },
            Ok(Err(error)) if error.is_missing_table() => Database { postgres: OK, migrations: "pending" },
            Ok(Err(_)) | Err(_) => Database { postgres: "unavailable", migrations: "unknown" },
        };
        *known = Some((Instant::now(), database));
        database
    }
}

/// The routes of this module.
pub fn routes(state: &Arc<State>) -> BoxedFilter<(Response,)> {
    let state = {
        let state = state.clone();
        warp::any().map(move || state.clone())
    };
    let greet = at_each(GREETINGS).and(get_or_head()).then(|matched: Matched| async move {
        let response = match matched.route.0 {
            "/zero" => reply::json_bytes(StatusCode::OK, r#"{"0":""}"#),
            "/helloworld" => reply::ok("text/plain; charset=utf-8", "Hello World!"),
            _ => reply::json_bytes(StatusCode::OK, r#"{"message":"ok"}"#),
        };
        matched.answer(async { Ok(response) }).await
    });
    let live = at(LIVE).and(get_or_head()).then(|matched: Matched| async move {
        matched.answer(async { Ok(uncached(reply::json_bytes(StatusCode::OK, r#"{"status":"live"}"#))) }).await
    });
    let ready = at(READY).and(get_or_head()).and(state).then(|matched: Matched, state: Arc<State>| async move {
        matched.answer(async { Ok(ready(&state).await) }).await
    });
    ready.or(live).unify().or(greet).unify().or(method_not_allowed(ALLOWED)).unify().boxed()
}

async fn ready(state: &State) -> Response {
    let checks = state.health.checks(state).await;
    let ready = [checks.postgres, checks.migrations, checks.shutdown].iter().all(|check| *check == OK);
    if ready {
        return uncached(reply::json(&Readiness { status: "ready", checks }));
    }
    uncached(Problem::unavailable("not ready; the checks say what is missing").with_checks(&checks).into_response())
}

fn uncached(mut response: Response) -> Response {
    response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}
