"""The fault injection of `make prove`: the modes of links, and the choice, healing and reporting of faults."""

import asyncio
import contextlib
import errno
import os
import random
import re
import subprocess
import sys
import time

import pytest

from support import REPOSITORY, free_port

sys.path += [str(REPOSITORY / "prove"), str(REPOSITORY / "bench")]

import timeline_picture  # noqa: E402
import publish  # noqa: E402
from episode import Episode  # noqa: E402
from faults import Fault, Skip, all_faults  # noqa: E402
from injector import Injection, rotated, shuffled  # noqa: E402
from ledger import Ledger  # noqa: E402
from links import Links  # noqa: E402
from open_loop import Timeline  # noqa: E402
from promises import recovery  # noqa: E402
from scenario import Result  # noqa: E402
from shims import Clock, Fsync, merged  # noqa: E402

BYTES = bytes(range(256)) * 40


@contextlib.asynccontextmanager
async def linked():
    """(links, connect): an echo server behind a link named `echo`."""

    async def echo(reader, writer):
        with contextlib.suppress(OSError):
            while data := await reader.read(65536):
                writer.write(data)
                await writer.drain()
        writer.close()

    port = free_port()
    server = await asyncio.start_server(echo, "127.0.0.1", port)
    with Links({"echo": port}) as links:
        yield links, lambda: asyncio.open_connection("127.0.0.1", links.ports["echo"])
    server.close()


async def echoed(connection, data=BYTES):
    reader, writer = connection
    writer.write(data)
    async with asyncio.timeout(20):
        return await reader.readexactly(len(data))


def unread(writer):
    """The number of written bytes that the peer has not read (proc(5), /proc/net/tcp)."""
    here, there = (writer.get_extra_info(name)[1] for name in ("sockname", "peername"))
    with open("/proc/net/tcp", encoding="ascii") as table:
        rows = [line.split() for line in list(table)[1:]]
    queues = [row[4] for row in rows if row[1].endswith(f":{there:04X}") and row[2].endswith(f":{here:04X}")]
    return int(queues[0].partition(":")[2], 16)


def test_a_link_forwards_cuts_and_forwards_again():
    async def run():
        async with linked() as (links, connect):
            first = await connect()
            assert await echoed(first) == BYTES
            await links.set("echo", "cut")
            with pytest.raises((OSError, EOFError)):
                await echoed(first)
            assert await echoed(await connect()) == BYTES

    asyncio.run(run())


def test_a_link_that_refuses_accepts_no_connection():
    async def run():
        async with linked() as (links, connect):
            await links.set("echo", "refuse")
            with pytest.raises(ConnectionRefusedError):
                await connect()
            await links.set("echo", "pass")
            assert await echoed(await connect()) == BYTES

    asyncio.run(run())


def test_a_delay_is_kept_and_nothing_overtakes_it():
    async def run():
        async with linked() as (links, connect):
            one = await connect()
            await echoed(one)
            await links.set("echo", "delay", 0.2)
            begun = time.monotonic()
            one[1].write(BYTES)
            while unread(one[1]):
                await asyncio.sleep(0.005)
            await links.set("echo", "pass")
            assert await echoed(one, b"end") + await one[0].readexactly(len(BYTES)) == BYTES + b"end"
            assert time.monotonic() - begun >= 0.2

    asyncio.run(run())


def test_a_stall_holds_the_data_back_until_it_ends():
    async def run():
        async with linked() as (links, connect):
            one = await connect()
            await echoed(one)
            await links.set("echo", "stall")
            one[1].write(BYTES)
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(one[0].readexactly(1), 0.3)
            await links.set("echo", "pass")
            async with asyncio.timeout(20):
                assert await one[0].readexactly(len(BYTES)) == BYTES

    asyncio.run(run())


def test_a_reset_comes_after_the_given_number_of_bytes():
    async def run():
        async with linked() as (links, connect):
            one = await connect()
            await links.set("echo", "reset", 1000)
            one[1].write(BYTES)
            with pytest.raises((ConnectionResetError, asyncio.IncompleteReadError)) as raised:
                async with asyncio.timeout(20):
                    await one[0].readexactly(len(BYTES))
            if isinstance(raised.value, asyncio.IncompleteReadError):
                assert len(raised.value.partial) <= 1000

    asyncio.run(run())


