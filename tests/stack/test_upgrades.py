"""The current release migrates a database of each earlier release, and serves its rows unchanged while the old release is running."""

import contextlib
import hashlib

import pytest

import old_releases
from old_releases import KEPT, LATEST, MIGRATIONS, PATCHED, REPLACED
from postgres import Cluster
from support import PROGRAM, Process, clean_environment, free_port, request, until

# Released migrations are never changed: refinery rejects a database in which a migration with another text was applied.
COMMITTED = {
    "0001_passengers.sql": "89bef6070f37f9e25efe05307a41b40f2eabbaa67e92426f9b6851985cb80f42",
    "0002_air_quality.sql": "6921091e54e80f31044084267a946937bab6eb427dff2cfc28d922a8950b664e",
    "0003_steps.sql": "e387aa6dbebbb890b7beed2d5eb3b7e7105ea615bcd5984c4e28e915c109c932",
    "0004_versions.sql": "294ca155b1e7f980e8a9607901eed2ff026938e7fdf8e6caf2d69eacfe1e8fa4",
    "0005_idempotency_keys.sql": "372414351ac2d63ae5983be3b42e87e58ed8e6284d52b7f50998801691cb371a",
    "0006_passenger_lists.sql": "2e9322492f1284a69c5ee160a692392371979a42c7ea23fd0413eb1ae1a8e8aa",
    "0007_analyze.sql": "3d498f521bc455bdc2896aa0842ee61f12b88d245a1356f76f4e8174af2b5e15",
    "0008_key_index_is_newest.sql": "ef16773f14abf50ae75fb6ab7010ea6f63482ef36cfaef153408fbd292b8e114",
    "0009_analyze_described_tables.sql": "ac16e6f456d0303d044aec3c831c9a33a0418b312af7d78c7a09c311a1d79520",
    "0010_station_names.sql": "777abe94e05c8f597500e4f4a8a64eac1d1729e045f9515fbf62bc48705b3cb0",
    "0011_api_tokens.sql": "21a2b9e5eab3f54aac81133cca0eb6b3402020f855dffe64c18912854c9fa27c",
    "0012_maintenance_runs.sql": "bfa862041f8e25755a59e4ed0e8739b9f88b670f86032c86b778af17277c63b5",
}


@pytest.fixture(scope="module")
def cluster():
    with Cluster({"shared_buffers": "32MB", "max_wal_size": "1GB"}) as made:
        yield made


@contextlib.contextmanager
def serving(cluster, database, **settings):
    """The current server on a database; yields `ask(method, path, …)`."""
    port = free_port()
    environment = clean_environment(
        DATABASE_URL=cluster.url(database), LISTEN=f"127.0.0.1:{port}", METRICS_LISTEN="off", AUTH="off", **settings
    )
    process = Process([PROGRAM, "serve"], environment)

    def ask(*arguments, **options):
        return request(port, *arguments, **options)

    def is_ready():
        with contextlib.suppress(OSError):
            return ask("GET", "/readyz").status == 200

    try:
        until(lambda: not process.running or is_ready(), "the server is ready", 60)
        assert process.running, process.output
        yield ask
    finally:
        process.signal(9)
        process.wait()
        print(process.output[-3000:])


def kept(cluster, database, version):
    """{table: its rows with the columns of the release of that version}"""
    columns = {
        "passengers": old_releases.COLUMNS + (", version" if version >= 4 else ""),
        "seeds": "name, seeded_at",
        "air_quality": "*",
        "steps": "*",
        "idempotency_keys": "*",
        "api_tokens": "*",
    }
    since = {"passengers": 1, "seeds": 1, "air_quality": 2, "steps": 3, "idempotency_keys": 5, "api_tokens": 11}
    # A newer release loads data sets that the old one did not have, and records that.
    tables = {"seeds": "seeds where name = 'passengers'"}
    rows = "select coalesce(jsonb_agg(to_jsonb(t) order by to_jsonb(t)), '[]') from (select {} from {}) t"
    return {
        name: cluster.psql(database, rows.format(columns[name], tables.get(name, name)))
        for name, first in since.items()
        if first <= version
    }


