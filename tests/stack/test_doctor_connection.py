"""`pycrudapi doctor` on a PostgreSQL that rejects sessions, writes, or commits: each cause has its own remedy, which fixes it."""

import contextlib
import pathlib
import re
import signal
import subprocess

import pytest

from doctor import Doctor, Standby
from needs import run
from postgres import Cluster
from support import free_port, until

DATABASE = "looked_at"
SETTINGS = {"shared_buffers": "16MB", "max_connections": "12", "superuser_reserved_connections": "3", "wal_init_zero": "off"}
# Only the administrator and `app` may connect, with the authentication methods that the tests set.
HBA = """
local all all trust
host replication postgres 127.0.0.1/32 trust
host all postgres 127.0.0.1/32 trust
hostssl tls_only all 127.0.0.1/32 trust
host tls_only all 127.0.0.1/32 reject
host all app 127.0.0.1/32 scram-sha-256
host all open,unknown,limited,locked 127.0.0.1/32 trust
"""


class Server:
    """A cluster with roles that may connect and roles that may not, and the doctor for it."""

    def __init__(self, cluster):
        self.cluster = cluster
        data = pathlib.Path(cluster.folder) / "data"
        (data / "pg_hba.conf").write_text(HBA)
        certificate = ["-out", data / "server.crt", "-keyout", data / "server.key"]
        run(["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "9", "-subj", "/CN=elsewhere.example", "-addext", "basicConstraints=critical,CA:FALSE", *certificate], cwd="/")
        for name in ("server.crt", "server.key", "pg_hba.conf"):
            run(["chown", "--reference", data / "PG_VERSION", data / name], cwd="/")
            (data / name).chmod(0o600)
        self.certificate = data / "server.crt"
        for name in (DATABASE, "tls_only", "closed"):
            cluster.create(name)
        self.psql("revoke connect on database closed from public", "select pg_reload_conf()")
        for role in ("app login password 'right'", "open login", "limited login connection limit 0", "locked nologin"):
            self.psql(f"create role {role}")
        for user in ("app:right", "open"):
            self.doctor(user).program("migrate")

    def psql(self, *commands):
        return self.cluster.psql(DATABASE, *commands)

    def url(self, user="open", database=DATABASE, query="", port=None):
        return f"postgres://{user}@127.0.0.1:{port or self.cluster.port}/{database}{query}"

    def doctor(self, *how, **named):
        return Doctor(DATABASE_URL=self.url(*how, **named), MIGRATE_USER="postgres")

    @contextlib.contextmanager
    def altered(self, setting, value):
        self.psql(f"alter system set {setting} = {value}", "select pg_reload_conf()")
        try:
            yield
        finally:
            self.psql(f"alter system reset {setting}", "select pg_reload_conf()")


@pytest.fixture(scope="module")
def server():
    with Cluster(SETTINGS) as cluster:
        yield Server(cluster)


REFUSED = "cannot connect to the database"


def test_each_refusal_has_its_own_remedy(server):
    for user, database, words, mend in (
        ("app:wrong", DATABASE, "password authentication failed", "correct DATABASE_URL, .*password app"),
        ("app", DATABASE, "password missing", "requires a password: set it in DATABASE_URL"),
        ("app:right", "nowhere", 'database "nowhere" does not exist', "create database nowhere owner app;"),
        ("unknown", DATABASE, 'role "unknown" does not exist', "create role unknown login;"),
        ("locked", DATABASE, "not permitted to log in", "alter role locked login;"),
        ("limited", DATABASE, 'too many connections for role "limited"', "alter role limited connection limit -1;"),
        ("open", "closed", "CONNECT privilege", "^grant connect on database closed to open;$"),
        ("nobody", DATABASE, "no pg_hba.conf entry", f"host {DATABASE} nobody ADDRESS/32 scram-sha-256.*pg_reload_conf"),
    ):
        found = server.doctor(user, database).remedy("wrong", f"{REFUSED}.*{words}.*127.0.0.1:{server.cluster.port}")
        assert re.search(mend, found), found
    server.psql("grant connect on database closed to open")
    assert "pycrudapi migrate" in server.doctor("open", "closed").remedy("wrong", "version 0")


def test_parts_of_an_address_are_named_by_their_settings(server):
    parts = Doctor(POSTGRES_HOST="127.0.0.1", POSTGRES_PORT=str(server.cluster.port), POSTGRES_USER="app", POSTGRES_PASSWORD="wrong", POSTGRES_DB=DATABASE)
    assert "correct POSTGRES_PASSWORD or POSTGRES_USER" in parts.remedy("wrong", REFUSED)
    assert "correct POSTGRES_DB" in parts.with_settings(POSTGRES_PASSWORD="right", POSTGRES_DB="nowhere").remedy("wrong", REFUSED)
    assert "POSTGRES_HOST and POSTGRES_PORT" in parts.with_settings(POSTGRES_PORT="1").remedy("wrong", REFUSED)
    migrator = Doctor(DATABASE_URL=server.url(), MIGRATE_USER="app", MIGRATE_PASSWORD="planted-secret")
    assert "correct MIGRATE_PASSWORD or MIGRATE_USER" in migrator.remedy("wrong", "migrating role: cannot connect")
    assert "planted-secret" not in migrator.program("doctor", check=False).stdout
    replica = server.doctor().with_settings(DATABASE_READ_URL="postgres://127.0.0.1:1")
    assert "correct DATABASE_READ_URL" in replica.remedy("warning", "lists are not read there: cannot connect")


def test_an_address_without_a_server_has_its_own_remedy(server):
    for url, mend in (
        (server.url(port=1), "no server listens on 127.0.0.1:1: start PostgreSQL there"),
        ("postgres://x@nowhere.invalid/x", "the host name cannot be resolved: getent hosts nowhere.invalid"),
        (f"host={server.cluster.folder}/none user=x dbname=x", "there is no such socket"),
    ):
        assert mend in Doctor(DATABASE_URL=url).remedy("wrong", REFUSED), url


def test_each_of_several_hosts_is_reported(server):
    port, other = server.cluster.port, free_port()
    url = f"postgres://open@127.0.0.1:{other},127.0.0.1:{port}/{DATABASE}?target_session_attrs=read-only"
    doctor = Doctor(DATABASE_URL=url)
    assert f"no server listens on 127.0.0.1:{other}" in doctor.remedy("wrong", f"refused.*127.0.0.1:{other}")
    assert "remove target_session_attrs=read-only" in doctor.remedy("wrong", f"target_session_attrs.*127.0.0.1:{port}")


def test_tls_that_only_one_side_requires_is_reported(server):
    with_tls = server.doctor(query="?sslmode=require")
    assert "PostgreSQL does not offer TLS: set ssl = on" in with_tls.remedy("wrong", REFUSED)
    with server.altered("ssl", "on"):
        with_tls.has_no_finding(REFUSED)
        without = server.doctor(database="tls_only", query="?sslmode=disable")
        assert "sslmode=require" in without.remedy("wrong", "pg_hba.conf rejects")
        trusted = f"sslrootcert={server.certificate}"
        for query, mend in (
            ("?sslmode=verify-full&sslrootcert=/etc/ssl/certs/ca-certificates.crt", "set the CA|issue a new"),
            (f"?sslmode=verify-full&{trusted}", "use a host name that is in PostgreSQL's certificate|issue a new"),
        ):
            found = server.doctor(query=query).remedy("wrong", REFUSED)
            assert re.search(mend, found), found


def test_exhausted_connections_are_reported(server):
    sessions_of_open = "select count(*) from pg_stat_activity where usename = 'open'"
    with contextlib.ExitStack() as sessions:

        # Sessions that earlier tests have just closed may still have a slot: a rejected psql is started again.
        def nine_are_open():
            for _ in range(9 - int(server.psql(sessions_of_open))):
                command = ["psql", "-XqAt", server.url("open")]
                one = sessions.enter_context(subprocess.Popen(command, bufsize=0, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL))
                sessions.callback(one.stdin.close)
                with contextlib.suppress(BrokenPipeError):
                    one.stdin.write(b"select 'connected';\n")
                one.stdout.readline()  # empty if the session was rejected
            return server.psql(sessions_of_open) == "9"

        until(nine_are_open, "nine sessions")
        mend = server.doctor().remedy("wrong", REFUSED)
        assert "pg_stat_activity" in mend and "POOL_SIZE" in mend
    server.doctor().has_no_finding(REFUSED)


def test_a_session_that_is_read_only_is_reported_and_its_sql_fixes_it(server):
    doctor = server.doctor()
    for fault, where in (
        (f"alter database {DATABASE} set", "database"),
        ("alter role open set", "user"),
        (f"alter role open in database {DATABASE} set", "database user"),
        ("alter role all set", "global"),
        ("alter system set", "configuration file"),
    ):
        server.psql(f"{fault} default_transaction_read_only = on", "select pg_reload_conf()")
        sql = doctor.remedy("wrong", f"sessions of open are read-only .*set by: {where}\\)")
        # As it is printed, in a session that is read-only too.
        server.psql(*[sql] if sql.startswith("begin") else [f"{part};" for part in sql.partition(" or ")[0].split(";") if part.strip()])
        doctor.has_no_finding("read-only")
    options = server.doctor(query="?options=-c%20default_transaction_read_only%3Don")
    assert "`options` in DATABASE_URL" in options.remedy("wrong", "read-only .*set by: client")


def test_a_missing_synchronous_standby_is_reported_until_it_connects(server):
    doctor = server.doctor()
    with server.altered("synchronous_standby_names", "'FIRST 1 (mirror)'"):
        mend = doctor.remedy("wrong", "writes block: .*FIRST 1 .mirror.* requires 1 standbys, 0 of which")
        assert "application_name" in mend and "alter system set synchronous_standby_names = ''" in mend
        # A standby with another name does not help, and is named.
        with Standby(server.cluster, "other", SETTINGS):
            doctor.remedy("wrong", "writes block: .*connected: other")
        with Standby(server.cluster, "mirror", SETTINGS):
            doctor.has_no_finding("writes block")
        # Who may not see it says so.
        blind = Doctor(DATABASE_URL=server.url())
        assert blind.remedy("warning", "privilege to see whether a standby") == "grant pg_read_all_stats to open;"
    doctor.has_no_finding("writes block")


def test_a_standby_in_place_of_the_primary_is_reported(server):
    with Standby(server.cluster, "mirror", SETTINGS) as standby:
        doctor = server.doctor(port=standby.port)
        for query in ("", "?target_session_attrs=read-write"):
            mend = server.doctor(port=standby.port, query=query).remedy("wrong", "it is a standby: writes are rejected")
            assert "target_session_attrs=read-write" in mend
        found = doctor.with_settings(DATABASE_READ_URL=server.url(port=standby.port)).findings()
        assert not [one for one in found if "the check was aborted" in one["what"]], found
        # Open sessions keep it from ending, and it takes no new ones.
        command = ["psql", "-XqAt", server.url("postgres", port=standby.port)]
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as session:
            session.stdin.write("select 1;\n")
            session.stdin.flush()
            assert session.stdout.readline() == "1\n"
            standby._process.send_signal(signal.SIGTERM)
            mend = doctor.remedy("wrong", "shutting down")
            assert "wait and repeat the check" in mend
            session.stdin.close()


def test_a_standby_without_hot_standby_is_reported(server):
    with Standby(server.cluster, "cold", {**SETTINGS, "hot_standby": "off"}) as standby:
        assert "hot_standby = on" in server.doctor(port=standby.port).remedy("wrong", REFUSED)


def test_the_privileges_that_migrating_requires_are_reported_for_an_empty_database(server):
    server.cluster.create("empty")
    doctor = Doctor(DATABASE_URL=server.url("open", "empty"))
    mend = doctor.remedy("wrong", "open lacks create on the schema public, which migrations require").partition(";")[0]
    server.cluster.psql("empty", mend)
    doctor.has_no_finding("lacks create")
    server.cluster.psql("empty", "create schema elsewhere", "alter role postgres in database empty set search_path = elsewhere")
    Doctor(DATABASE_URL=server.url("open", "empty"), MIGRATE_USER="postgres").program("migrate")
    assert server.cluster.psql("empty", "select to_regclass('elsewhere.refinery_schema_history') is not null") == "t"
    server.cluster.psql("empty", "revoke usage on schema elsewhere from open")
    server.cluster.psql("empty", doctor.remedy("wrong", "open lacks usage on the schema elsewhere"))
    server.cluster.psql("empty", doctor.remedy("wrong", "the tables are in the schema elsewhere, which is not in search_path"))
    doctor.has_no_finding("search_path")
