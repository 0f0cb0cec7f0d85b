"""A stack on which somebody changes rows behind the service's back: `make prove` must see each kind of it."""

import asyncio
import random
import sys

from support import REPOSITORY

sys.path += [str(REPOSITORY / "prove"), str(REPOSITORY / "bench")]

from episode import Episode  # noqa: E402
from faults import Fault  # noqa: E402
from laptop import laptop  # noqa: E402

SECONDS, RATE = 15, 80

COLUMNS = "survived, passenger_class, name, sex, age, siblings_or_spouses_aboard, parents_or_children_aboard, fare"

# {topic: what is done to the database}
MEDDLING = {
    "lost": "delete from passengers where uuid in (select uuid from passengers where name like 'create %' limit 3)",
    "half": "update passengers set fare = fare + 1 where uuid in (select uuid from passengers where name like 'keyed %' limit 1)",
    "doubled": f"insert into passengers (uuid, {COLUMNS}) select gen_random_uuid(), {COLUMNS} from passengers where name like 'bulk %' limit 1",
    "linearizable": "update passengers set name = 'nobody 1', fare = 1, siblings_or_spouses_aboard = 1"
    " where name like 'put %' or name like 'patch %' or name like 'row %'",
    "history": "delete from passengers_history where operation = 'patch' or operation = 'replace'",
    "lists": "delete from passengers where uuid in (select uuid from passengers where name like 'still %' limit 1)",
}


def _fault(topic):
    async def body(world, _):
        done, said = await world.psql(MEDDLING[topic])
        assert done, said
        yield None

    return Fault(topic, ("laptop",), body)


def test_rows_that_are_changed_behind_the_services_back_are_seen():
    async def run():
        async with laptop() as world:
            return await Episode(world, random.Random(1), SECONDS, RATE).run([_fault(topic) for topic in MEDDLING])

    episode = asyncio.run(run())
    assert {blow.name for blow in episode.blows} == set(MEDDLING)
    topics = {topic for topic, _, _ in episode.ledger.complaints}
    assert set(MEDDLING) <= topics, topics
    assert "judges" not in topics, episode.ledger.complaints
