"""The contents of the dashboards: rows of panels, with the title and the queries of each panel.

`NS` stands for the selected namespaces, `[R]` for Grafana's rate interval. A panel that is empty on a healthy stack without a
standby, Redis or a cluster states in `needs` what it needs; a test checks that every other panel has data.
"""

from dataclasses import dataclass

REQUESTS = "http_server_request_duration_seconds"
SECONDS, BYTES, PER_SECOND, RATIO, COUNT = "s", "bytes", "reqps", "percentunit", "short"


@dataclass(frozen=True)
class Panel:
    title: str
    unit: str
    queries: dict  # legend: PromQL
    needs: str = ""
    number: bool = False  # a single number, not a graph


def quantile(q, metric, by="", more=""):
    labels = f"{by}, le" if by else "le"
    return f"histogram_quantile({q}, sum by ({labels}) (rate({metric}_bucket{{NS{more}}}[R])))"


def rate(metric, by="", more=""):
    return f"sum by ({by}) (rate({metric}{{NS{more}}}[R]))" if by else f"sum(rate({metric}{{NS{more}}}[R]))"


OVERVIEW = {
    "Now": [
        Panel("Servers", COUNT, {"answering": 'sum(up{NS, job="pycrudapi"})'}, number=True),
        Panel("Ready", COUNT, {"lowest check": "min(ready{NS})"}, number=True),
        Panel("Through nginx", COUNT, {"answered": 'min(probe_success{NS, job="entrance"})'}, number=True),
        Panel("Version", COUNT, {"{{version}}": "count by (version) (pycrudapi_build_info{NS})"}, number=True),
        Panel("Alerts", COUNT, {"firing": 'count(ALERTS{NS, alertstate="firing"}) or vector(0)'}, number=True),
    ],
    "Rate, errors, duration": [
        Panel("Requests", PER_SECOND, {"{{http_response_status_code}}": rate(f"{REQUESTS}_count", "http_response_status_code")}),
        Panel("Errors", RATIO, {"5xx of all": "pycrudapi:http_errors:ratio_rate5m{NS}"}),
        Panel("Duration", SECONDS, {f"p{q}": quantile(f"0.{q}", REQUESTS) for q in ("50", "95", "99")}),
        Panel("Duration by route, p99", SECONDS, {"{{http_route}}": quantile("0.99", REQUESTS, "http_route")}),
    ],
    "Objectives": [
        Panel("Availability budget, burn rate", COUNT, {
            f"over {window}": f"pycrudapi:http_errors:ratio_rate{window}{{NS}} / 0.001" for window in ("1h", "6h", "3d")
        }),
        Panel("Latency budget, burn rate", COUNT, {
            f"over {window}": f"pycrudapi:http_slow:ratio_rate{window}{{NS}} / 0.01" for window in ("1h", "6h", "3d")
        }),
    ],
    "Saturation": [
        Panel("Requests in progress", COUNT, {"{{instance}}": "http_server_active_requests{NS}"}),
        Panel("Connections used", RATIO, {
            "{{instance}} {{pool}}": 'db_client_connection_count{NS, state="used"} / ignoring (state) db_client_connection_max{NS}'
        }),
        Panel("Refused", PER_SECOND, {
            "lists": rate("db_list_refused_total"),
            "{{batch}}": rate("db_batch_refused_total", "batch"),
            "budget of {{budget}}": rate("budget_refused_total", "budget"),
        }),
        Panel("Held by requests", BYTES, {"{{instance}} {{budget}}": "budget_used_bytes{NS}"}),
        Panel("Runtime workers busy", RATIO, {"{{instance}}": "tokio_workers_busy_ratio{NS}"}),
        Panel("Runtime queue", COUNT, {"{{instance}}": "tokio_global_queue_depth{NS}"}),
    ],
    "Process": [
        Panel("Memory", BYTES, {"{{instance}}": 'process_resident_memory_bytes{NS, job="pycrudapi"}'}),
        Panel("CPU", COUNT, {"{{instance}}": 'rate(process_cpu_seconds_total{NS, job="pycrudapi"}[R])'}),
        Panel("Open files", RATIO, {"{{instance}}": 'process_open_fds{NS, job="pycrudapi"} / process_max_fds{NS, job="pycrudapi"}'}),
        Panel("Log lines dropped", PER_SECOND, {"{{instance}}": "rate(log_lines_dropped_total{NS}[R])"}),
        Panel("Memory of the container", RATIO, {
            "{{container}}": "container_memory_working_set_bytes{NS, container!=\"\"} / (container_spec_memory_limit_bytes{NS} > 0)"
        }, needs="containers"),
    ],
}

