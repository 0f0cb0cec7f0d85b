"""Backups in a bucket of a real S3 server: made, listed, brought back, drilled, forgotten; with a store that refuses, is away or is cut off."""

import json
import os
import signal
import subprocess

import pytest

import support
from buckets import PLACE, SECRET, Store, Wire
from support import PROGRAM, free_port, until

PATIENCE_SECONDS = 240
ROWS = 500
# Longer than one part, so that an upload has several.
PART_BYTES = 16 << 20


@pytest.fixture
def store(directory):
    one = Store(directory / "store")
    try:
        yield one
    finally:
        one.stop()


@pytest.fixture
def run(directory, store):
    """run(*arguments, **settings): the program on a database with rows; its status and what it said."""
    (directory / "tmp").mkdir()
    support.open_to_all(directory / "tmp")
    defaults = {
        "DATA_DIR": directory / "data",
        "TMPDIR": directory / "tmp",
        "PATH": os.environ["PATH"],
        **store.settings(),
        "LOG": "warn",
    }

    def environment(**settings):
        return support.clean_environment(**{**defaults, **settings})

    def call(*arguments, feed=None, **settings):
        done = subprocess.run(
            [PROGRAM, *arguments], env=environment(**settings), input=feed, capture_output=True, text=True,
            timeout=PATIENCE_SECONDS, cwd="/",
        )
        return done.returncode, done.stdout + done.stderr

    call.environment = environment
    rows = subprocess.run([PROGRAM, "generate", f"--rows={ROWS}"], capture_output=True, text=True, check=True).stdout
    status, said = call("import", "-", feed=rows)
    assert status == 0, said
    return call


def succeeded(outcome):
    status, said = outcome
    assert status == 0, said
    return said


def ids(listed):
    return [line.split()[0] for line in listed.splitlines() if line[:2] == "20"]


def stage(directory):
    (found,) = (directory / "tmp").glob("pycrudapi-stage-*")
    return found


def test_a_bucket_gives_back_what_a_folder_does(directory, store, run):
    key = directory / "key"
    key.write_text("0a" * 32)
    secret = directory / "secret"
    secret.write_text(SECRET + "\n")
    settings = {"BACKUP_KEY_FILE": key, "AWS_SECRET_ACCESS_KEY": "", "AWS_SECRET_ACCESS_KEY_FILE": secret}
    assert "checked" in succeeded(run("backup", **settings))
    (first,) = ids(succeeded(run("backups")))
    uploaded = store.files()
    assert uploaded[f"{first}/base.tar.sealed"].stat().st_size > PART_BYTES
    assert not any(path.is_dir() for path in stage(directory).iterdir()), "the stage is empty"
    listed = succeeded(run("backups", "--check"))
    assert "physical" in listed and "now" in listed and "damaged" not in listed

    # Retention, and the other kind.
    assert f"removed backup {first}" in succeeded(run("backup", "--kind=logical", "--keep=1", **settings))
    (second,) = ids(succeeded(run("backups")))
    assert {key.split("/")[0] for key in store.files()} == {second}
    exported = succeeded(run("export"))
    for name, backup in (("of-rows", second), ("of-files", None)):
        if backup is None:
            succeeded(run("backup", **settings))
        said = succeeded(run("restore", "--into", str(directory / name), **settings))
        assert "serve it" in said
        assert succeeded(run("export", DATA_DIR=directory / name)) == exported
        assert "is what the database was at" in succeeded(run("restore-drill", **settings))
    assert not list((directory / "tmp").glob("pycrudapi-[0-9a-f]*")), "what was fetched is gone"


def test_what_is_wrong_with_a_store_is_told_with_what_to_do(directory, store, run):
    refusals = [
        ({"AWS_SECRET_ACCESS_KEY": "WRONG"}, "check AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"),
        ({"AWS_ACCESS_KEY_ID": "WRONG"}, "check AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"),
        ({"AWS_ACCESS_KEY_ID": ""}, "set AWS_ACCESS_KEY_ID"),
        ({"BACKUP_DIR": "s3://nowhere/x"}, "there is no bucket nowhere"),
        ({"BACKUP_DIR": "s3://"}, "expected s3://bucket/prefix"),
        ({"AWS_ENDPOINT_URL": "minio:9000"}, "AWS_ENDPOINT_URL"),
        ({"AWS_ENDPOINT_URL": f"http://127.0.0.1:{free_port()}"}, "cannot be reached"),
        ({"AWS_ENDPOINT_URL": f"https://127.0.0.1:{store.port}"}, "cannot be reached"),
        ({"AWS_CA_BUNDLE": "/nowhere", "AWS_ENDPOINT_URL": "https://127.0.0.1"}, "AWS_CA_BUNDLE"),
    ]
    for settings, expected in refusals:
        for command in ("backup", "backups"):
            status, said = run(command, **settings)
            assert status == 1 and expected in said, (settings, said)
            assert SECRET not in said
    status, said = run("restore", "--into", str(directory / "new"))
    assert status == 1 and f"there is no backup in {PLACE}" in said, said
    _, said = run("backups", "--aws-secret-access-key", SECRET)
    assert "AWS_SECRET_ACCESS_KEY" in said and "/proc" in said, said

    succeeded(run("backup", "--kind=logical"))
    (backup,) = ids(succeeded(run("backups")))
    rows = store.files()[f"{backup}/tables/passengers.copy"]
    rows.write_bytes(rows.read_bytes().replace(b"\t", b" ", 1))
    status, said = run("backups", "--check")
    assert status == 1 and "damaged" in said and "tables/passengers.copy" in said, said
    for command in (["restore", "--into", str(directory / "new")], ["restore-drill"]):
        status, said = run(*command)
        assert status == 1 and "damaged" in said and "passengers.copy" in said, said
    assert not (directory / "new" / "embedded" / "data").exists()
    store.files()[f"{backup}/backup.json"].unlink()
    assert ids(succeeded(run("backups"))) == [], "what has no record is no backup"


def test_an_upload_that_is_cut_off_goes_on_and_nothing_half_is_listed(directory, store, run):
    wire = Wire(store.port)
    try:
        wire.budget = PART_BYTES + PART_BYTES // 2
        succeeded(run("backup", AWS_ENDPOINT_URL=wire.place))
        assert wire.cuts == 1
        (first,) = ids(succeeded(run("backups", "--check")))

        wire.budget, wire.holds = PART_BYTES + PART_BYTES // 2, True
        cut = support.Process([PROGRAM, "backup"], run.environment(AWS_ENDPOINT_URL=wire.place))
        until(lambda: wire.held.is_set() or not cut.running, "the second part is on its way", PATIENCE_SECONDS)
        assert cut.running, cut.output
        cut.signal(signal.SIGKILL)
        cut.wait()
        assert ids(succeeded(run("backups"))) == [first]
        (waiting,) = [path.name for path in stage(directory).iterdir() if path.is_dir()]
        progress = json.loads((stage(directory) / f"{waiting}.upload").read_text())
        assert len(progress["etags"]) == 1

        # While the store is away, it stays.
        store.stop()
        status, said = run("backup")
        assert status == 1 and "cannot be reached" in said, said
        store.start()
        said = succeeded(run("backup", "--kind=logical", LOG="info"))
        assert "resuming an upload" in said
        assert ids(succeeded(run("backups", "--check")))[:2] == [first, waiting]
        said = succeeded(run("restore", "--backup", waiting, "--into", str(directory / "new")))
        assert succeeded(run("export", DATA_DIR=directory / "new")).count("\n") == ROWS + 1
    finally:
        wire.close()
