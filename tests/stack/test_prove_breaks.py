"""What `make prove` breaks with: links do to a connection what they say, and faults are chosen, healed and reported."""

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
from episode import Blow, Episode  # noqa: E402
from faults import Fault, Skip, all_faults  # noqa: E402
from ledger import Ledger  # noqa: E402
from links import Links  # noqa: E402
from open_loop import Timeline  # noqa: E402
from scenario import Row  # noqa: E402
from scenarios import storm  # noqa: E402
from scenarios.storm import from_turn, shuffled  # noqa: E402
from shims import Clock, Fsync, together  # noqa: E402

BYTES = bytes(range(256)) * 40


@contextlib.asynccontextmanager
async def linked():
    """(links, connect): an echo behind a link called `echo`."""

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


async def said_back(connection, data=BYTES):
    reader, writer = connection
    writer.write(data)
    async with asyncio.timeout(20):
        return await reader.readexactly(len(data))


def unread(writer):
    """How many bytes of those written has the other end not read (proc(5), /proc/net/tcp)."""
    here, there = (writer.get_extra_info(name)[1] for name in ("sockname", "peername"))
    with open("/proc/net/tcp", encoding="ascii") as table:
        rows = [line.split() for line in list(table)[1:]]
    queues = [row[4] for row in rows if row[1].endswith(f":{there:04X}") and row[2].endswith(f":{here:04X}")]
    return int(queues[0].partition(":")[2], 16)


def test_a_link_passes_on_cuts_and_passes_on_again():
    async def run():
        async with linked() as (links, connect):
            first = await connect()
            assert await said_back(first) == BYTES
            await links.set("echo", "cut")
            with pytest.raises((OSError, EOFError)):
                await said_back(first)
            assert await said_back(await connect()) == BYTES

    asyncio.run(run())


def test_a_link_that_refuses_is_nobody():
    async def run():
        async with linked() as (links, connect):
            await links.set("echo", "refuse")
            with pytest.raises(ConnectionRefusedError):
                await connect()
            await links.set("echo", "pass")
            assert await said_back(await connect()) == BYTES

    asyncio.run(run())


def test_a_delay_is_kept_and_nothing_overtakes_it():
    async def run():
        async with linked() as (links, connect):
            one = await connect()
            await said_back(one)
            await links.set("echo", "delay", 0.2)
            begun = time.monotonic()
            one[1].write(BYTES)
            while unread(one[1]):
                await asyncio.sleep(0.005)
            await links.set("echo", "pass")
            assert await said_back(one, b"end") + await one[0].readexactly(len(BYTES)) == BYTES + b"end"
            assert time.monotonic() - begun >= 0.2

    asyncio.run(run())


def test_a_hole_keeps_everything_until_it_closes():
    async def run():
        async with linked() as (links, connect):
            one = await connect()
            await said_back(one)
            await links.set("echo", "hole")
            one[1].write(BYTES)
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(one[0].readexactly(1), 0.3)
            await links.set("echo", "pass")
            async with asyncio.timeout(20):
                assert await one[0].readexactly(len(BYTES)) == BYTES

    asyncio.run(run())


def test_a_reset_comes_after_so_many_bytes_of_answers():
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
def test_what_postgresql_refuses_is_no_fault(is_done):
    class Database:
        async def psql(self, *commands):
            assert "lock table" in commands[0]
            return is_done, "it says why"

    locked = next(one for one in all_faults("servers") if one.name == "table locked")

    async def run():
        async with locked.inject(Database(), random.Random(1)) as seconds:
            assert 0.5 <= seconds <= 3.0

    if is_done:
        asyncio.run(run())
    else:
        with pytest.raises(Skip, match="it says why"):
            asyncio.run(run())


def test_every_fault_has_a_place_and_a_name_of_its_own():
    for place in ("laptop", "servers"):
        names = [one.name for one in all_faults(place)]
        assert len(names) > 20 and names == sorted(set(names))


class World:
    """A stack that answers at once."""

    kind, port, entrances = "servers", 1, [1]

    async def postgres_answers(self):
        return True


async def back_at_once(_):
    return time.monotonic()


def named(name, healed=None):
    async def body(*_):
        try:
            yield 0.001
        finally:
            healed.append(name)

    return Fault(name, ("servers",), body)


def test_faults_come_in_turn_and_each_heals(monkeypatch):
    monkeypatch.setattr(Episode, "_back", back_at_once)

    async def run(healed):
        episode = Episode(World(), random.Random(1), 1, 1)
        monkeypatch.setattr(episode, "_dice", _Quick(episode._dice))
        faults = [named(name, healed) for name in "abc"]
        breaking = asyncio.create_task(episode._break(faults, time.monotonic() + 60))
        while len(healed) < 7:
            await asyncio.sleep(0.01)
        breaking.cancel()
        await asyncio.gather(breaking, return_exceptions=True)
        return "".join(blow.name for blow in episode.blows)

    healed = []
    assert asyncio.run(run(healed)).startswith("abcabc")
    assert "".join(healed).startswith("abcabca")


