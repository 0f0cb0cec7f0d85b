"""WAL that goes into a bucket while clients write: the follower killed, its machine lost, the store away; and every instant back."""

import csv
import datetime
import io
import json
import os
import pathlib
import shutil
import signal
import subprocess
import threading

import pytest

import support
from buckets import Store
from support import PASSENGER, PROGRAM, Stack, until

PATIENCE_SECONDS = 240
# `backup --follow` sends the segment that is being written every 10 s.
ROUND_SECONDS = 60
INSTANTS = 4


def now():
    return datetime.datetime.now(datetime.UTC)


class Writer:
    """Creates passengers one after the other; when each was begun and acknowledged, by the clock that is the database's, too."""

    def __init__(self, stack):
        self.stack, self.writes, self.error = stack, [], None
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self):
        try:
            while not self._stop.is_set():
                name, begun = f"written {len(self.writes)}", now()
                answer = self.stack.request("POST", "/v1/passengers", {**PASSENGER, "name": name})
                assert answer.status == 201, answer
                self.writes.append((name, begun, now()))
                self._stop.wait(0.02)
        except Exception as error:  # noqa: BLE001 (shown by whoever stops it)
            self.error = error

    def go_on(self):
        """Returns when some more were written."""
        count = len(self.writes) + 20
        until(lambda: self.error or len(self.writes) >= count, "writes go on")
        assert self.error is None, self.error

    def stop(self):
        self._stop.set()
        self._thread.join(PATIENCE_SECONDS)
        assert self.error is None, self.error


