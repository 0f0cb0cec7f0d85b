"""The schemas of earlier releases, and the literal statements that they execute.

`apply(cluster, database, version)` creates the schema of the release whose newest migration has that version. STATEMENTS are
run on it in their order to create rows, and again while a newer release serves the same database.
"""

from support import REPOSITORY

MIGRATIONS = sorted((REPOSITORY / "migrations").glob("*.sql"))
LATEST = len(MIGRATIONS)


def checksum(name, version, text):
    """The checksum that refinery stores with a migration: SipHash-1-3 with a zero key over name, version and text, as Rust hashes them."""
    data = name.encode() + b"\xff" + version.to_bytes(4, "little") + text.encode() + b"\xff"
    mask = 2**64 - 1
    v0, v1, v2, v3 = 0x736F6D6570736575, 0x646F72616E646F6D, 0x6C7967656E657261, 0x7465646279746573

    def rotated(value, bits):
        return (value << bits | value >> (64 - bits)) & mask

    def round_():
        nonlocal v0, v1, v2, v3
        v0 = (v0 + v1) & mask
        v1 = rotated(v1, 13) ^ v0
        v0 = rotated(v0, 32)
        v2 = (v2 + v3) & mask
        v3 = rotated(v3, 16) ^ v2
        v0 = (v0 + v3) & mask
        v3 = rotated(v3, 21) ^ v0
        v2 = (v2 + v1) & mask
        v1 = rotated(v1, 17) ^ v2
        v2 = rotated(v2, 32)

    padded = data + bytes(7 - len(data) % 8) + bytes([len(data) & 0xFF])
    for start in range(0, len(padded), 8):
        word = int.from_bytes(padded[start : start + 8], "little")
        v3 ^= word
        round_()
        v0 ^= word
    v2 ^= 0xFF
    for _ in range(3):
        round_()
    return v0 ^ v1 ^ v2 ^ v3


def apply(cluster, database, version):
    """Creates the schema of a release in the database."""
    cluster.create(database)
    history = "create table refinery_schema_history (version int4 primary key, name varchar(255), applied_on varchar(255), checksum varchar(255))"
    cluster.psql(database, history)
    for path in MIGRATIONS[:version]:
        number, name = int(path.name[:4]), path.stem[5:]
        text = path.read_text(encoding="utf-8")
        applied = f"insert into refinery_schema_history values ({number}, '{name}', '2026-11-20T19:32:30Z', '{checksum(name, number, text)}')"
        cluster.psql(database, f"begin; {text}; {applied}; commit")


# --- the statements -------------------------------------------------------------------------------------------------

KEPT, REPLACED, PATCHED, DELETED = (f"0192a000-0000-7000-8000-00000000000{digit}" for digit in "1234")

COLUMNS = "uuid, survived, passenger_class, name, sex, age, siblings_or_spouses_aboard, parents_or_children_aboard, fare"
INSERT = f"insert into passengers ({COLUMNS}) values ($1, $2, $3, $4, $5, $6, $7, $8, $9) returning"
SET = (
    "survived = $2, passenger_class = $3, name = $4, sex = $5, age = $6, siblings_or_spouses_aboard = $7, "
    "parents_or_children_aboard = $8, fare = $9"
)
WHERE_MET = (
    "where p.uuid = d.uuid and (d.required is null or p.version = any(d.required::int8[])) "
    "and (d.refused is null or p.version <> all(d.refused::int8[]))"
)


def passenger(uuid, name, fare):
    return f"'{uuid}', true, 1::int2, '{name}', 'female', null, 1, 0, {fare}"