# --- faults -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("is_done", [True, False])
def test_a_fault_that_postgresql_rejects_is_skipped(is_done):
    class Database:
        async def psql(self, *commands):
            assert "lock table" in commands[0]
            return is_done, "the reason"

    locked = next(one for one in all_faults("scaled") if one.name == "table locked")

    async def run():
        async with locked.inject(Database(), random.Random(1)) as seconds:
            assert 0.5 <= seconds <= 3.0

    if is_done:
        asyncio.run(run())
    else:
        with pytest.raises(Skip, match="the reason"):
            asyncio.run(run())


def test_every_fault_has_a_deployment_and_a_unique_name():
    for deployment in ("single", "scaled"):
        names = [one.name for one in all_faults(deployment)]
        assert len(names) > 20 and names == sorted(set(names))


class StubDeployment:
    """A deployment that answers at once."""

    kind, port, endpoints = "scaled", 1, [1]

    async def postgres_answers(self):
        return True


async def recovered_at_once(_):
    return time.monotonic()


def named(name, healed=None):
    async def body(*_):
        try:
            yield 0.001
        finally:
            healed.append(name)

    return Fault(name, ("scaled",), body)


def test_faults_are_injected_cyclically_and_each_heals(monkeypatch):
    monkeypatch.setattr(Episode, "_recovered", recovered_at_once)

    async def run(healed):
        episode = Episode(StubDeployment(), random.Random(1), 1, 1)
        monkeypatch.setattr(episode, "_rng", _Quick(episode._rng))
        faults = [named(name, healed) for name in "abc"]
        injecting = asyncio.create_task(episode._inject_all(faults, lambda: False))
        while len(healed) < 7:
            await asyncio.sleep(0.01)
        injecting.cancel()
        await asyncio.gather(injecting, return_exceptions=True)
        return "".join(injection.name for injection in episode.injections)

    healed = []
    assert asyncio.run(run(healed)).startswith("abcabc")
    assert "".join(healed).startswith("abcabca")


def test_a_service_that_does_not_recover_is_a_broken_promise(monkeypatch):
    async def never(_):
        raise TimeoutError

    monkeypatch.setattr(Episode, "_recovered", never)

    async def run():
        episode = Episode(StubDeployment(), random.Random(1), 1, 1)
        await episode._inject(named("a", []))
        return episode

    episode = asyncio.run(run())
    assert [topic for topic, _, _ in episode.ledger.violations] == ["recovery"]
    assert [result.held for result in recovery([episode])] == [False, True]


def test_the_seed_chooses_the_order_and_later_stacks_continue_it():
    faults = [named(name) for name in "abcdefgh"]
    order = shuffled(random.Random(3), faults, None)
    assert sorted(one.name for one in order) == list("abcdefgh")
    assert shuffled(random.Random(3), faults, None) == order != shuffled(random.Random(4), faults, None)
    assert [one.name for one in shuffled(random.Random(3), faults, "c")] == ["c"]
    assert rotated(order, 0, 10) == order
    assert rotated(order, 1, 10) == order[5:] + order[:5]
    assert rotated([], 1, 10) == []


class _Quick:
    """A random generator whose durations are short."""

    def __init__(self, rng):
        self._rng = rng

    def uniform(self, low, high):
        self._rng.uniform(low, high)
        return 0.001

    def __getattr__(self, name):
        return getattr(self._rng, name)


def test_unavailability_counts_from_when_the_service_could_recover():
    assert Injection("a", 1.0, 2.0, 2.5, 0.0, {}, False).unavailable == 0.5
    assert Injection("a", 1.0, 2.0, 2.5, 2.4, {}, True).unavailable == pytest.approx(0.1)
    assert Injection("a", 1.0, 2.0, 2.5, 2.4, {}, False).unavailable == 0.5


