"""A fault for each alert that a test can cause in seconds: `with fault(world):` has it, and it is gone afterwards."""

import contextlib
import http.client
import itertools
import os
import re
import signal
import subprocess
import sys
import threading

import crowd
import world as worlds
from support import request, until

@contextlib.contextmanager
def repeating(work, times=1, pause=0.0):
    """So many threads that do it again and again; connections that break are a part of what is drilled."""
    ended = threading.Event()

    def repeat():
        while not ended.is_set():
            with contextlib.suppress(OSError, http.client.HTTPException):
                work()
            ended.wait(pause)

    threads = [threading.Thread(target=repeat, daemon=True) for _ in range(times)]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        ended.set()
        for thread in threads:
            thread.join()


@contextlib.contextmanager
def postgres_down(world):
    world.postgres.stop()
    try:
        yield
    finally:
        world.postgres.start()
        until(world.stack.is_ready, "the service is ready again")


def program_down(program):
    """A fault: supervisord has stopped this program."""

    @contextlib.contextmanager
    def stopped(world):
        world.supervisorctl("stop", program)
        try:
            yield
        finally:
            world.supervisorctl("start", program)
            until(world.stack.is_ready, "the service is ready again")

    return stopped


nginx_down, server_down = program_down("nginx"), program_down("server:server")


@contextlib.contextmanager
def role_locked_out(world):
    """PostgreSQL is there, and the server's role may not log in."""
    world.psql("alter role pycrudapi nologin", "select pg_terminate_backend(pid) from pg_stat_activity where usename = 'pycrudapi'")
    try:
        yield
    finally:
        world.psql("alter role pycrudapi login")
        until(world.stack.is_ready, "the service is ready again")


@contextlib.contextmanager
def errors(world):
    """Lists are refused while others are answered: some requests in a hundred fail."""
    with table_locked(world), worlds.Load(world):
        yield


@contextlib.contextmanager
def table_locked(world):
    """Somebody locks a table, and clients go on: with lists, and with keys of idempotency, whose transactions take a connection each."""
    (session,) = world.sessions(1, "begin; lock table passengers; select pg_sleep(120)")
    number = itertools.count()

    def create():
        credentials = {"authorization": f"Bearer {world.token}", "idempotency-key": f"{os.getpid()}-{next(number)}"}
        request(world.stack.port, "POST", "/v1/passengers", worlds.PASSENGER, credentials)

    try:
        with (
            repeating(lambda: request(world.stack.port, "GET", f"/v1/passengers?name=eq.{next(number)}"), times=24),
            repeating(create, times=12),
        ):
            yield
    finally:
        world.psql("select pg_terminate_backend(pid) from pg_stat_activity where query like 'begin; lock table%'")
        session.wait()


@contextlib.contextmanager
def slow_answers(world):
    """Changes wait for a row that somebody holds, a third of a second each."""
    with held_row(world, seconds=0.4) as change, repeating(change, times=6):
        yield


def one_in(world, count, request_that_burns):
    """Clients whose every `count`-th request is this one: so few burn the budget slowly, and the fast alert stays silent."""

    def turn():
        connection = http.client.HTTPConnection("127.0.0.1", world.stack.port, timeout=30)
        with contextlib.closing(connection):
            for _ in range(count - 1):
                connection.request("GET", "/hello")
                connection.getresponse().read()
        request_that_burns()

    return repeating(turn, times=6)


@contextlib.contextmanager
def few_errors(world):
    """The history of a row has a damaged entry, which is a 500 whenever somebody reads it."""
    credentials = {"authorization": f"Bearer {world.token}"}
    path = "/v1/passengers/" + request(world.stack.port, "POST", "/v1/passengers", worlds.PASSENGER, credentials).json()["uuid"]
    change = {"content-type": "application/merge-patch+json", **credentials}
    assert request(world.stack.port, "PATCH", path, '{"age": 30}', change).status == 200
    of_row = f"where uuid = '{path[-36:]}'"
    world.psql(f"update passengers_history set before = '[]' {of_row} and before is not null")

    def read():
        assert request(world.stack.port, "GET", f"{path}/history", headers=credentials).status == 500

    try:
        read()
        with one_in(world, 350, read):
            yield
    finally:
        world.psql(f"delete from passengers_history {of_row}")


@contextlib.contextmanager
def few_slow_answers(world):
    """One change in twenty-five requests, of a row that two sessions hold in turns, so that almost every change waits."""
    with held_row(world, seconds=0.6, sessions=2) as change, one_in(world, 25, change):
        yield


