//! Liveness, readiness and the greetings.
//!
//! Liveness asks nothing of anybody. Readiness asks PostgreSQL, briefly, at most once a second however many ask us, and
//! writes nothing; it fails as soon as a stop was asked for. A load balancer asks with `?exclude=postgres`, which is
//! answered from what the start has found: a database that is away is away for every replica, and taking all of them out
//! would leave clients with refused connections in place of an answer.

use std::sync::Arc;
use std::time::{Duration, Instant};

use serde::Serialize;
use tokio::sync::{Mutex, watch};
use utoipa::ToSchema;
use warp::Filter;
use warp::filters::BoxedFilter;
use warp::http::StatusCode;
use warp::http::header::{CACHE_CONTROL, HeaderValue};
use warp::reply::Response;

use crate::db::migrate;
use crate::db::pool::Pool;
use crate::db::replica::{Followed, Unfit};
use crate::http::endpoint::{Endpoint, PUBLIC};
use crate::http::problem::Problem;
use crate::http::query::Query;
use crate::http::reply;
use crate::http::route::{Matched, at, at_each, at_with_query, get_or_head, method_not_allowed};
use crate::shutdown::Shutdown;

pub(super) const GREETINGS: &[&str] = &["/hello", "/zero", "/helloworld"];
pub(super) const LIVE: &[&str] = &["/livez"];
pub(super) const READY: &[&str] = &["/readyz"];
/// What is routed here.
pub const ENDPOINTS: &[Endpoint] = &[
    Endpoint { templates: GREETINGS, methods: PUBLIC },
    Endpoint { templates: LIVE, methods: PUBLIC },
    Endpoint { templates: READY, methods: PUBLIC },
];

/// An answer about the database is good for this long; a cluster's probes come once a second or less often.
const CHECK_FRESH: Duration = Duration::from_secs(1);
/// Longest that a readiness probe waits for PostgreSQL; shorter than any sensible probe timeout.
const CHECK_TIMEOUT: Duration = Duration::from_millis(800);

/// The parameter of `/readyz`, and the one value it takes.
pub(super) const EXCLUDE: &str = "exclude";
pub(super) const POSTGRES: &str = "postgres";

/// How far the start has got with the database.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Preparation {
    /// Under way; or the database answers, and does not serve us yet.
    Pending,
    /// The database cannot be reached.
    Unreachable,
    /// The database was found usable once; for good, because later faults of it are every replica's.
    Done,
}

/// What is known about being ready.
pub struct Health {
    /// The connection on which the database is asked.
    probe: Pool,
    followed: Option<Followed>,
    auth: &'static str,
    shutdown: Shutdown,
    preparation: watch::Sender<Preparation>,
    database: Mutex<Option<(Instant, Database)>>,
}

/// What one look at the database said.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Database {
    postgres: &'static str,
    migrations: &'static str,
}

const OK: &str = "ok";
const UNKNOWN: &str = "unknown";
const EXCLUDED: &str = "excluded";

/// The body of `/readyz`, check by check.
#[derive(Serialize, ToSchema)]
pub struct Readiness {
    status: &'static str,
    /// Whether credentials are looked at: `off` lets everybody do everything.
    auth: &'static str,
    checks: Checks,
    /// The replica that lists are read on, where there is one; without it they are read on the primary, so nobody is less ready.
    #[serde(skip_serializing_if = "Option::is_none")]
    replica: Option<ReplicaReadiness>,
}

#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct ReplicaReadiness {
    /// `ok`, or why lists are read on the primary: `away`, `lagging`, `promoted`, `foreign`.
    state: &'static str,
    /// How far it is behind, in seconds, if that is known.
    lag_seconds: Option<f64>,
}

#[derive(Serialize, ToSchema)]
#[schema(as = ReadinessChecks)]
pub(super) struct Checks {
    postgres: &'static str,
    migrations: &'static str,
    shutdown: &'static str,
}

