"""The judges of `make prove`: each sentence that they can say is said of a history made for it, and of no sound one."""

import asyncio
import collections
import json
import random
import sys

import pytest

from support import REPOSITORY

sys.path.append(str(REPOSITORY / "prove"))

import beside  # noqa: E402
import chain  # noqa: E402
import search  # noqa: E402
import shrink  # noqa: E402
import verdict  # noqa: E402
from actions import Worker  # noqa: E402
from client import Answer  # noqa: E402
from history import DONE, MISSING, PRESENT, REFUSED, UNDONE, UNKNOWN, Operation, faults  # noqa: E402
from ledger import RESOURCES, Creation, Ledger, Row  # noqa: E402
from open_loop import Timeline, open_loop  # noqa: E402
from test_prove import EXPLAINED, FOREVER, UNEXPLAINED, create, delete, read, write  # noqa: E402

PASSENGERS = RESOURCES[0]


def restore(begun, ended, outcome, version=None, name=None, source=None, expected=None):
    return Operation("restore", begun, ended, outcome, version, name, expected, source)


RESTORED = {
    "a deleted row as it was": [delete(2, 3, DONE), restore(4, 5, DONE, "v1", "created"), read(6, 7, "v1", "created")],
    "an earlier version": [write(2, 3, DONE, "a", "v1"), restore(4, 5, DONE, "v2", "created", "v0"), read(6, 7, "v2", "created")],
    "a lost restore that was seen": [delete(2, 3, DONE), restore(4, FOREVER, UNKNOWN), read(6, 7, "v1", "created")],
    "a lost restore that was not": [delete(2, 3, DONE), restore(4, FOREVER, UNKNOWN), Operation("read", 6, 7, MISSING)],
    "a conflict while it is there": [restore(2, 3, PRESENT), read(4, 5, "v0", "created")],
    "a change of a lost restore": [
        delete(2, 3, DONE),
        restore(4, FOREVER, UNKNOWN),
        write(5, 6, DONE, "a", "v2", expected="v1"),
        read(7, 8, "v2", "a"),
    ],
    "a refusal of a deleted row": [delete(2, 3, DONE), restore(4, 5, REFUSED, source="v0", expected="v0")],
}

NOT_RESTORED = {
    "a restore that did not last": [delete(2, 3, DONE), restore(4, 5, DONE, "v1", "created"), Operation("read", 6, 7, MISSING)],
    "another state than the one named": [write(2, 3, DONE, "a", "v1"), restore(4, 5, DONE, "v2", "a", "v0")],
    "without a deletion": [restore(2, 3, DONE, "v1", "created")],
    "with the version of before": [delete(2, 3, DONE), restore(4, 5, DONE, "v1", "created"), read(6, 7, "v0", "created")],
    "a conflict although it is deleted": [delete(2, 3, DONE), restore(4, 5, PRESENT), Operation("read", 6, 7, MISSING)],
    "twice": [delete(2, 3, DONE), restore(4, 5, DONE, "v1", "created"), restore(6, 7, DONE, "v2", "created")],
    "a refusal of the state that was there": [restore(2, 3, REFUSED, source="v0", expected="v0")],
    "missing": [restore(2, 3, MISSING, source="v0")],
}


@pytest.mark.parametrize("name", [*EXPLAINED, *RESTORED])
def test_the_search_finds_an_order_where_there_is_one(name):
    assert search.unexplained([create(0, 1), *(EXPLAINED | RESTORED)[name]]) is None


@pytest.mark.parametrize("name", [*UNEXPLAINED, *NOT_RESTORED])
def test_the_search_finds_no_order_where_there_is_none(name):
    assert search.unexplained([create(0, 1), *(UNEXPLAINED | NOT_RESTORED)[name]]) is not None


def test_a_search_that_would_not_end_says_so():
    many = [write(2, 60, DONE, f"n{number}", f"v{number + 1}") for number in range(12)]
    with pytest.raises(search.Undecided):
        search.unexplained([create(0, 1), *many, read(3, 70, "v99", "n99")], bound=1000)


def test_both_judges_say_the_same_of_histories_by_chance():
    """Of a row as it is, and with one answer exchanged; zones find no more than search does."""
    dice, found = random.Random(14), collections.Counter()
    for _ in range(400):
        history = _by_chance(dice)
        assert search.unexplained(history) is None, history
        assert faults(history) == [], history
        broken = _with_one_wrong_answer(dice, history)
        by_search, by_zones = search.unexplained(broken), faults(broken)
        assert by_search or not by_zones, (by_zones, broken)
        found["both" if by_zones else "search" if by_search else "neither"] += 1
    assert found["both"] > 100, found