class World:
    """A stack that serves, a store, and the program beside them."""

    def __init__(self, directory, **settings):
        self.directory = directory
        self.temporary = directory / "tmp"
        self.temporary.mkdir()
        support.open_to_all(self.temporary)
        self.store = Store(directory / "store")
        self.stack = Stack(directory, SEED="false").start()
        self.environment = support.clean_environment(
            DATA_DIR=self.stack.data_dir, TMPDIR=self.temporary, PATH=os.environ["PATH"], LOG="info",
            **self.store.settings(), **settings,
        )
        self.follower = None

    def run(self, *arguments, **settings):
        done = subprocess.run(
            [PROGRAM, *arguments], env={**self.environment, **{name: str(value) for name, value in settings.items()}},
            capture_output=True, text=True, timeout=PATIENCE_SECONDS, cwd="/",
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def follow(self):
        self.follower = support.Process([PROGRAM, "backup", "--follow"], self.environment)
        until(lambda: "following" in self.follower.output or not self.follower.running, "it follows", PATIENCE_SECONDS)
        assert self.follower.running, self.follower.output

    def lose_follower(self):
        """The machine of the follower is gone, with everything on it."""
        self.follower.signal(signal.SIGKILL)
        self.follower.wait()
        for left in self.temporary.iterdir():
            shutil.rmtree(left)

    def psql(self, *statements):
        socket = next(pathlib.Path(self.stack.data_dir).glob("**/run/.s.PGSQL.*[0-9]"))
        owner = socket.stat()
        options = {"user": owner.st_uid, "group": owner.st_gid, "extra_groups": []} if owner.st_uid else {}
        for statement in statements:
            command = ["psql", "-h", socket.parent, "-U", "postgres", "-AtXc", statement]
            subprocess.run(command, cwd="/", check=True, capture_output=True, **options)

    def switch_segment(self):
        """The segment of WAL that is being written becomes whole."""
        self.psql("select pg_switch_wal()")

    def received(self):
        for name, path in self.store.files().items():
            if name.endswith("/received.json"):
                return datetime.datetime.fromisoformat(json.loads(path.read_text())["at"])
        return None

    def segments(self, part=False):
        names = [name.rsplit("/", 1)[1] for name in self.store.files() if name.startswith("wal/")]
        return sorted(name for name in names if len(name.split(".")[0]) == 24 and part == ("partial" in name))

    def until_received(self, moment):
        until(lambda: (self.received() or moment) > moment, f"received up to {moment}", 5 * ROUND_SECONDS)

    def names(self, data_dir):
        text = self.run("export", DATA_DIR=data_dir)
        return {row["name"] for row in csv.DictReader(io.StringIO(text))}

    def close(self):
        if self.follower is not None and self.follower.running:
            self.follower.signal(signal.SIGKILL)
            self.follower.wait()
        self.stack.destroy()
        self.store.stop()


@pytest.fixture(params=["plain", "encrypted"])
def world(directory, request):
    settings = {}
    if request.param == "encrypted":
        key = directory / "key"
        key.write_text("0a" * 32)
        settings["BACKUP_KEY_FILE"] = key
    one = World(directory, **settings)
    try:
        yield one
    finally:
        one.close()


def test_every_instant_comes_back_from_a_bucket_whatever_the_follower_went_through(world):
    world.follow()
    writer = Writer(world.stack)
    writer.go_on()
    world.until_received(now())
    assert world.segments(part=True), "the segment that is being written is there in part"
    world.switch_segment()
    writer.go_on()
    # Between any two moments: nothing of what it had here is needed.
    world.lose_follower()
    writer.go_on()
    world.switch_segment()
    writer.go_on()
    world.follow()
    writer.go_on()
    world.switch_segment()
    writer.go_on()

    # The store is away: nothing is lost, it is told once, and what waits on this disk is bounded.
    world.until_received(now())
    world.store.stop()
    for _ in range(20):
        writer.go_on()
        world.switch_segment()
    until(lambda: "does not reach the bucket" in world.follower.output, "it is told", ROUND_SECONDS)
    spooled = [path for path in world.temporary.rglob("0*") if path.is_file() and not path.name.endswith(".partial")]
    assert len(spooled) <= 12, spooled
    world.store.start()
    writer.go_on()
    writer.stop()
    until(lambda: "WAL reaches the bucket again" in world.follower.output, "it is told", 2 * ROUND_SECONDS)
    world.until_received(writer.writes[-1][2])
    assert world.follower.output.count("does not reach the bucket") == 1, world.follower.output
    world.follower.signal(signal.SIGTERM)
    assert world.follower.wait() == 0, world.follower.output

    listed = world.run("backups", "--check")
    assert " … " in listed and "damaged" not in listed, listed
    assert "is what the database was at" in world.run("restore-drill")
    writes = writer.writes
    assert len({name.split(".")[0] for name in world.segments()}) > 20, world.segments()
    for number in range(INSTANTS + 1):
        at = None if number == INSTANTS else writes[(2 * number + 1) * len(writes) // (2 * INSTANTS)][1]
        into = world.directory / f"at-{number}"
        world.run("restore", "--into", str(into), *([] if at is None else ["--at", at.isoformat()]))
        found = world.names(into)
        for name, begun, acknowledged in writes:
            assert name in found or (at is not None and acknowledged >= at), f"{name} is missing at {at}"
            assert name not in found or at is None or begun <= at, f"{name} is there at {at}"
        shutil.rmtree(into)

    # WAL goes with the first backup that needs it, and an instant of one that is kept takes no more than it needs.
    before = world.segments()
    world.run("backup", "--keep=1")
    first = json.loads(next(path for name, path in world.store.files().items() if name.endswith("backup.json")).read_text())
    assert first["wal"]["first"] > before[0][:24]
    assert all(name[:24] >= first["wal"]["first"] for name in world.segments()), world.segments()


def test_what_keeps_a_follower_from_its_bucket_is_told_and_behind_a_gap_begins_a_new_backup(directory):
    world = World(directory)

    def refused(**settings):
        environment = {**world.environment, **settings}
        command = [PROGRAM, "backup", "--follow"]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=PATIENCE_SECONDS, cwd="/")
        assert done.returncode == 1, done.stdout + done.stderr
        return done.stderr

    try:
        assert "check AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY" in refused(AWS_SECRET_ACCESS_KEY="WRONG")
        assert "there is no bucket nowhere" in refused(BACKUP_DIR="s3://nowhere/x")
        assert "cannot be reached" in refused(AWS_ENDPOINT_URL=f"http://127.0.0.1:{support.free_port()}")
        world.follow()
        assert "another process follows" in refused()
        world.lose_follower()
        (backup,) = [name for name in world.store.files() if name.endswith("backup.json")]
        # The same bucket and no slot: what was written meanwhile is in no bucket, so a new backup begins.
        world.psql(
            "select pg_drop_replication_slot('pycrudapi_backup')", "select pg_switch_wal()", "select txid_current()", "checkpoint"
        )
        world.follow()
        assert len([name for name in world.store.files() if name.endswith("backup.json")]) == 2, backup
    finally:
        world.close()