@contextlib.contextmanager
def held_row(world, seconds, sessions=1):
    """Sessions hold a row again and again; gives a change of it, which waits."""
    credentials = {"authorization": f"Bearer {world.token}"}
    path = "/v1/passengers/" + request(world.stack.port, "POST", "/v1/passengers", worlds.PASSENGER, credentials).json()["uuid"]
    hold = f"begin; select 1 from passengers where uuid = '{path[-36:]}' for update; select pg_sleep({seconds}); commit"
    change = {"content-type": "application/merge-patch+json", **credentials}
    with repeating(lambda: world.sessions(1, hold)[0].wait(), times=sessions):
        yield lambda: request(world.stack.port, "PATCH", path, '{"age": 30}', change)


@contextlib.contextmanager
def memory_used(world):
    """A program in the control group takes 94 % of its limit."""
    _, prefix = world.group
    code = f"taken = b'x' * {crowd.LIMIT * 94 // 100 - 8 * crowd.MIB}; input()"
    with subprocess.Popen([*prefix, sys.executable, "-c", code], stdin=subprocess.PIPE):
        # Its standard input is closed at the end, and so it ends.
        yield


@contextlib.contextmanager
def wrong_tokens(world):
    with repeating(lambda: request(world.stack.port, "GET", "/v1/passengers?limit=1", headers={"authorization": "Bearer wrong"}), pause=0.02):
        yield


@contextlib.contextmanager
def issuer_away(world):
    world.issuer.close()
    try:
        yield
    finally:
        world.start_issuer()


@contextlib.contextmanager
def restarts(world):
    for _ in range(3):
        began = started(world)
        os.kill(world.stack.server_pid(), signal.SIGKILL)
        until(lambda: started(world) not in (None, began), "a new server was scraped")
    yield


def started(world):
    samples = world.prometheus.query('process_start_time_seconds{job="pycrudapi"}')
    return samples[0][1] if samples else None


@contextlib.contextmanager
def collector_away(world):
    """Whoever brings it traces is hung up on."""
    answer, world.collector.handler = world.collector.handler, lambda _connection, _head: "close"
    try:
        with repeating(lambda: request(world.stack.port, "GET", "/hello"), pause=0.1):
            yield
    finally:
        world.collector.handler = answer


@contextlib.contextmanager
def log_unread(world):
    """Whoever reads the log has stopped, and more is written than can wait for it."""

    def dropped():
        metrics = request(world.stack.metrics_port, "GET", "/metrics").body.decode()
        return int(re.search(r"^log_lines_dropped_total (\d+)$", metrics, re.M)[1])

    def flood():
        # A line of nginx's for each, which are long.
        connection = http.client.HTTPConnection("127.0.0.1", world.stack.port, timeout=30)
        with contextlib.closing(connection):
            for _ in range(500):
                connection.request("GET", "/hello", headers={"user-agent": 4000 * "x"})
                connection.getresponse().read()

    with world.stack.process.unread():
        with repeating(flood, times=2):
            until(lambda: dropped() > 0, "lines are dropped")
        yield


@contextlib.contextmanager
def redis_away(world):
    world.redis.end()
    try:
        # That it is away is known from the first request that needs it.
        with repeating(lambda: request(world.stack.port, "GET", "/air_quality"), pause=0.2):
            yield
    finally:
        world.start_redis()


@contextlib.contextmanager
def certificate_old(world):
    world.certificate(days=5)
    world.program("nginx", "reload")
    try:
        yield
    finally:
        world.certificate(days=90)
        world.program("nginx", "reload")


@contextlib.contextmanager
def exporter_away(world):
    exporter = world.exporters["blackbox"]
    exporter.end()
    try:
        yield
    finally:
        world.exporters["blackbox"] = exporter.again()


@contextlib.contextmanager
def connections_taken(world):
    sessions = world.sessions(26, "select pg_sleep(120)")
    try:
        yield
    finally:
        world.psql("select pg_terminate_backend(pid) from pg_stat_activity where query like 'select pg_sleep%'")
        for session in sessions:
            session.wait()


@contextlib.contextmanager
def transactions_used_up(world):
    """Half a billion transactions, of which vacuum has frozen none."""
    world.end_standby()
    world.postgres.skip_transactions(500_000_000)
    world.start_standby()
    until(world.stack.is_ready, "the service is ready again")
    try:
        yield
    finally:
        for database in (worlds.DATABASE, "postgres", "template1"):
            world.postgres.psql(database, "vacuum (freeze)")


@contextlib.contextmanager
def replay_paused(world):
    world.standby.psql("select pg_wal_replay_pause()")
    write_wal(world, 6)
    try:
        yield
    finally:
        world.standby.psql("select pg_wal_replay_resume()")


@contextlib.contextmanager
def slot_forgotten(world):
    world.psql("select pg_create_physical_replication_slot('nobody', true)")
    write_wal(world, 70)
    try:
        yield
    finally:
        world.psql("select pg_drop_replication_slot('nobody')", "checkpoint")


