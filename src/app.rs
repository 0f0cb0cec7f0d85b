//! Builds the service from its settings and starts it.
//!
//! The database may be unreachable at start: the service starts listening soon, reports the state on `/readyz`, and prepares
//! the database (migrations, seed) as soon as it can be reached.

pub mod error;
mod prepare;

use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use metrics_exporter_prometheus::PrometheusHandle;
use tokio::task::JoinHandle;

use self::error::AppError;
use self::prepare::{Steps, prepare};
use crate::air_quality::cache::Cache;
use crate::auth::authenticator::Authenticator;
use crate::auth::issuer::Issuer;
use crate::auth::tokens::Tokens;
use crate::backup::runs;
use crate::config::{Auth, DatabaseConfig, ServerConfig, known_resources};
use crate::db::analyze::Growth;
use crate::db::conninfo::ConnInfo;
use crate::db::pool::{Pool, PoolKind};
use crate::db::reads::Reads;
use crate::db::replica::ReadReplica;
use crate::http::asset::Policy;
use crate::http::consistency;
use crate::http::cors::{self, Origins};
use crate::http::endpoint::AccessTable;
use crate::http::etag::IfMatch;
use crate::idempotency::expiry;
use crate::idempotency::key_limit::KeyLimit;
use crate::idempotency::once::Once;
use crate::ops::health::Health;
use crate::resource::bulk::bounds::Bulk;
use crate::resource::context::Context;
use crate::resource::definition::Resource;
use crate::resource::history;
use crate::resource::list::first::Lists;
use crate::resource::long_rows::LongRows;
use crate::resource::registry::Resources;
use crate::resource::store::Store;
use crate::server::access_log::AccessLog;
use crate::server::gate::Gate;
use crate::server::guard::Guard;
use crate::server::listener::Listener;
use crate::server::quota::PrincipalQuota;
use crate::server::{self, Drained, ServerLimits};
use crate::shutdown::Shutdown;
use crate::trace::tracer::Tracer;
use crate::{air_quality, docs, identity, ops, pages, resource, steps, telemetry, tokens};

/// How long the start waits for the database before it listens anyway, so that a server restarted with a healthy database does
/// not respond with 503.
const START_WAIT: Duration = Duration::from_secs(2);

/// Longest wait for the delivery of recorded traces at exit.
const FLUSH_TIMEOUT: Duration = Duration::from_secs(2);

/// A running service.
pub struct App {
    servers: Vec<JoinHandle<Drained>>,
    gate: Option<Arc<Gate>>,
    tracer: Option<Arc<Tracer>>,
    preparation: JoinHandle<Result<(), AppError>>,
}

