"""`pycrudapi doctor` on faults outside PostgreSQL: settings, certificates, nginx, keys of the identity provider, tokens, backups."""

import base64
import contextlib
import datetime
import json
import os
import pwd
import re

import pytest

from doctor import Doctor
from needs import run
from postgres import Cluster
from support import StandIn, free_port, open_to_all

DATABASE = "looked_at"
# An unreachable database, for checks that do not use it.
NOWHERE = "postgres://x@127.0.0.1:1/x"


def openssl(*words):
    return run(["openssl", *map(str, words)], cwd="/")


def make_certificate(directory, name, begin=0, end=90, key=None):
    """A certificate that becomes valid in this many days, and its key."""
    certificate, key_file = directory / f"{name}.crt", key or directory / f"{name}.key"
    if key is None:
        openssl("genpkey", "-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256", "-out", key_file)
    request, index = directory / f"{name}.csr", directory / f"{name}.index"
    openssl("req", "-new", "-key", key_file, "-subj", "/CN=localhost", "-out", request)
    index.touch()
    configuration = directory / f"{name}.cnf"
    configuration.write_text(f"[ca]\ndefault_ca = x\n[x]\ndatabase = {index}\nnew_certs_dir = {directory}\nrand_serial = yes\ndefault_md = sha256\npolicy = p\n[p]\ncommonName = supplied\n")
    at = [(datetime.datetime.now(datetime.timezone.utc) + datetime.timedelta(days=days, hours=1)).strftime("%Y%m%d%H%M%SZ") for days in (begin - 1 if begin <= 0 else begin, end)]
    openssl("ca", "-config", configuration, "-selfsign", "-batch", "-notext", "-keyfile", key_file, "-in", request, "-startdate", at[0], "-enddate", at[1], "-out", certificate)
    return certificate, key_file


def test_a_certificate_and_a_key_that_cannot_be_used_are_reported(directory):
    good, key = make_certificate(directory, "good")
    other, other_key = make_certificate(directory, "other")
    early, early_key = make_certificate(directory, "early", begin=3)
    locked, chain, swapped, empty = (directory / name for name in ("locked.key", "chain.crt", "swapped.crt", "empty.key"))
    openssl("pkey", "-in", key, "-aes256", "-passout", "pass:x", "-out", locked)
    chain.write_text(good.read_text() + early.read_text())
    swapped.write_text(other.read_text() + good.read_text())
    empty.write_text("nothing\n")
    for certificate, private, severity, words, mend in (
        (good, key, "fine", "valid for more than two weeks", None),
        (early, early_key, "wrong", "is not valid until 20", "timedatectl"),
        (chain, key, "wrong", "certificate 2 in .* is not valid until", "timedatectl"),
        (good, other_key, "wrong", "the key .*other.key does not match the certificate", "TLS_CERT and TLS_KEY"),
        (swapped, key, "wrong", "the first certificate in .* does not match the key", "before the intermediate certificates"),
        (good, locked, "wrong", "passphrase", "openssl pkey"),
        (good, empty, "wrong", "contains no private key", "TLS_KEY"),
        (empty, key, "wrong", "contains no certificate", "in PEM"),
        (directory, key, "wrong", "cannot be read: Is a directory", "TLS_CERT"),
        (good, directory / "none", "wrong", "TLS_KEY=.*there is no such file", "readable by nginx's user"),
    ):
        doctor = Doctor(DATABASE_URL=NOWHERE, TLS_CERT=certificate, TLS_KEY=private)
        found = [one for one in doctor.findings() if one["severity"] == severity and re.search(words, one["what"])]
        assert found, (words, doctor.findings())
        assert mend is None or mend in found[0]["mend"], found