def _by_chance(dice):
    """What four clients would be told by a row that does one thing after the other."""
    state, history, now = ("created", "v0"), [create(0, 0.5)], 1.0
    for number in range(dice.randrange(3, 14)):
        at = now + dice.random()
        begun, ended, now = at - dice.random(), at + dice.random(), at
        name, version = f"n{number}", f"v{number + 1}"
        expected = dice.choice([None, state[1], "v0"])
        if dice.random() < 0.5:
            history.append(read(begun, ended, state[1], state[0]))
        elif expected not in (None, state[1]):
            history.append(write(begun, ended, REFUSED, name, expected=expected))
        else:
            state = (name, version)
            outcome = dice.choice([DONE, DONE, UNKNOWN])
            history.append(write(begun, FOREVER if outcome == UNKNOWN else ended, outcome, name, version if outcome == DONE else None, expected))
    return history


def _with_one_wrong_answer(dice, history):
    reads = [place for place, op in enumerate(history) if op.kind == "read"]
    if not reads:
        return [*history, read(98, 99, "v98", "nobody")]
    place = dice.choice(reads)
    other = dice.choice([op for op in history if op.version and op.name])
    wrong = read(history[place].begun, history[place].ended, other.version, other.name)
    return [*history[:place], wrong, *history[place + 1 :]]


# --- a row's history ------------------------------------------------------------------------------------------------


def entry(operation, before, after, name, by=None):
    return {"operation": operation, "versionBefore": before, "versionAfter": after, "name": name, "changedBy": by}


CREATED = entry("create", None, "v0", None)
CHANGED = [CREATED, entry("replace", "v0", "v1", "created")]
WROTE = write(2, 3, DONE, "a", "v1")

SOUND = {
    "a change": ([WROTE], CHANGED, "a"),
    "a lost change that came": ([write(2, FOREVER, UNKNOWN, "a")], CHANGED, "a"),
    "a lost change that did not": ([write(2, FOREVER, UNKNOWN, "b"), WROTE], CHANGED, "a"),
    "deleted and restored": (
        [delete(2, 3, DONE, "v0"), restore(4, 5, DONE, "v1", "created"), read(6, 7, "v1", "created")],
        [CREATED, entry("delete", "v0", None, "created"), entry("restore", None, "v1", None)],
        "created",
    ),
    "at the same time": ([WROTE, read(2, 4, "v0", "created")], CHANGED, "a"),
}

UNSOUND = {
    "acknowledged and not in the history": ([WROTE], [CREATED], "created"),
    "entry 1 follows version v7": ([WROTE], [CREATED, entry("replace", "v7", "v1", "created")], "a"),
    "entry 1, replace, has version None after it": ([], [CREATED, entry("replace", "v0", None, "created")], None),
    "version v0 was given twice": ([write(2, 3, UNKNOWN, "a")], [CREATED, entry("patch", "v0", "v0", "created")], "a"),
    "entry 1, replace, holds None": ([WROTE], [CREATED, entry("replace", "v0", "v1", None)], "a"),
    "entry 1 is called restore": ([WROTE], [CREATED, entry("restore", "v0", "v1", "created")], "a"),
    "entry 1 names somebody": (
        [Operation("write", 2, 3, DONE, "v1", "a", principal="me")],
        [CREATED, entry("replace", "v0", "v1", "created", "somebody")],
        "a",
    ),
    "entry 2 found b": ([WROTE], CHANGED, "b"),
    "entry 1, replace to b, was answered otherwise": ([write(2, 3, UNDONE, "b")], CHANGED, "b"),
    "entry 1, restore to": ([], [CREATED, entry("restore", "v0", "v1", "created")], "created"),
    "0 deletions, of 1": ([delete(2, 3, DONE)], [CREATED], "created"),
    "1 deletions, of 0": ([], [CREATED, entry("delete", "v0", None, "created")], None),
    "read, and not in the history": ([read(2, 3, "v7", "a")], [CREATED], "created"),
    "ended before what stands in front of it began": ([WROTE, write(4, 5, DONE, "b", "v2")], [
        CREATED, entry("replace", "v0", "v2", "created"), entry("replace", "v2", "v1", "b")], "a"),
}  # fmt: skip


