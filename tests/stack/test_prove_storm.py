"""A stack whose rows are changed directly in the database: `make prove` must detect each kind of corruption."""

import asyncio
import random
import re
import subprocess
import sys
import types

from support import REPOSITORY

sys.path += [str(REPOSITORY / "prove"), str(REPOSITORY / "bench")]

from episode import Episode  # noqa: E402
from faults import Fault  # noqa: E402
from scenarios import volume  # noqa: E402
from single import single  # noqa: E402

SECONDS, RATE = 15, 80

COLUMNS = "survived, passenger_class, name, sex, age, siblings_or_spouses_aboard, parents_or_children_aboard, fare"

# {topic of the violation: statement that causes it}
CORRUPTIONS = {
    "lost": "delete from passengers where uuid in (select uuid from passengers where name like 'create %' limit 3)",
    "partial": "update passengers set fare = fare + 1 where uuid in (select uuid from passengers where name like 'keyed %' limit 1)",
    "doubled": f"insert into passengers (uuid, {COLUMNS}) select gen_random_uuid(), {COLUMNS} from passengers where name like 'bulk %' limit 1",
    "linearizable": "update passengers set name = 'corrupt 1', fare = 1, siblings_or_spouses_aboard = 1"
    " where name like 'put %' or name like 'patch %' or name like 'row %'",
    "history": "delete from passengers_history where operation = 'patch' or operation = 'replace'",
    "lists": "delete from passengers where uuid in (select uuid from passengers where name like 'untouched %' limit 1)",
}


# The same for the load of `volume`, most of whose rows are not changed any more when the later ones of these are executed.
CORRUPTIONS_OF_VOLUME = {
    "lost": "delete from passengers where uuid in (select uuid from passengers order by random() limit 20)",
    "partial": "update passengers set fare = fare + 1 where uuid in (select uuid from passengers order by random() limit 20)",
    "linearizable": CORRUPTIONS["linearizable"],
    "history": CORRUPTIONS["history"],
}


def _fault(topic, corruptions=CORRUPTIONS):
    async def body(deployment, _):
        # Without the lock the statement could deadlock with the load, because it does not lock rows in key order.
        table = re.search(r"passengers\w*", corruptions[topic])[0]
        done, output = await deployment.psql(f"begin; lock {table} in share row exclusive mode; {corruptions[topic]}; commit")
        assert done, output
        yield None

    return Fault(topic, ("single",), body)


def test_rows_that_are_changed_directly_in_the_database_are_detected():
    async def run():
        async with single() as deployment:
            return await Episode(deployment, random.Random(1), SECONDS, RATE).run([_fault(topic) for topic in CORRUPTIONS])

    episode = asyncio.run(run())
    assert {injection.name for injection in episode.injections} == set(CORRUPTIONS)
    topics = {topic for topic, _, _ in episode.ledger.violations}
    assert set(CORRUPTIONS) <= topics, topics
    assert "checkers" not in topics, episode.ledger.violations


def test_they_are_detected_by_volume_too():
    build = ["cargo", "build", "--release", "--locked", "--quiet", "--manifest-path", "prove/load/Cargo.toml", "--target-dir", "var/prove/target"]
    subprocess.run(build, cwd=REPOSITORY, check=True)
    context = types.SimpleNamespace(number=lambda name, default: {"EVERY": 1, "SEARCH": 2}.get(name, default))
    faults = [_fault(topic, CORRUPTIONS_OF_VOLUME) for topic in CORRUPTIONS_OF_VOLUME]

    async def run():
        async with single() as deployment:
            return await volume.Episode(deployment, random.Random(1), context).run(faults, SECONDS, 0)

    episode = asyncio.run(run())
    assert {injection.name for injection in episode.injections} == set(CORRUPTIONS_OF_VOLUME)
    topics = {topic for topic, _, _ in episode.ledger.violations}
    assert set(CORRUPTIONS_OF_VOLUME) <= topics, topics
    assert "checkers" not in topics, episode.ledger.violations
    (smallest, *_) = sorted((text for topic, _, text in episode.ledger.violations if topic == "linearizable"), key=len)
    assert "Smallest history: " in smallest