def served(ask, version):
    """The rows of the old release as the current one serves them."""
    found = {"passengers": sorted(ask("GET", "/v1/passengers").json(), key=lambda row: row["uuid"])}
    if version >= 2:
        found["air quality"] = ask("GET", "/air_quality?entity=station-1").json()["entities"]
    if version >= 3:
        steps = ask("GET", "/v1/steps?format=json").json()["steps"]
        found["steps"] = [(step["component"], step["version"], step["owner"], step["status"]) for step in steps]
    return found


def expected(version, steps):
    row = {
        "survived": True,
        "passengerClass": 1,
        "sex": "female",
        "age": None,
        "siblingsOrSpousesAboard": 1,
        "parentsOrChildrenAboard": 0,
    }
    found = {
        "passengers": [
            {"uuid": KEPT, "name": 'Zoë O\'Neill, "Mrs"', "fare": 7.25, **row},
            {"uuid": REPLACED, "name": "After", "fare": 512.3292, **row},
            {"uuid": PATCHED, "name": "Patched", "fare": 9.0, **row},
        ]
    }
    if version >= 2:
        values = {"so2": 1.5, "no2": None, "co": 0.0, "o3": 3.0, "pm10": 1e300, "pm2_5": 2.5}
        found["air quality"] = [
            {"id": "station-1", "values": [{"timestamp": "2026-01-31T12:00:00.123456Z", **values}]}
        ]
    if version >= 3:
        found["steps"] = [("gateway", "1.2.3", "ops", "DEPLOYED")] * steps
    return found


def test_a_migration_that_was_committed_stays_as_it_is():
    found = {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in MIGRATIONS}
    assert found == COMMITTED, "add a new migration instead, or the hash of the new one here"


@pytest.mark.parametrize("version", range(1, LATEST + 1))
def test_a_database_of_each_release_is_served_unchanged_and_beside_that_release(cluster, version):
    database = f"release_{version}"
    old_releases.apply(cluster, database, version)
    # As the release records loaded data sets: they are not loaded again.
    for name in ("passengers", "air_quality")[:version]:
        cluster.psql(database, f"insert into seeds (name) values ('{name}') on conflict do nothing")
    old_releases.run(cluster, database, version)
    before = kept(cluster, database, version)
    with serving(cluster, database) as ask:
        assert kept(cluster, database, version) == before
        assert served(ask, version) == expected(version, 1)
        # The old release keeps running, and each sees the changes of the other.
        tag = ask("GET", f"/v1/passengers/{REPLACED}").headers["etag"]
        for uuid in (KEPT, REPLACED, PATCHED):
            assert ask("DELETE", f"/v1/passengers/{uuid}").status == 204
        old_releases.run(cluster, database, version)
        assert served(ask, version) == expected(version, 2)
        stale = ask("PATCH", f"/v1/passengers/{REPLACED}", {"fare": 1}, {"if-match": tag})
        assert stale.status == 412, stale
        assert ask("PATCH", f"/v1/passengers/{PATCHED}", {"fare": 11}).status == 200
        assert cluster.psql(database, f"select fare from passengers where uuid = '{PATCHED}'") == "11"


def test_today_s_release_serves_what_the_next_one_has_migrated(cluster):
    # Downgrading by one release: this one ignores what the next one adds (expand).
    database = "next_release"
    old_releases.apply(cluster, database, LATEST)
    old_releases.run(cluster, database, LATEST)
    with serving(cluster, database, SEED="false"):
        pass
    cluster.psql(
        database,
        f"insert into refinery_schema_history values ({LATEST + 1}, 'of_the_next', '2027-01-01T00:00:00Z', '1')",
        "alter table passengers add column of_the_next text default 'x'",
        "create table of_the_next (id int primary key)",
    )
    with serving(cluster, database, SEED="false") as ask:
        assert served(ask, LATEST) == expected(LATEST, 1)
        assert ask("PATCH", f"/v1/passengers/{KEPT}", {"fare": 12}).json()["fare"] == 12
        assert ask("DELETE", f"/v1/passengers/{REPLACED}").status == 204