@pytest.mark.parametrize("name", SOUND)
def test_a_history_that_says_what_was_done_has_no_fault(name):
    operations, entries, current = SOUND[name]
    assert chain.faults([create(0, 1), *operations], entries, current) == []


@pytest.mark.parametrize("name", UNSOUND)
def test_a_history_that_says_otherwise_is_reported(name):
    operations, entries, current = UNSOUND[name]
    found = chain.faults([create(0, 1), *operations], entries, current)
    assert any(sentence.startswith(name) for sentence in found), found


def test_a_stale_read_is_not_between_its_entries():
    found = chain.faults([create(0, 1), WROTE, read(4, 5, "v1", "a"), read(6, 7, "v0", "created")], CHANGED, "a")
    assert [sentence for sentence in found if sentence.startswith("ended before")], found


def test_the_smallest_history_has_what_shows_the_fault_and_nothing_else():
    sound = [write(number, number + 0.5, DONE, f"n{number}", f"v{number}") for number in range(2, 60)]
    reads = [read(number + 0.6, number + 0.8, f"v{number}", f"n{number}") for number in range(2, 60)]
    stale = read(70, 71, "v30", "n30")
    history = [create(0, 1), *sound, *reads, stale]
    smallest = shrink.smallest(history, lambda operations: search.unexplained(operations) is not None)
    assert stale in smallest and len(smallest) <= 4, list(map(str, smallest))
    assert sound[28] in smallest, "what the read speaks of stays"


# --- what was told, and what there is -----------------------------------------------------------------------------


class Service:
    """Answers each path with a text that was prepared for it."""

    def __init__(self, **answers):
        self.answers = answers

    async def ask(self, method, target, body=None, headers=None):
        name = "history" if "/history" in target else "list" if "?limit" in target else "one"
        return Answer(200, {}, json.dumps(self.answers.get(name, [])).encode())


def _there(*names):
    return {f"u{number}": {"uuid": f"u{number}", **PASSENGERS.body(name)} for number, name in enumerate(names)}


def _creation(names, outcome, how="create", uuid=None):
    return Creation(PASSENGERS, names, outcome, 1.0, how, uuid)


@pytest.mark.parametrize(
    ("topic", "creation", "there"),
    [
        (None, _creation(["a 1"], DONE, uuid="u0"), ["a 1"]),
        (None, _creation(["a 1"], UNKNOWN), ["a 1"]),
        (None, _creation(["a 1"], UNKNOWN), []),
        (None, _creation(["a 1", "a 2"], UNKNOWN, "bulk"), []),
        (None, _creation(["a 1", "a 2"], DONE, "bulk"), ["a 1", "a 2"]),
        ("lost", _creation(["a 1"], DONE, uuid="u0"), []),
        ("lost", _creation(["a 1"], DONE, uuid="u7"), ["a 1"]),
        ("lost", _creation(["a 1", "a 2"], DONE, "import"), ["a 1"]),
        ("untruthful", _creation(["a 1"], UNDONE), ["a 1"]),
        ("half", _creation(["a 1", "a 2"], UNKNOWN, "bulk"), ["a 1"]),
        ("doubled", _creation(["a 1"], DONE, uuid="u0"), ["a 1", "a 1"]),
        ("doubled", _creation(["a 1"], UNKNOWN), ["a 1", "a 1"]),
    ],
)
def test_creations_are_compared_with_what_there_is(topic, creation, there):
    ledger = Ledger(random.Random(1))
    ledger.creations.append(creation)
    verdict._creations(ledger, PASSENGERS, _there(*there))
    assert [said for said, _, _ in ledger.complaints] == ([topic] if topic else [])


def test_half_a_row_is_seen():
    ledger, there = Ledger(random.Random(1)), _there("a 1")
    there["u0"]["fare"] = 2.0
    verdict._creations(ledger, PASSENGERS, there)
    assert [topic for topic, _, _ in ledger.complaints] == ["half"]


@pytest.mark.parametrize(("seen", "count"), [({"u1": 1, "u2": 1}, 0), ({"u1": 1}, 1), ({"u1": 1, "u2": 2}, 1), ({"u1": 1, "u2": 1, "u3": 2}, 0)])
def test_a_list_has_each_row_that_nobody_touched_once(seen, count):
    ledger = Ledger(random.Random(1))
    ledger.still["passengers"] = {"u1": "still 1", "u2": "still 2"}
    beside._each_once(ledger, PASSENGERS, collections.Counter(seen), "/v1/passengers")
    assert len(ledger.complaints) == count