impl App {
    /// Starts serving on the listeners until shutdown is requested.
    ///
    /// # Errors
    /// If the database was reached but cannot be used. A database that cannot be reached yet is not an error.
    pub async fn start(
        config: (&DatabaseConfig, &ServerConfig),
        conninfo: &ConnInfo,
        resources: Resources,
        listeners: Listeners,
        shutdown: &Shutdown,
    ) -> Result<Self, AppError> {
        let (database, server) = config;
        let tracer = telemetry::traces(server.traces.options(conninfo)?).map_err(AppError::Traces)?;
        let pool_of = |kind| Pool::new(conninfo, &database.pool_options(kind));
        let pool = pool_of(PoolKind::Keys);
        let read_replica = database.replica(conninfo)?.map(|replica| {
            let pools = [PoolKind::Replica, PoolKind::ReplicaProbe]
                .map(|kind| Pool::new(&replica, &database.pool_options(kind)));
            ReadReplica::start(pools, database.replica_options(), &pool, shutdown.clone())
        });
        let reads =
            Reads::new(pool_of(PoolKind::Lists), pool.clone(), database.checkout_timeout_ms, read_replica.clone());
        let probe = pool_of(PoolKind::Probe);
        let pools = [(PoolKind::Keys, &pool), (PoolKind::Probe, &probe)].into_iter().chain(reads.pools());
        let pools = pools.map(|(kind, pool)| (kind.name(), pool.clone())).collect();
        let health = Arc::new(Health::new(probe, read_replica.clone(), server.common.auth.name(), shutdown.clone()));
        let budget = &server.budget;
        let bodies = budget.bodies();
        let body_limits = budget.body_limits(&bodies, server.common.max_body_bytes, server.body_timeout_ms);
        let buffers = budget.buffers(database.checkout_timeout_ms);
        let bound = KeyLimit::start(pool.clone(), server.idempotency_max_keys, shutdown.clone());
        let rows = budget.rows(database.checkout_timeout_ms);
        let once = Once::new(pool.clone(), server.idempotency_ttl, bound, buffers.clone());
        tokio::spawn(expiry::run(pool.clone(), once.ttl(), shutdown.clone()));
        if let Some(retention) = server.history_retention {
            tokio::spawn(history::expiry::run(resources, pool.clone(), retention, shutdown.clone()));
        }
        if listeners.metrics.is_some() {
            tokio::spawn(runs::watch(pool.clone(), shutdown.clone()));
        }
        let cache = Cache::start(pool.clone(), reads.clone(), conninfo.clone(), server.air_quality.options()?);
        let steps = Arc::new(steps::context::Context {
            pool: pool.clone(),
            reads: reads.clone(),
            once: once.clone(),
            body_limits: body_limits.clone(),
            buffers: buffers.clone(),
        });
        let table = AccessTable::new(docs::endpoints::all(resources));
        let scopes = table.scopes();
        // Also evaluated with AUTH=off, to report errors early.
        let sign_in = server.auth.issuer.sign_in(&scopes)?.filter(|_| server.common.auth == Auth::On);
        let policy = Policy::allowing(sign_in.as_ref().map(|sign_in| sign_in.origin.as_str()));
        let identity = identity::routes::Context {
            auth: server.common.auth.name(),
            issuer: server.auth.issuer.auth_issuer.clone(),
            scopes,
            sign_in: sign_in.clone(),
        };
        let tokens = Arc::new(tokens::context::Context {
            pool: pool.clone(),
            body_limits: body_limits.clone(),
            resources: known_resources(resources),
        });
        let bulk = Arc::new(Bulk::new(
            budget.body_limits(&bodies, server.common.bulk_max_bytes, server.common.bulk_timeout_ms),
            budget.disk(),
            pool.size(),
            database.checkout_timeout_ms,
        ));
        let context = |resource: &'static Resource| {
            Arc::new(Context {
                resource,
                store: Store::new(resource, &pool, database.checkout_timeout_ms),
                rows: LongRows::new(resource, rows.clone()),
                reads: reads.clone(),
                lists: Lists::new("list"),
                once: once.clone(),
                if_match: if server.require_if_match { IfMatch::Required } else { IfMatch::Optional },
                bulk: bulk.clone(),
                body_limits: body_limits.clone(),
                buffers: buffers.clone(),
                growth: Growth::new(resource.table),
                pool: pool.clone(),
            })
        };
        let contexts: Vec<Arc<Context>> = resources.iter().map(|resource| context(resource)).collect();
        for context in &contexts {
            let (context, shutdown) = (context.clone(), shutdown.clone());
            tokio::spawn(async move { context.growth.run(context.pool.clone(), shutdown).await });
        }
        let mut preparation = tokio::spawn(prepare(
            health.clone(),
            conninfo.clone(),
            resources,
            Steps { migrate: server.migrate, seed: server.seed },
        ));
        let early = tokio::time::timeout(START_WAIT, &mut preparation).await;
        let preparation = match early {
            Ok(finished) => {
                finished.expect("preparation does not panic")?;
                tokio::spawn(async { Ok(()) })
            }
            Err(_) => preparation,
        };
        let limits = ServerLimits {
            header_timeout: server.header_timeout_ms,
            send_buffer: budget.send_buffer(),
            drain_timeout: server.common.drain_timeout_ms,
            drain_grace: server.drain_grace_ms,
        };
        let mut routes: Vec<_> = contexts.iter().map(resource::routes::routes).collect();
        routes.extend([
            air_quality::routes::routes(&cache),
            steps::routes::routes(&steps),
            identity::routes::routes(identity),
            tokens::routes::routes(&tokens),
            ops::health::routes(&health),
            docs::routes::routes(docs::document::json(resources, sign_in.as_ref()), policy.clone()),
            pages::routes::routes(pages::routes::Context { resources, signs_in: sign_in.is_some(), policy }),
        ]);
        let routes = consistency::with_position(read_replica, server::routes(routes));
        let origins = server.common.cors_allow_origins.clone().unwrap_or(Origins::None);
        let routes = cors::with_cors(origins.clone(), routes);
        let hosts = server.allowed_hosts.clone().unwrap_or_default().with_own_name();
        let issuer = server.auth.issuer.options()?;
        let gate = match server.common.auth {
            Auth::Off => None,
            Auth::On => {
                let anonymous = server.auth.anonymous_scopes(resources)?;
                let tokens = Tokens::start(pool.clone(), conninfo.clone(), shutdown.clone());
                let issuer = issuer.map(|options| Issuer::start(options, shutdown.clone()));
                let has_issuer = issuer.is_some();
                let quota = NonZeroU32::new(server.auth.principal_rate_limit)
                    .map(|per_second| PrincipalQuota::start(per_second, shutdown.clone()));
                Some(Arc::new(Gate::new(Authenticator::new(anonymous, tokens, issuer), table, has_issuer, quota)))
            }
        };
        let guard = Arc::new(Guard { hosts: hosts.clone(), origins: origins.clone(), gate: gate.clone() });
        let mut servers: Vec<_> = listeners
            .public
            .into_iter()
            .map(|listener| {
                let guarded = (guard.clone(), routes.clone());
                let records = (listeners.log.clone(), tracer.clone());
                tokio::spawn(server::serve(listener, guarded, limits, records, shutdown.clone()))
            })
            .collect();
        if let Some((listener, handle)) = listeners.metrics {
            tokio::spawn(telemetry::sort_histograms(handle.clone()));
            tokio::spawn(ops::runtime::measure());
            let dropped = server.log_dropped_file.clone();
            let routes = server::routes(vec![ops::metrics::routes(pools, health, handle, dropped)]);
            servers.push(tokio::spawn(server::serve(
                listener,
                // Every client that can reach this listener may read it.
                (Arc::new(Guard { hosts, origins, gate: None }), routes),
                // No load balancer uses it, and Prometheus keeps its connection open.
                ServerLimits { drain_grace: Duration::ZERO, ..limits },
                (listeners.log, None),
                shutdown.clone(),
            )));
        }
        Ok(Self { servers, gate, tracer, preparation })
    }

    /// Returns when every listener has drained, or when the database proves unusable.
    ///
    /// # Errors
    /// As [`App::start`].
    pub async fn finished(self) -> Result<Drained, AppError> {
        let preparation = self.preparation;
        let servers = async {
            let mut outcome = Drained::Whole;
            for server in self.servers {
                if server.await.expect("a server does not panic") == Drained::Partly {
                    outcome = Drained::Partly;
                }
            }
            if let Some(gate) = self.gate {
                gate.finish().await;
            }
            if let Some(tracer) = self.tracer {
                let flushing = tokio::task::spawn_blocking(move || tracer.close(FLUSH_TIMEOUT));
                flushing.await.expect("it does not panic");
            }
            outcome
        };
        let failed = async {
            match preparation.await.expect("preparation does not panic") {
                Ok(()) => std::future::pending().await,
                Err(error) => error,
            }
        };
        tokio::select! {
            outcome = servers => Ok(outcome),
            error = failed => Err(error),
        }
    }
}

/// The listeners and logs of the service.
pub struct Listeners {
    /// The API.
    pub public: Vec<Listener>,
    /// The metrics listener and renderer.
    pub metrics: Option<(Listener, PrometheusHandle)>,
    /// The access log.
    pub log: AccessLog,
}
