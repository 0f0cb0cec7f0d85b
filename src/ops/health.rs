//! Liveness, readiness and the greetings.
//!
//! Liveness checks nothing. Readiness queries PostgreSQL briefly, at most once per second however many probes arrive, and
//! writes nothing; it fails as soon as a shutdown is requested. Load balancers use `?exclude=postgres`, which reports only the
//! result of the startup: if the database is unreachable, it is so for every replica, and removing all of them would leave
//! clients with refused connections instead of responses.

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
use crate::db::replica::{ReadReplica, Unusable};
use crate::http::endpoint::{Endpoint, PUBLIC};
use crate::http::problem::Problem;
use crate::http::query::Query;
use crate::http::reply;
use crate::http::route::{Matched, at, at_each, at_with_query, get_or_head, method_not_allowed};
use crate::shutdown::Shutdown;

pub(super) const GREETINGS: &[&str] = &["/hello", "/zero", "/helloworld"];
pub(super) const LIVE: &[&str] = &["/livez"];
pub(super) const READY: &[&str] = &["/readyz"];
/// The endpoints of this module.
pub const ENDPOINTS: &[Endpoint] = &[
    Endpoint { templates: GREETINGS, methods: PUBLIC },
    Endpoint { templates: LIVE, methods: PUBLIC },
    Endpoint { templates: READY, methods: PUBLIC },
];

/// How long a result about the database is reused; a cluster's probes are sent once per second or less often.
const CHECK_FRESH: Duration = Duration::from_secs(1);
/// Maximum wait of a readiness probe for PostgreSQL; shorter than any sensible probe timeout.
const CHECK_TIMEOUT: Duration = Duration::from_millis(800);

/// The parameter of `/readyz`, and its only value.
pub(super) const EXCLUDE: &str = "exclude";
pub(super) const POSTGRES: &str = "postgres";

/// The progress of preparing the database at startup.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Preparation {
    /// In progress, or the database responds but cannot be used yet.
    Pending,
    /// The database is unreachable.
    Unreachable,
    /// The database was usable once. This state is final, because later failures affect every replica.
    Done,
}

/// The state of the readiness checks.
pub struct Health {
    /// The pool for the database check.
    probe: Pool,
    read_replica: Option<ReadReplica>,
    auth: &'static str,
    shutdown: Shutdown,
    preparation: watch::Sender<Preparation>,
    database: Mutex<Option<(Instant, Database)>>,
}

/// The result of a database check.
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
    /// Whether credentials are checked: with `off` every request may do everything.
    auth: &'static str,
    checks: Checks,
    /// The replica that lists are read on, if there is one. Without it lists are read on the primary, so readiness does not
    /// depend on it.
    #[serde(skip_serializing_if = "Option::is_none")]
    replica: Option<ReplicaReadiness>,
}

#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct ReplicaReadiness {
    /// `ok`, or why lists are read on the primary: `away`, `lagging`, `promoted`, `foreign`.
    state: &'static str,
    /// The replication lag in seconds, if known.
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
    /// Each check, and whether it passed.
    pub(super) fn passed(&self) -> [(&'static str, bool); 3] {
        [("postgres", self.postgres), ("migrations", self.migrations), ("shutdown", self.shutdown)]
            .map(|(name, found)| (name, found == OK))
    }
}

impl Health {
    /// Readiness until the shutdown is requested; the reports also show whether credentials are checked, and the state of the
    /// replica.
    pub fn new(probe: Pool, read_replica: Option<ReadReplica>, auth: &'static str, shutdown: Shutdown) -> Self {
        Self {
            probe,
            read_replica,
            auth,
            shutdown,
            preparation: watch::Sender::new(Preparation::Pending),
            database: Mutex::new(None),
        }
    }

    /// Records the progress of the startup.
    pub fn prepared(&self, preparation: Preparation) {
        self.preparation.send_replace(preparation);
    }

    /// Checks the database and this process.
    pub(super) async fn checks(&self) -> Checks {
        let Database { postgres, migrations } = self.database().await;
        // Tables are adapted to their descriptions after the migrations, which may have to wait for locks.
        let is_prepared = matches!(*self.preparation.borrow(), Preparation::Done);
        let migrations = if migrations == OK && !is_prepared { "pending" } else { migrations };
        Checks { postgres, migrations, shutdown: self.shutdown() }
    }

    /// The checks for load balancers, without queries.
    fn checks_without_postgres(&self) -> Checks {
        let migrations = match *self.preparation.borrow() {
            Preparation::Pending => "pending",
            Preparation::Unreachable => UNKNOWN,
            Preparation::Done => OK,
        };
        Checks { postgres: EXCLUDED, migrations, shutdown: self.shutdown() }
    }

    fn replica(&self) -> Option<ReplicaReadiness> {
        let state = self.read_replica.as_ref()?.replica.state();
        let lag_seconds = state.lag.map(|lag| lag.as_secs_f64());
        Some(ReplicaReadiness { state: state.unusable.map_or(OK, Unusable::name), lag_seconds })
    }

    fn shutdown(&self) -> &'static str {
        if self.shutdown.is_requested() { "draining" } else { OK }
    }

    /// The lock lets concurrent callers share one check.
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
    let excluded = query.optional(EXCLUDE, "must be postgres", |value| (value == POSTGRES).then_some(()));
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
    let problem = Problem::unavailable("not ready; checks lists what is missing").with_checks(&checks);
    Ok(uncached(problem.into_response()))
}

fn uncached(mut response: Response) -> Response {
    response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}