# (first version of the schema, last version, statement, parameters)
STATEMENTS = [
    # The first releases: one row per statement, no row versions.
    (1, 3, f"{INSERT} {COLUMNS}", passenger(KEPT, "Zoë O''Neill, \"Mrs\"", 7.25)),
    (1, 3, f"{INSERT} {COLUMNS}", passenger(REPLACED, "Before", 8)),
    (1, 3, f"{INSERT} {COLUMNS}", passenger(PATCHED, "Patched", 9)),
    (1, 3, f"{INSERT} {COLUMNS}", passenger(DELETED, "Deleted", 10)),
    (1, 3, f"update passengers set {SET} where uuid = $1 returning {COLUMNS}", passenger(REPLACED, "After", 512.3292)),
    (1, 3, "delete from passengers where uuid = $1 returning uuid", f"'{DELETED}'"),
    (1, None, f"select {COLUMNS} from passengers where uuid > $1 order by uuid limit $2", f"'{KEPT}', 10"),
    # With row versions, and many rows per statement.
    (4, None, f"{INSERT} uuid, version", passenger(KEPT, "Zoë O''Neill, \"Mrs\"", 7.25)),
    (
        4, None,
        f"insert into passengers ({COLUMNS}) select * from unnest($1::uuid[], $2::bool[], $3::int2[], $4::text[], $5::text[], "
        "$6::float8[], $7::int4[], $8::int4[], $9::float8[]) returning uuid, version",
        f"array['{REPLACED}', '{PATCHED}', '{DELETED}']::uuid[], array[true, true, true], array[1, 1, 1]::int2[], "
        "array['Before', 'Patched', 'Deleted'], array['female', 'female', 'female'], array[null, null, null]::float8[], "
        "array[1, 1, 1], array[0, 0, 0], array[8, 9, 10]::float8[]",
    ),
    (
        4, None,
        f"update passengers set {SET}, version = nextval('passengers_version_seq') where uuid = $1 "
        "and ($10::int8[] is null or version = any($10)) and ($11::int8[] is null or version <> all($11)) returning uuid, version",
        f"{passenger(REPLACED, 'After', 512.3292)}, null, array[1]::int8[]",
    ),
    (
        4, None,
        "update passengers p set survived = coalesce(d.survived, p.survived), fare = coalesce(d.fare, p.fare), "
        "version = nextval('passengers_version_seq') from unnest($1::uuid[], $2::bool[], $3::float8[], $4::text[], $5::text[]) "
        f"as d (uuid, survived, fare, required, refused) {WHERE_MET} returning p.uuid, p.version",
        f"array['{PATCHED}']::uuid[], array[null]::bool[], array[9]::float8[], array[null]::text[], array[null]::text[]",
    ),
    (
        4, None,
        "delete from passengers p using unnest($1::uuid[], $2::text[], $3::text[]) with ordinality as d (uuid, required, refused, place) "
        f"{WHERE_MET} returning d.place",
        f"array['{DELETED}']::uuid[], array[null]::text[], array[null]::text[]",
    ),
    # Air quality: an import replaces all rows in one transaction.
    (2, None, "delete from air_quality", ""),
    (
        2, None,
        "insert into air_quality (measured_at, id_entity, so2, no2, co, o3, pm10, pm2_5) values ($1, $2, $3, $4, $5, $6, $7, $8)",
        "'2026-01-31T12:00:00.123456Z', 'station-1', 1.5, null, 0, 3, 1e300, 2.5",
    ),
    (
        2, None,
        "select g.generation, a.id_entity, a.measured_at, a.so2 from air_quality_generation g left join air_quality a "
        "on a.measured_at >= $1 and a.measured_at <= $2",
        "'2026-01-01', '2026-12-31'",
    ),
    # Steps are only inserted.
    (
        3, None,
        "insert into steps (ts, component, version, owner, status) select greatest(clock_timestamp(), max(ts)), $1::text, $2::text, "
        "$3::text, $4::text from steps where component = $1 and version = $2 returning id, ts, component, version, owner, status",
        "'gateway', '1.2.3', 'ops', 'DEPLOYED'",
    ),
    (
        3, None,
        "select id, ts, component, version, owner, status from steps where (ts, id) > ($1, $2) and ts <= $3 order by ts, id limit $4",
        "'2026-01-01', 0, '2100-01-01', 10",
    ),
    (
        5, None,
        "insert into idempotency_keys (key, fingerprint, status, content_type, location, etag, body) values ($1, $2, $3, $4, $5, $6, $7) "
        "on conflict (key) do update set fingerprint = excluded.fingerprint, created_at = now(), status = excluded.status, "
        "content_type = excluded.content_type, location = excluded.location, etag = excluded.etag, body = excluded.body",
        "'of-before', '\\x00000000000000000000000000000000', 201::int2, 'application/json', '/v1/passengers/of-before', '\"7\"', "
        "'{\"of\":\"before\"}'",
    ),
    (7, None, "select pycrudapi_analyze($1, $2)", "'passengers', 1000000"),
    (
        11, None,
        "insert into api_tokens (id, name, hash, scopes, created_by, expires_at, lifetime) "
        "values ($1, $2, $3, $4, $5, now() + make_interval(secs => $6), $6) returning id",
        "gen_random_uuid(), 'of before', sha256(gen_random_uuid()::text::bytea), 'admin', null, 3600",
    ),
]  # fmt: skip


def run(cluster, database, version):
    """Runs every statement of a release on a database migrated by that release or a newer one."""
    commands = []
    for number, (since, until, statement, parameters) in enumerate(STATEMENTS):
        if since <= version <= (until or version):
            commands.append(f"prepare s{number} as {statement}")
            commands.append(f"execute s{number}" + (f"({parameters})" if parameters else ""))
    cluster.psql(database, *commands)