DATABASE = {
    "Service side": [
        Panel("Connections of the pools", COUNT, {"{{pool}} {{state}}": "sum by (pool, state) (db_client_connection_count{NS})"}),
        Panel("Wait for a connection, p99", SECONDS, {"{{pool}}": quantile("0.99", "db_client_connection_wait_time_seconds", "pool")}),
        Panel("Operations", PER_SECOND, {"{{db_operation_name}}": rate("db_client_operation_duration_seconds_count", "db_operation_name")}),
        Panel("Operations, p99", SECONDS, {
            "{{db_operation_name}}": quantile("0.99", "db_client_operation_duration_seconds", "db_operation_name")
        }),
        Panel("Requests per statement", COUNT, {
            "{{batch}}": f"{rate('db_batch_size_sum', 'batch')} / {rate('db_batch_size_count', 'batch')}"
        }),
        Panel("Wait for a batch, p99", SECONDS, {"{{batch}}": quantile("0.99", "db_batch_wait_seconds", "batch")}),
    ],
    "PostgreSQL": [
        Panel("Up", COUNT, {"{{instance}}": "pg_up{NS}"}, number=True),
        Panel("Connections", COUNT, {
            "{{state}}": "sum by (state) (pg_stat_activity_count{NS})",
            "max_connections": "max(pg_settings_max_connections{NS})",
        }),
        Panel("Transactions", PER_SECOND, {
            "committed": rate("pg_stat_database_xact_commit"),
            "rolled back": rate("pg_stat_database_xact_rollback"),
        }),
        Panel("Rows", PER_SECOND, {
            kind: rate(f"pg_stat_database_tup_{kind}") for kind in ("fetched", "inserted", "updated", "deleted")
        }),
        Panel("Buffer cache hits", RATIO, {
            "hit": f"{rate('pg_stat_database_blks_hit')} / ({rate('pg_stat_database_blks_hit')} + {rate('pg_stat_database_blks_read')})"
        }),
        Panel("Locks", COUNT, {"{{mode}}": "sum by (mode) (pg_locks_count{NS}) > 0"}),
        Panel("Deadlocks", COUNT, {"{{datname}}": "sum by (datname) (increase(pg_stat_database_deadlocks{NS}[R]))"}),
        Panel("Longest transaction", SECONDS, {"{{state}}": "max by (state) (pg_stat_activity_max_tx_duration{NS})"}),
    ],
    "Tables and vacuum": [
        Panel("Size", BYTES, {"{{table}}": "max by (table) (pycrudapi_table_size_bytes{NS})"}),
        Panel("Dead rows", COUNT, {"{{table}}": "max by (table) (pycrudapi_table_dead_tuples{NS})"}),
        Panel("Oldest transaction id", COUNT, {"{{database}}": "max by (database) (pycrudapi_database_frozen_age{NS})"}),
    ],
    "WAL and standbys": [
        Panel("pg_wal", BYTES, {"{{instance}}": "pycrudapi_wal_size_bytes{NS}", "max_wal_size": "max(pg_settings_max_wal_size_bytes{NS})"}),
        Panel("Archived", PER_SECOND, {
            "archived": rate("pg_stat_archiver_archived_count"),
            "failed": rate("pg_stat_archiver_failed_count"),
        }),
        Panel("Standby lag", BYTES, {"{{standby}}": "pycrudapi_standby_lag_bytes{NS}"}, needs="a standby"),
        Panel("List reads by result", PER_SECOND, {"{{result}}": rate("db_replica_reads_total", "result")}, needs="DATABASE_READ_URL"),
        Panel("Replica lag", SECONDS, {"{{instance}}": "db_replica_lag_seconds{NS}"}, needs="DATABASE_READ_URL"),
        Panel("WAL retained by slots", BYTES, {"{{slot}}": "pycrudapi_slot_retained_bytes{NS}"}, needs="a replication slot"),
        Panel("Disk free", RATIO, {
            "{{instance}} {{mountpoint}}": 'min by (instance, mountpoint) (node_filesystem_avail_bytes{NS, fstype!~"ramfs|squashfs|overlay"} / node_filesystem_size_bytes{NS})',
        }, needs="node_exporter"),
        Panel("Volume claim free", RATIO, {
            "{{persistentvolumeclaim}}": "kubelet_volume_stats_available_bytes{NS} / kubelet_volume_stats_capacity_bytes{NS}"
        }, needs="a cluster"),
    ],
}

