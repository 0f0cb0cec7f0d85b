"""`pycrudapi upgrade-cluster` on real releases of PostgreSQL, Debian's and a newer one from npm: completed, interrupted, and refused."""

import contextlib
import os
import pathlib
import signal
import subprocess
import tempfile

import pytest

import support
from support import PASSENGER, PROGRAM, REPOSITORY, Stack, until

TIMEOUT_SECONDS = 240
OLD = pathlib.Path("/usr/lib/postgresql/15/bin")
OTHERS_TABLE = """
    create role clerk login password 'of a clerk'; create schema others; grant usage on schema others to clerk;
    create table others.things (name text primary key, at timestamptz not null); grant select on others.things to clerk;
    insert into others.things select 'thing ' || n, to_timestamp(n) from generate_series(1, 2000) n;
    create sequence others.numbers; select setval('others.numbers', 41);
    create database elsewhere; alter role clerk set work_mem = '8MB'; alter system set work_mem = '5MB'
"""
CLERK = """
    select a.rolpassword like 'SCRAM-SHA-256%', r.rolconfig from pg_authid a join pg_roles r using (oid) where a.rolname = 'clerk'
"""
# Removed in PostgreSQL 17.
UNKNOWN_THERE = "adminpack"
# Files that appear one after another, while the new cluster is created, started, filled and compared.
SIGNS = ("data.new", "data", "data/postmaster.pid", "run/.s.PGSQL.5432")


@pytest.fixture(scope="module")
def newer():
    done = subprocess.run([REPOSITORY / "scripts/fetch-postgres", "17"], capture_output=True, text=True, check=True)
    return pathlib.Path(done.stdout.strip())


@pytest.fixture
def old(directory):
    """A stack on the old release, with rows, a token, a repeated request and objects created by others."""
    stack = Stack(directory, SEED="false", PG_BIN=OLD).start()
    home = pathlib.Path(stack.data_dir) / "embedded"
    try:
        headers = {"idempotency-key": '"once"'}
        made = stack.request("POST", "/v1/passengers", PASSENGER, headers)
        assert made.status == 201, made
        changed = stack.request("PATCH", "/v1/passengers/" + made.json()["uuid"], {"age": 40})
        assert changed.status == 200, changed
        sql(home, OTHERS_TABLE)
        yield stack, home, made, changed
    finally:
        stack.destroy()