def write_wal(world, segments):
    """So many segments of 16 MB, nearly all of it unused."""
    world.psql(*["select pg_logical_emit_message(false, 'test', 'x'), pg_switch_wal()"] * segments)


@contextlib.contextmanager
def archive_refuses(world):
    world.psql("alter system set archive_command = 'false'", "select pg_reload_conf()")
    try:
        # After three failures the archiver waits a minute or for another segment, and the alert would end before the fault.
        with repeating(lambda: write_wal(world, 1), pause=4):
            yield
    finally:
        world.psql("alter system set archive_command = 'true'", "select pg_reload_conf()")


@contextlib.contextmanager
def deadlocks(world):
    """Two sessions that take two locks in two orders, again and again."""

    def lock():
        sessions = [
            world.sessions(1, f"begin; select pg_advisory_xact_lock({a}); select pg_sleep(0.3); select pg_advisory_xact_lock({b}); commit")[0]
            for a, b in ((1, 2), (2, 1))
        ]
        for session in sessions:
            session.wait()

    with repeating(lock):
        yield


@contextlib.contextmanager
def vacuum_off(world):
    world.psql(
        "create table if not exists churned (n integer) with (autovacuum_enabled = off)",
        "insert into churned select generate_series(1, 30000)",
        "delete from churned where n > 5000",
    )
    try:
        yield
    finally:
        world.psql("vacuum churned", "drop table churned")


@contextlib.contextmanager
def disk_full(world):
    (world.small_disk / "full").write_bytes(bytes(15 * 2**20))
    try:
        yield
    finally:
        (world.small_disk / "full").unlink()


def run_of(kind, succeeded, age):
    """A row as the programs leave it."""
    return (
        "insert into maintenance_runs (kind, started_at, finished_at, succeeded, size_bytes, message) values "
        f"('{kind}', now() - interval '{age}' - interval '1 min', now() - interval '{age}', {succeeded}, 1000000, 'drill')"
    )


def good_runs(world):
    """A backup that was made just now, and restored."""
    world.psql(run_of("backup", True, "0 s"), run_of("restore-drill", True, "0 s"))


@contextlib.contextmanager
def old_runs(world):
    world.psql("delete from maintenance_runs", run_of("backup", True, "27 hours"), run_of("restore-drill", True, "9 days"))
    try:
        yield
    finally:
        good_runs(world)


@contextlib.contextmanager
def failed_runs(world):
    world.psql(run_of("backup", False, "0 s"), run_of("restore-drill", False, "0 s"))
    try:
        yield
    finally:
        good_runs(world)


# What the service begins with, before its first backup.
AT_FIRST = ["BackupMissing"]
# What is broken at the same time, and which alerts must tell of it. Faults of a round do not hide each other.
ROUNDS = {
    # On its own, because it restarts PostgreSQL and replaces the standby, which ReplicaDown tells of until they are back.
    "transaction ids": {transactions_used_up: ["PostgresTransactionIds"]},
    "postgres": {
        replay_paused: ["PostgresReplicationLag", "ReplicaDown"],
        slot_forgotten: ["PostgresSlotGrowth", "PostgresWalGrowth"],
        archive_refuses: ["PostgresArchiveFails"],
        deadlocks: ["PostgresDeadlocks"],
        vacuum_off: ["PostgresVacuumLate"],
        connections_taken: ["PostgresConnections"],
        disk_full: ["DiskFilling"],
        memory_used: ["MemoryNearLimit"],
    },
    "around": {
        wrong_tokens: ["AuthFailures"],
        issuer_away: ["IssuerUnreachable"],
        collector_away: ["TracesDropped"],
        log_unread: ["LogLinesDropped"],
        redis_away: ["RedisDown"],
        certificate_old: ["CertificateExpires"],
        old_runs: ["BackupOld", "RestoreDrillOld"],
    },
    "failed": {failed_runs: ["BackupFailed", "RestoreDrillFailed"], exporter_away: ["ExporterDown"], slow_answers: ["LatencyBurnFast"]},
    # Before the thousands of requests of the next round, which would be in the same windows.
    "few slow": {few_slow_answers: ["LatencyBurnSlow"]},
    "few": {few_errors: ["AvailabilityBurnSlow"]},
    "locked": {errors: ["QueueRefusals", "PoolWait", "AvailabilityBurnFast"]},
    "nginx": {nginx_down: ["NginxDown", "EntranceFails"]},
    "role": {role_locked_out: ["ServerNotReady"]},
    "server": {server_down: ["ServerDown"]},
    "restarts": {restarts: ["RestartLoop"]},
    "postgres away": {postgres_down: ["PostgresDown"]},
}


def impossible(world):
    """The faults that this machine cannot have, and why."""
    found = {}
    if not world.small_disk:
        found[disk_full] = "no file system can be mounted here"
    if not world.group:
        found[memory_used] = "no control group can be created here"
    return found