NGINX = {
    "nginx": [
        Panel("Up", COUNT, {"{{instance}}": "nginx_up{NS}"}, number=True),
        Panel("Certificate", SECONDS, {"{{instance}}": "probe_ssl_earliest_cert_expiry{NS} - time()"}, number=True),
        Panel("Requests", PER_SECOND, {"{{instance}}": rate("nginx_http_requests_total", "instance")}),
        Panel("Connections", COUNT, {
            state: f"sum(nginx_connections_{state}{{NS}})" for state in ("active", "reading", "writing", "waiting")
        }),
        Panel("New connections", PER_SECOND, {
            "accepted": rate("nginx_connections_accepted"),
            "handled": rate("nginx_connections_handled"),
        }),
        Panel("Requests per connection", COUNT, {
            "requests": f"{rate('nginx_http_requests_total')} / {rate('nginx_connections_accepted')}"
        }),
    ],
    "Client side": [
        Panel("Answered", COUNT, {"{{instance}}": 'probe_success{NS, job="entrance"}'}),
        Panel("Duration by phase", SECONDS, {"{{phase}}": 'sum by (phase) (probe_http_duration_seconds{NS, job="entrance"})'}),
        Panel("Refused by nginx or the server", PER_SECOND, {
            "{{http_response_status_code}}": rate(f"{REQUESTS}_count", "http_response_status_code", ', http_response_status_code=~"4..|5.."')
        }),
    ],
}

RESOURCES = {
    "Resources": [
        Panel("Requests by route", PER_SECOND, {"{{http_request_method}} {{http_route}}": rate(f"{REQUESTS}_count", "http_request_method, http_route")}),
        Panel("Operations by resource", PER_SECOND, {
            "{{db_collection_name}} {{db_operation_name}}": rate("db_client_operation_duration_seconds_count", "db_collection_name, db_operation_name")
        }),
        Panel("Bodies of requests, p95", BYTES, {"{{http_route}}": quantile("0.95", "http_server_request_body_size_bytes", "http_route")}),
        Panel("Bodies of answers, p95", BYTES, {"{{http_route}}": quantile("0.95", "http_server_response_body_size_bytes", "http_route")}),
        Panel("Lists in progress", COUNT, {"{{instance}}": "lists_in_flight{NS}"}),
        Panel("Lists paused", PER_SECOND, {"paused": rate("lists_paused_total")}),
        Panel("Statements abandoned", PER_SECOND, {"abandoned": rate("db_statements_abandoned_total")}, needs="clients that disconnected"),
        Panel("Idempotency keys", PER_SECOND, {"{{result}}": rate("idempotency_requests_total", "result")}),
        Panel("Air quality", PER_SECOND, {"{{result}}": rate("cache_requests_total", "result")}),
        Panel("Redis", COUNT, {"{{instance}}": "cache_redis_up{NS}"}, needs="Redis"),
    ],
    "Principals": [
        Panel("Requests by credential", PER_SECOND, {"{{credential}}": rate(f"{REQUESTS}_count", "credential")}),
        Panel("Results", PER_SECOND, {"{{credential}} {{result}}": rate("auth_requests_total", "credential, result")}, needs="AUTH=on"),
        Panel("Key fetches of the issuer", PER_SECOND, {"{{result}}": rate("auth_key_fetches_total", "result")}, needs="AUTH_ISSUER"),
        Panel("Age of the issuer's keys", SECONDS, {"{{instance}}": "time() - auth_keys_fetched_timestamp_seconds{NS}"}, needs="AUTH_ISSUER"),
    ],
}

BACKUPS = {
    "Backups": [
        Panel("Age of the newest", SECONDS, {"age": "time() - max(backup_last_success_timestamp_seconds{NS})"}, number=True),
        Panel("Size of the newest", BYTES, {"size": "max(backup_last_size_bytes{NS})"}, number=True),
        Panel("Duration of the newest", SECONDS, {"duration": "max(backup_last_duration_seconds{NS})"}, number=True),
        Panel("Since the last failure", SECONDS, {"age": "time() - max(backup_last_failure_timestamp_seconds{NS})"}, needs="a failure", number=True),
        Panel("Age", SECONDS, {"newest": "time() - max(backup_last_success_timestamp_seconds{NS})", "limit": "vector(26 * 3600)"}),
        Panel("Size", BYTES, {"size": "max(backup_last_size_bytes{NS})"}),
        Panel("WAL since the last archived", SECONDS, {"{{instance}}": "pg_stat_archiver_last_archive_age{NS}"}),
    ],
    "Restore drills": [
        Panel("Age of the newest drill", SECONDS, {"age": "time() - max(restore_drill_last_success_timestamp_seconds{NS})"}, number=True),
        Panel("Duration of the newest drill", SECONDS, {"duration": "max(restore_drill_last_duration_seconds{NS})"}, number=True),
        Panel("Since the last failed drill", SECONDS, {"age": "time() - max(restore_drill_last_failure_timestamp_seconds{NS})"}, needs="a failure", number=True),
    ],
}

DASHBOARDS = {
    "overview": ("pycrudapi: overview", OVERVIEW),
    "database": ("pycrudapi: database", DATABASE),
    "nginx": ("pycrudapi: nginx", NGINX),
    "resources": ("pycrudapi: resources and principals", RESOURCES),
    "backups": ("pycrudapi: backups", BACKUPS),
}