def sql(home, text):
    done = subprocess.run(
        ["psql", "-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1", "-h", home / "run", "-U", "postgres"],
        input=text, capture_output=True, text=True, timeout=TIMEOUT_SECONDS,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def environment(home, **more):
    return support.clean_environment(DATA_DIR=home.parent, PATH=os.environ["PATH"], **more)


def run(home, *arguments, **more):
    done = subprocess.run(
        [PROGRAM, *arguments], env=environment(home, **more), cwd="/", capture_output=True, text=True, timeout=TIMEOUT_SECONDS
    )
    return done.returncode, done.stdout + done.stderr


def version(home, name="data"):
    return (home / name / "PG_VERSION").read_text().strip()


def expect_old_serves(home, made):
    assert version(home) == "15"
    assert not (home / "data-15").exists()
    status, rows = run(home, "export", PG_BIN=OLD)
    assert status == 0 and made.json()["uuid"] in rows, rows


def test_everything_survives_and_the_old_cluster_is_kept(old, newer):
    stack, home, made, changed = old
    status, said = run(home, "upgrade-cluster", PG_BIN=newer)
    assert status == 1 and "in use by another server" in said, said
    status, token = run(home, "token", "create", "--name=before", "--scope=*:read", PG_BIN=OLD)
    assert status == 0, token
    stack.stop()

    # The new release does not read the old cluster, and reports the remedy.
    status, said = run(home, "migrate", PG_BIN=newer)
    assert status == 1 and "pycrudapi upgrade-cluster" in said and "15" in said and "17" in said, said
    status, said = run(home, "upgrade-cluster", "--old-bin=/nowhere", PG_BIN=newer)
    assert status == 1 and "--old-bin" in said and "postgresql 15" in said, said
    status, said = run(home, "upgrade-cluster", PG_BIN=OLD)
    assert status == 1 and "PG_BIN has postgresql 15" in said, said

    status, said = run(home, "upgrade-cluster", PG_BIN=newer)
    assert status == 0, said
    assert "copied and compared: " in said and f"{home}/data-15" in said and "work_mem" in said, said
    assert (version(home), version(home, "data-15")) == ("17", "15")

    stack.settings["PG_BIN"] = str(newer)
    stack.start()
    path = "/v1/passengers/" + made.json()["uuid"]
    found = stack.request("GET", path)
    assert found.headers["etag"] == changed.headers["etag"] and found.body == changed.body
    assert len(stack.request("GET", path + "/history").json()) == 2
    again = stack.request("POST", "/v1/passengers", PASSENGER, {"idempotency-key": '"once"'})
    assert (again.status, again.body) == (201, made.body)
    assert again.headers["idempotency-replayed"] == "true"
    later = stack.request("PATCH", path, {"age": 41}, {"if-match": found.headers["etag"]})
    assert later.status == 200, later
    of = lambda answer: int(answer.headers["etag"].strip('"').split("-")[-1], 36)  # noqa: E731
    assert later.headers["etag"] != changed.headers["etag"] and of(later) > of(changed)
    assert sql(home, "select count(*) from others.things; select nextval('others.numbers')") == "2000\n42"
    assert sql(home, CLERK) == "t|{work_mem=8MB}"
    assert "elsewhere" in sql(home, "select datname from pg_database")
    stack.stop()
    status, said = run(home, "token", "list", PG_BIN=newer)
    assert status == 0 and "before" in said, said

    # A second run has nothing to do, and reverting means renaming two directories.
    status, said = run(home, "upgrade-cluster", PG_BIN=newer)
    assert status == 1 and "PG_BIN has postgresql 17" in said, said
    (home / "data").rename(home / "data-17")
    (home / "data-15").rename(home / "data")
    expect_old_serves(home, made)


def test_an_upgrade_that_is_cut_off_or_refused_leaves_the_old_cluster_serving(old, newer):
    stack, home, made, _ = old
    sql(home, f"create extension {UNKNOWN_THERE}")
    stack.stop()
    with tempfile.TemporaryDirectory() as place, small_disk(place):
        subprocess.run(["cp", "-a", home, place], check=True)
        status, said = run(pathlib.Path(place) / "embedded", "upgrade-cluster", PG_BIN=newer)
        assert status == 1 and "MiB free, but the new cluster requires up to" in said, said
        assert not (pathlib.Path(place) / "embedded" / "upgrading").exists()

    status, said = run(home, "upgrade-cluster", PG_BIN=newer)
    assert status == 1 and "psql failed" in said and UNKNOWN_THERE in said, said
    assert not (home / "upgrading").exists()
    expect_old_serves(home, made)
    stack.start()
    sql(home, f"drop extension {UNKNOWN_THERE}")
    stack.stop()

    for sign in SIGNS:
        killed = support.Process([PROGRAM, "upgrade-cluster"], environment(home, PG_BIN=newer))
        until(lambda: (home / "upgrading" / sign).exists() or not killed.running, f"{sign} is there")
        killed.signal(signal.SIGKILL)
        killed.wait()
        expect_old_serves(home, made)

    # Interrupted after the two were exchanged, before the old one was renamed.
    status, said = run(home, "upgrade-cluster", PG_BIN=newer)
    assert status == 0, said
    (home / "upgrading").mkdir()
    (home / "data-15").rename(home / "upgrading" / "data")
    status, said = run(home, "upgrade-cluster", PG_BIN=newer)
    assert status == 1 and version(home, "data-15") == "15" and version(home) == "17", said

    # A kept old cluster is not overwritten.
    (home / "data").rename(home / "data-17")
    subprocess.run(["cp", "-a", home / "data-15", home / "data"], check=True)
    status, said = run(home, "upgrade-cluster", PG_BIN=newer)
    assert status == 1 and f"{home}/data-15 is the cluster that an earlier upgrade has kept" in said, said


@contextlib.contextmanager
def small_disk(place):
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=200m,mode=755", "none", place], capture_output=True, text=True)
    if mounted.returncode != 0:
        pytest.skip(f"a small disk takes root and mount: {mounted.stderr}")
    try:
        yield
    finally:
        subprocess.run(["umount", place], check=True)