def _problem(status, code, **headers):
    body = {"status": status, "code": code, "type": f"/docs/problems/{code}"}
    return Answer(status, {"content-type": "application/problem+json", **headers}, json.dumps(body).encode())


@pytest.mark.parametrize(
    ("answer", "outcome", "is_right"),
    [
        (_problem(503, "unavailable", **{"retry-after": "1"}), UNDONE, True),
        (_problem(503, "unavailable"), UNDONE, False),
        (_problem(503, "outcome-unknown"), UNKNOWN, True),
        (_problem(503, "outcome-unknown", **{"retry-after": "1"}), UNKNOWN, False),
        (_problem(500, "internal"), UNKNOWN, False),
        (_problem(412, "precondition-failed"), REFUSED, True),
        (_problem(404, "not-found"), MISSING, True),
        (_problem(422, "invalid-fields"), UNKNOWN, False),
        (Answer(502, {"content-type": "text/html"}, b"<html>"), UNKNOWN, False),
    ],
)
def test_errors_are_judged_by_form_and_code(answer, outcome, is_right):
    ledger = Ledger(random.Random(1))
    assert ledger.outcome(answer) == outcome
    assert (not ledger.complaints) == is_right


def _worker(body, etag='"2"'):
    worker = Worker(Ledger(random.Random(1)), 1, Timeline())

    async def ask(*_, **__):
        return Answer(200, {"etag": etag, "content-type": "application/json"}, json.dumps(body).encode())

    worker._client.ask = ask
    return worker, Row(PASSENGERS, "u1", create(0, 1))


@pytest.mark.parametrize(
    ("body", "topics"),
    [
        ({"uuid": "u1", **PASSENGERS.body("a 1")}, []),
        ({"uuid": "u2", **PASSENGERS.body("a 1")}, ["mixed"]),
        ({"uuid": "u1", **PASSENGERS.body("a 1"), "fare": 2.0}, ["half"]),
    ],
)
def test_an_answer_must_be_the_row_that_was_asked_for_and_whole(body, topics):
    worker, row = _worker(body)
    asyncio.run(worker.read(row))
    assert [topic for topic, _, _ in worker._ledger.complaints] == topics


def test_a_version_that_is_two_states_is_seen():
    worker, row = _worker({"uuid": "u1", **PASSENGERS.body("a 1")})
    row.states['"2"'] = "b 2"
    asyncio.run(worker.read(row))
    assert [topic for topic, _, _ in worker._ledger.complaints] == ["versions"]


def test_a_retry_that_is_answered_with_another_row_is_seen():
    worker, _ = _worker({"uuid": "u1", **PASSENGERS.body("a 1")})
    creation = _creation(["a 1"], DONE, "create with key", "u0")
    asyncio.run(worker._send(creation, b"", {"Idempotency-Key": "a"}))
    assert [topic for topic, _, _ in worker._ledger.complaints] == ["doubled"]


def test_a_row_that_is_not_linearizable_is_shown_with_its_smallest_history():
    ledger, counted = Ledger(random.Random(1)), collections.Counter()
    history = [create(0, 1), WROTE, read(4, 5, "v1", "a"), read(4, 5, "v1", "a"), read(6, 7, "v0", "created")]
    verdict.judge_row(ledger, "/v1/passengers/u1", history, counted)
    assert counted["not linearizable"] == 1
    ((topic, _, sentence),) = ledger.complaints
    assert topic == "linearizable" and "Smallest:" in sentence


def test_judges_that_do_not_agree_are_a_fault_of_theirs(monkeypatch):
    def judged(unexplained):
        ledger = Ledger(random.Random(1))
        monkeypatch.setattr(search, "unexplained", unexplained)
        verdict.judge_row(ledger, "/v1/passengers/u1", [create(0, 1), *UNEXPLAINED["stale: the state"]], collections.Counter())
        return [topic for topic, _, _ in ledger.complaints]

    def undecided(_):
        raise search.Undecided

    assert judged(lambda _: None) == ["judges", "linearizable"]
    assert judged(undecided) == ["linearizable"]


def test_requests_that_waited_for_their_turn_are_late_from_when_they_were_due():
    timeline = Timeline()

    async def act(_, due):
        await asyncio.sleep(0.05)
        timeline.record(due, True)

    asyncio.run(open_loop(100, 0.2, [None], act))
    latencies = timeline.all_latencies()
    assert len(latencies) == 20
    # One worker of 20 requests a second for what is due at 100: the last is due at 0.19 s and begins at 0.95 s.
    assert max(latencies) > 0.7