def test_files_that_another_user_cannot_read_are_reported(directory):
    open_to_all(directory)
    certificate, key = make_certificate(directory, "good")
    key.chmod(0o600)
    certificate.chmod(0o644)
    doctor = Doctor(DATABASE_URL=NOWHERE, TLS_CERT=certificate, TLS_KEY=key, BACKUP_DIR=directory)
    if os.geteuid() != 0:
        key.chmod(0)
        how = {}
    else:
        user = pwd.getpwnam("nobody")
        how = {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": []}
        doctor.remedy("wrong", f"BACKUP_DIR={directory} cannot be written to", **how)
    assert "readable by nginx's user" in doctor.remedy("wrong", "TLS_KEY=.*Permission denied", **how)


def test_the_reason_that_nginx_gives_is_reported(directory):
    doctor = Doctor(DATABASE_URL=NOWHERE, UPSTREAM="nowhere.invalid:8000")
    assert "UPSTREAM" in doctor.remedy("wrong", r"rejects its configuration: .*\[emerg\] .*host not found in upstream \"nowhere.invalid")
    long = directory / ("long" * 25)
    doctor = Doctor(DATABASE_URL=NOWHERE, RUN_DIR=long)
    doctor.remedy("wrong", "RUN_DIR=.*makes the path of the server's socket too long")


def test_a_directory_or_a_port_that_the_service_cannot_use_is_reported(directory):
    (directory / "file").touch()
    doctor = Doctor(DATABASE_URL=NOWHERE, RUN_DIR=directory / "file" / "run")
    assert f"ls -ld {directory}/file" in doctor.remedy("wrong", "RUN_DIR=.* cannot be written to: .*Not a directory")
    port = free_port()
    other = StandIn(port, lambda connection, _head: connection.sendall(b"HTTP/1.1 404 Not Found\r\ncontent-length: 5\r\n\r\nnone\n"))
    with contextlib.closing(other):
        mend = Doctor(DATABASE_URL=NOWHERE, HTTP_PORT=str(port)).remedy("wrong", f"HTTP_PORT={port} is used by another program")
        assert f"ss -ltnp 'sport = :{port}'" in mend


def test_a_key_set_in_a_file_that_cannot_be_used_is_reported(directory):
    file = directory / "jwks.json"
    doctor = Doctor(DATABASE_URL=NOWHERE, AUTH="on", AUTH_ISSUER="https://id.example", AUTH_AUDIENCE="here", AUTH_JWKS_FILE=file)
    public = {"kty": "OKP", "crv": "Ed25519", "x": base64.urlsafe_b64encode(bytes(32)).decode().rstrip("=")}
    for text, words in (
        (None, "keys cannot be read: cannot read .*jwks.json: No such file"),
        ("no JSON", "keys cannot be read: the key set is not a JSON object"),
        ("{}", "keys cannot be read: the key set has no list named keys"),
        ('{"keys": []}', "has no usable key"),
        (json.dumps({"keys": [{**public, "d": "x"}, {"kty": "oct", "k": "x"}]}), "has no usable key; unusable keys: 2"),
    ):
        if text is not None:
            file.write_text(text)
        mend = doctor.remedy("wrong", words)
        assert f"{file} (AUTH_JWKS_FILE) must contain a JSON object whose list `keys`" in mend, mend
    file.write_text(json.dumps({"keys": [public, {"kty": "oct"}]}))
    assert any("usable keys of the identity provider: 1, unusable: 1" in one["what"] for one in doctor.findings())


def test_a_setting_that_cannot_be_used_is_told_with_status_two_beside_everything_else(directory):
    (directory / "broken").mkdir()
    (directory / "broken" / "things.toml").write_text("name = 7\nnothing")
    for setting, value, words in (
        ("RESOURCES_DIR", directory / "none", "cannot read the folder .*none of RESOURCES_DIR"),
        ("RESOURCES_DIR", directory / "broken", "things.toml"),
        ("RESOURCES", "nothing", "nothing"),
        ("DATABASE_URL", "nonsense", "DATABASE_URL is not a PostgreSQL URL"),
        ("DATABASE_URL", "postgres://x@127.0.0.1/x?sslmode=verify-full&sslrootcert=/none", "sslrootcert to /none"),
        ("BACKUP_DIR", "s3://", "names no bucket"),
        ("REDIS_URL", "nonsense", "REDIS_URL"),
        ("AUTH_AUDIENCE", "here", "AUTH_ISSUER must also be set"),
        ("HTTPS_PORT", "9", "HTTPS_PORT=9: must differ|HTTPS_PORT"),
    ):
        settings = {"DATABASE_URL": NOWHERE, "TLS_SELF_SIGNED": "true", setting: value}
        doctor = Doctor(**settings)
        found = doctor.findings()
        assert found[0]["area"] == "settings" and re.search(words, found[0]["what"]), (words, found)
        done = doctor.program("doctor", check=False)
        assert done.returncode == 2 and done.stdout.startswith("wrong    settings "), done.stdout + done.stderr
        assert any(one["area"] == "limits" for one in found), "the rest is looked at"
    # And the message alone, if nothing can be read.
    (directory / "secret").mkdir()
    done = Doctor(POOL_SIZE="many").program("doctor", check=False)
    assert done.returncode == 2 and done.stderr.startswith("POOL_SIZE=many"), done.stderr
    Doctor(DATABASE_URL_FILE=directory / "secret").remedy("wrong", "DATABASE_URL_FILE .*secret cannot be read")


@pytest.fixture(scope="module")
def cluster():
    with Cluster({"shared_buffers": "16MB", "wal_init_zero": "off"}) as cluster:
        cluster.create(DATABASE)
        Doctor(DATABASE_URL=cluster.url(DATABASE).replace("postgres@", "pycrudapi@"), MIGRATE_USER="postgres").program("migrate")
        yield cluster


@pytest.fixture
def patient(cluster):
    cluster.psql(DATABASE, "delete from api_tokens")
    return Doctor(DATABASE_URL=cluster.url(DATABASE).replace("postgres@", "pycrudapi@"), MIGRATE_USER="postgres", AUTH="on")


def test_tokens_that_are_in_use_and_end_or_have_ended_are_reported(cluster, patient):
    def make(name, created, expires, used, lifetime="null", revoked="null"):
        at = lambda span: f"now() + interval '{span}'" if span else "null"  # noqa: E731
        cluster.psql(
            DATABASE,
            "insert into api_tokens (id, name, hash, scopes, created_at, expires_at, last_used_at, lifetime, revoked_at) values (gen_random_uuid(), "
            f"'{name}', decode(md5(random()::text) || md5(random()::text), 'hex'), 'steps:read', {at(created)}, "
            f"{at(expires)}, {at(used)}, {lifetime}, {revoked})",
        )

    month, hundred = 30 * 86400, 100 * 86400
    # Not replaced.
    make("soon", "-28 days", "2 days", "-1 hour", month)
    make("ended", "-31 days", "-1 day", "-25 hours", month)
    make("unused", "-31 days", "-1 day", "-20 days", month)
    make("long ago", "-60 days", "-30 days", "-30 days", month)
    # Replaced, with a current overlap, an expired overlap, or none.
    for name, expires, used, revoked in (
        ("lasting", "12 hours", "-1 hour", "null"),
        ("taken", "12 hours", "-20 hours", "null"),
        ("late", "-1 hour", "-90 minutes", "null"),
        ("cut off", "80 days", "-13 hours", "now() - interval '12 hours'"),
    ):
        make(name, "-20 days", expires, used, hundred, revoked)
        make(name, "-12 hours -1 minute", "99 days", None, hundred)
    make("meant", "-20 days", "80 days", "-13 hours", hundred, "now() - interval '12 hours'")
    assert "pycrudapi token rotate" in patient.remedy("warning", r"the token soon expires within 7 days, .* \(last used 20")
    assert "pycrudapi token create --name 'ended' --scope 'steps:read'" in patient.remedy("warning", "the token ended .* ended .*in use until then")
    assert "the successor token" in patient.remedy("warning", "the token lasting .* was replaced, is still in use .* and expires")
    for name in ("late", "cut off"):
        assert "the successor token" in patient.remedy("warning", f"the token {name} .* ended .*in use until then")
    for name in ("unused", "long ago", "taken", "meant"):
        patient.has_no_finding(f"the token {name}")
    # `token rotate` creates the state that the doctor looks for.
    cluster.psql(DATABASE, "delete from api_tokens")
    patient.program("token", "create", "--name", "turned", "--scope", "steps:read")
    token = cluster.psql(DATABASE, "select id from api_tokens")
    patient.program("token", "rotate", token, "--overlap", "1h")
    patient.has_no_finding("the token turned")
    cluster.psql(DATABASE, f"update api_tokens set last_used_at = now() where id = '{token}'")
    patient.remedy("warning", "the token turned .* was replaced, is still in use")


def test_backups_that_cannot_be_made_or_opened_are_reported(directory, patient):
    open_to_all(directory)
    place, key, other = directory / "backups", directory / "key", directory / "other"
    for file in (key, other):
        file.write_text(openssl("rand", "-hex", 32))
    with_place = patient.with_settings(BACKUP_DIR=place)
    assert f"mkdir -p {place}" in with_place.remedy("wrong", f"BACKUP_DIR={place} cannot be used: No such file")
    place.write_text("")
    with_place.remedy("wrong", "cannot be used: it is not a directory")
    place.unlink()
    place.mkdir()
    assert with_place.remedy("warning", f"there is no backup in {place}") == f"pycrudapi backup --to {place}"
    with_key = with_place.with_settings(BACKUP_KEY_FILE=key)
    with_place.program("backup", "--kind", "logical")
    with_place.has_no_finding(str(place))
    assert "create an encrypted one" in with_key.remedy("warning", "is not encrypted, although BACKUP_KEY_FILE is set")
    with_key.program("backup", "--kind", "logical")
    with_key.has_no_finding("the newest backup|there is no backup")
    assert any("decrypts the newest backup" in one["what"] for one in with_key.findings())
    assert "BACKUP_KEY_FILE=" in with_place.remedy("wrong", "is encrypted with key [0-9a-f]+, but BACKUP_KEY_FILE is not set")
    wrong = with_place.with_settings(BACKUP_KEY_FILE=other)
    assert "to the file with key" in wrong.remedy("wrong", "is encrypted with key [0-9a-f]+, not with the one in BACKUP_KEY_FILE, [0-9a-f]+")
    assert "restore the file" in with_place.with_settings(BACKUP_KEY_FILE=directory / "none").remedy("wrong", "the key cannot be read; .*none")
    # Damaged within, cut off, and without its record.
    newest = max(one for one in place.iterdir() if one.is_dir())
    sealed = max(newest.rglob("*.sealed"), key=lambda path: path.stat().st_size)
    for file in newest.rglob("*.sealed"):
        text = bytearray(file.read_bytes())
        text[-1] ^= 1
        file.write_bytes(text)
    with_key.remedy("wrong", "the newest backup, .* cannot be opened: .*damaged")
    sealed.write_bytes(sealed.read_bytes()[:-1])
    with_key.remedy("wrong", f"the newest backup, {newest.name}, is damaged: .* has [0-9]+ bytes instead of")
    (newest / "backup.json").unlink()
    with_key.remedy("warning", f"the backup {newest.name} has no readable record")


def test_an_unreachable_bucket_is_reported(patient):
    port = free_port()
    keys = {"AWS_ACCESS_KEY_ID": "id", "AWS_SECRET_ACCESS_KEY": "planted-secret"}
    doctor = Doctor(DATABASE_URL=NOWHERE, BACKUP_DIR="s3://backups/here", AWS_ENDPOINT_URL=f"http://127.0.0.1:{port}", **keys)
    assert "AWS_ENDPOINT_URL" in doctor.remedy("wrong", f"the store at http://127.0.0.1:{port} cannot be reached")
    done = doctor.program("doctor", check=False)
    assert "planted-secret" not in done.stdout + done.stderr