def test_a_service_that_does_not_come_back_is_a_broken_promise(monkeypatch):
    async def never(_):
        raise TimeoutError

    monkeypatch.setattr(Episode, "_back", never)

    async def run():
        episode = Episode(World(), random.Random(1), 1, 1)
        await episode._blow(named("a", []))
        return episode

    episode = asyncio.run(run())
    assert [topic for topic, _, _ in episode.ledger.complaints] == ["away"]
    assert [row.held for row in storm._returns([episode])] == [False, True]


def test_the_seed_chooses_the_order_and_later_stacks_go_on_in_it():
    faults = [named(name) for name in "abcdefgh"]
    order = shuffled(random.Random(3), faults, None)
    assert sorted(one.name for one in order) == list("abcdefgh")
    assert shuffled(random.Random(3), faults, None) == order != shuffled(random.Random(4), faults, None)
    assert [one.name for one in shuffled(random.Random(3), faults, "c")] == ["c"]
    assert from_turn(order, 0, 10) == order
    assert from_turn(order, 1, 10) == order[5:] + order[:5]
    assert from_turn([], 1, 10) == []


class _Quick:
    """Dice that keep nobody waiting."""

    def __init__(self, dice):
        self._dice = dice

    def uniform(self, low, high):
        self._dice.uniform(low, high)
        return 0.001

    def __getattr__(self, name):
        return getattr(self._dice, name)


def test_the_time_away_counts_from_what_the_service_can_do_something_about():
    assert Blow("a", 1.0, 2.0, 2.5, 0.0, {}, False).away == 0.5
    assert Blow("a", 1.0, 2.0, 2.5, 2.4, {}, True).away == pytest.approx(0.1)
    assert Blow("a", 1.0, 2.0, 2.5, 2.4, {}, False).away == 0.5


def test_libraries_in_front_of_others_are_a_list():
    joined = together({"LD_PRELOAD": "/a.so", "A": "1"}, {}, {"LD_PRELOAD": "/b.so", "B": "2"})
    assert joined == {"LD_PRELOAD": "/a.so /b.so", "A": "1", "B": "2"}


def _python(program, environment):
    done = subprocess.run([sys.executable, "-c", program], env={**os.environ, **environment}, capture_output=True, text=True, check=True)
    return done.stdout.strip()


def test_a_clock_steps_and_steps_back(directory):
    clock = Clock(directory, "test")
    if clock.why_not:
        pytest.skip(clock.why_not)
    shown = "import time; print(time.time(), time.monotonic())"
    clock.step(3600)
    begun = time.time(), time.monotonic()
    wall, monotonic = map(float, _python(shown, clock.environment).split())
    assert 3500 < wall - begun[0] < 3700 and monotonic - begun[1] < 60
    clock.step(0)
    assert abs(float(_python(shown, clock.environment).split()[0]) - time.time()) < 60


def test_fsync_is_slow_and_fails_as_it_is_told(directory):
    fsync = Fsync(directory)
    if fsync.why_not:
        pytest.skip(fsync.why_not)
    # In memory, where it takes no time by itself, however busy the disk is.
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
    episode = Episode(World(), random.Random(1), 1, 1)
    episode.ledger, episode.timeline = Ledger(random.Random(1)), Timeline()
    for _ in range(10):
        episode.timeline.record(time.monotonic() - 0.05, True)
    episode.timeline.record(time.monotonic(), False)
    episode.blows = [
        Blow("server killed", 10.0, 10.0, 10.25, 0.0, {"requests": 7, "503": 2, "no answer": 1}, False),
        Blow("server killed", 20.0, 20.0, 20.75, 0.0, {"requests": 5, "503": 1}, False),
        Blow("table <locked>", 30.0, 31.0, 31.1, 0.0, {"requests": 4}, False),
    ]
    for blow in episode.blows:
        episode.timeline.mark(blow.begun - 10 + episode.timeline.start, blow.back, blow.name)
    episode.ledger.complain("lost", "a row", 21.0)
    rows = [Row("a promise", "0", {"lost": 1}, False)]
    publish.write(directory, {"storm": rows, "calm": rows}, [episode], 7, {"storm": "make prove SEED=7", "calm": "make prove ONLY=calm"})
    publish.write(directory, {"away": rows}, [], 8, {"away": "make prove ONLY=away"})
    text = (directory / "reliability.md").read_text()
    assert re.search(r"\| server killed \| 2 \| 12 \| 503 3, no answer 1 \| 750 \| 750 \| 1 \| 0 \| 0 \| 0 \|", text), text
    assert "seed 7" in text and "make prove SEED=7" in text and "| storm | a promise | 0 | lost 1 | **no** |" in text
    assert text.count("| calm | a promise |") == text.count("| away | a promise |") == 1 and text.index("### away") < text.index("### calm")
    publish.write(directory, {"storm": rows, "away": rows}, [episode], 7, {"storm": "make prove SEED=7", "away": "make prove ONLY=away"})
    assert (directory / "reliability.md").read_text() == text
    drawn = timeline_picture.draw([episode.timeline])
    assert drawn.count("server killed at") == 2 and "table &lt;locked&gt;" in drawn
    assert (directory / "reliability.svg").read_text() == drawn