impl Checks {
    /// Each check, and whether it is passed.
    pub(super) fn passed(&self) -> [(&'static str, bool); 3] {
        [("postgres", self.postgres), ("migrations", self.migrations), ("shutdown", self.shutdown)]
            .map(|(name, found)| (name, found == OK))
    }
}

impl Health {
    /// Readiness that ends when the shutdown is requested; whether credentials are looked at, and whether lists are read on a
    /// replica, is told with it.
    pub fn new(probe: Pool, followed: Option<Followed>, auth: &'static str, shutdown: Shutdown) -> Self {
        Self {
            probe,
            followed,
            auth,
            shutdown,
            preparation: watch::Sender::new(Preparation::Pending),
            database: Mutex::new(None),
        }
    }

    /// Takes down how far the start has got.
    pub fn prepared(&self, preparation: Preparation) {
        self.preparation.send_replace(preparation);
    }

    /// What must hold of the database and of this process.
    pub(super) async fn checks(&self) -> Checks {
        let Database { postgres, migrations } = self.database().await;
        // Tables that follow their descriptions come after the migrations, and may wait for whoever uses them.
        let is_prepared = matches!(*self.preparation.borrow(), Preparation::Done);
        let migrations = if migrations == OK && !is_prepared { "pending" } else { migrations };
        Checks { postgres, migrations, shutdown: self.shutdown() }
    }

    /// What a load balancer must know of this process; asks nobody.
    fn checks_without_postgres(&self) -> Checks {
        let migrations = match *self.preparation.borrow() {
            Preparation::Pending => "pending",
            Preparation::Unreachable => UNKNOWN,
            Preparation::Done => OK,
        };
        Checks { postgres: EXCLUDED, migrations, shutdown: self.shutdown() }
    }

    fn replica(&self) -> Option<ReplicaReadiness> {
        let state = self.followed.as_ref()?.replica.state();
        let lag_seconds = state.lag.map(|lag| lag.as_secs_f64());
        Some(ReplicaReadiness { state: state.unfit.map_or(OK, Unfit::name), lag_seconds })
    }

    fn shutdown(&self) -> &'static str {
        if self.shutdown.is_requested() { "draining" } else { OK }
    }

    /// The lock makes callers that come together share one look.
    async fn database(&self) -> Database {
        let mut known = self.database.lock().await;
        if let Some((at, database)) = *known
            && at.elapsed() < CHECK_FRESH
            && database.postgres == OK
        {
            return database;
        }
        let look = tokio::time::timeout(CHECK_TIMEOUT, migrate::is_current(&self.probe)).await;
        let database = match look {
            Ok(Ok(true)) => Database { postgres: OK, migrations: OK },
            Ok(Ok(false)) => Database { postgres: OK, migrations: "pending" },
            Ok(Err(_)) | Err(_) => Database { postgres: "unavailable", migrations: UNKNOWN },
        };
        *known = Some((Instant::now(), database));
        database
    }
}

/// The routes of this module.
pub fn routes(health: &Arc<Health>) -> BoxedFilter<(Response,)> {
    let health = {
        let health = health.clone();
        warp::any().map(move || health.clone())
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
    let ready = at_with_query(READY).and(get_or_head()).and(health).then(
        |matched: Matched, query: String, health: Arc<Health>| async move {
            matched.answer(async { ready(&health, &query).await }).await
        },
    );
    ready.or(live).unify().or(greet).unify().or(method_not_allowed(ENDPOINTS)).unify().boxed()
}

async fn ready(health: &Health, query: &str) -> Result<Response, Problem> {
    let mut query = Query::parse(query, &[EXCLUDE]);
    let excluded = query.optional(EXCLUDE, "takes the value postgres", |value| (value == POSTGRES).then_some(()));
    query.finish()?;
    let (checks, fine): (_, &[_]) = match excluded {
        Some(()) => (health.checks_without_postgres(), &[OK, EXCLUDED, UNKNOWN]),
        None => (health.checks().await, &[OK]),
    };
    if [checks.postgres, checks.migrations, checks.shutdown].iter().all(|check| fine.contains(check)) {
        return Ok(uncached(reply::json(&Readiness {
            status: "ready",
            auth: health.auth,
            checks,
            replica: health.replica(),
        })));
    }
    let problem = Problem::unavailable("not ready; the checks say what is missing").with_checks(&checks);
    Ok(uncached(problem.into_response()))
}

fn uncached(mut response: Response) -> Response {
    response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}