def test_preloaded_libraries_are_joined_to_a_list():
    joined = merged({"LD_PRELOAD": "/a.so", "A": "1"}, {}, {"LD_PRELOAD": "/b.so", "B": "2"})
    assert joined == {"LD_PRELOAD": "/a.so /b.so", "A": "1", "B": "2"}


def _python(program, environment):
    done = subprocess.run([sys.executable, "-c", program], env={**os.environ, **environment}, capture_output=True, text=True, check=True)
    return done.stdout.strip()


def test_a_clock_steps_and_steps_back(directory):
    clock = Clock(directory, "test")
    if clock.unsupported_reason:
        pytest.skip(clock.unsupported_reason)
    shown = "import time; print(time.time(), time.monotonic())"
    clock.step(3600)
    begun = time.time(), time.monotonic()
    wall, monotonic = map(float, _python(shown, clock.environment).split())
    assert 3500 < wall - begun[0] < 3700 and monotonic - begun[1] < 60
    clock.step(0)
    assert abs(float(_python(shown, clock.environment).split()[0]) - time.time()) < 60


def test_fsync_is_slow_and_fails_as_set(directory):
    fsync = Fsync(directory)
    if fsync.unsupported_reason:
        pytest.skip(fsync.unsupported_reason)
    # A file in memory, where fsync takes no time however busy the disk is.
    program = """
import os, time
begun = time.monotonic()
file = os.memfd_create("file")
for call in os.fsync, os.fdatasync:
    try:
        call(file)
    except OSError as error:
        print(error.errno)
print(time.monotonic() - begun)
"""
    assert float(_python(program, fsync.environment)) < 2
    fsync.set("slow 1000")
    assert float(_python(program, fsync.environment)) >= 2
    fsync.set("fail")
    assert _python(program, fsync.environment).split()[:2] == [str(errno.EIO)] * 2


def test_the_report_counts_by_fault_and_the_picture_marks_each(directory):
    episode = Episode(StubDeployment(), random.Random(1), 1, 1)
    episode.ledger, episode.timeline = Ledger(random.Random(1)), Timeline()
    for _ in range(10):
        episode.timeline.record(time.monotonic() - 0.05, True)
    episode.timeline.record(time.monotonic(), False)
    episode.injections = [
        Injection("server killed", 10.0, 10.0, 10.25, 0.0, {"requests": 7, "503": 2, "no answer": 1}, False),
        Injection("server killed", 20.0, 20.0, 20.75, 0.0, {"requests": 5, "503": 1}, False),
        Injection("table <locked>", 30.0, 31.0, 31.1, 0.0, {"requests": 4}, False),
    ]
    for injection in episode.injections:
        episode.timeline.mark(injection.begun - 10 + episode.timeline.start, injection.recovered, injection.name)
    episode.ledger.violation("lost", "a row", 21.0)
    results = [Result("a promise", "0", {"lost": 1}, False)]
    publish.write(directory, {"storm": results, "calm": results}, [episode], 7, {"storm": "make prove SEED=7", "calm": "make prove ONLY=calm"})
    publish.write(directory, {"away": results}, [], 8, {"away": "make prove ONLY=away"})
    text = (directory / "reliability.md").read_text()
    assert re.search(r"\| server killed \| 2 \| 12 \| 503 3, no answer 1 \| 750 \| 750 \| 1 \| 0 \| 0 \| 0 \|", text), text
    assert "seed 7" in text and "make prove SEED=7" in text and "| storm | a promise | 0 | lost 1 | **no** |" in text
    assert text.count("| calm | a promise |") == text.count("| away | a promise |") == 1 and text.index("### away") < text.index("### calm")
    publish.write(directory, {"storm": results, "away": results}, [episode], 7, {"storm": "make prove SEED=7", "away": "make prove ONLY=away"})
    assert (directory / "reliability.md").read_text() == text
    drawn = timeline_picture.draw([episode.timeline])
    assert drawn.count("server killed at") == 2 and "table &lt;locked&gt;" in drawn
    assert (directory / "reliability.svg").read_text() == drawn
