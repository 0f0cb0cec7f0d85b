"""The checkers of `make prove`: each anomaly is reported for a history constructed for it, and none for a correct history."""

import asyncio
import collections
import json
import random
import sys

import pytest

from support import REPOSITORY

sys.path.append(str(REPOSITORY / "prove"))

import background  # noqa: E402
import chain  # noqa: E402
import search  # noqa: E402
import shrink  # noqa: E402
import checker  # noqa: E402
import histories  # noqa: E402
from actions import Worker  # noqa: E402
from client import Answer  # noqa: E402
from history import DONE, NOT_FOUND, CONFLICT, PRECONDITION_FAILED, NOT_DONE, UNKNOWN, Operation, anomalies  # noqa: E402
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
    "a lost restore that was not applied": [delete(2, 3, DONE), restore(4, FOREVER, UNKNOWN), Operation("read", 6, 7, NOT_FOUND)],
    "a conflict while the row exists": [restore(2, 3, CONFLICT), read(4, 5, "v0", "created")],
    "a change of a lost restore": [
        delete(2, 3, DONE),
        restore(4, FOREVER, UNKNOWN),
        write(5, 6, DONE, "a", "v2", expected="v1"),
        read(7, 8, "v2", "a"),
    ],
    "a failed precondition of a deleted row": [delete(2, 3, DONE), restore(4, 5, PRECONDITION_FAILED, source="v0", expected="v0")],
}

NOT_RESTORED = {
    "a restore that did not last": [delete(2, 3, DONE), restore(4, 5, DONE, "v1", "created"), Operation("read", 6, 7, NOT_FOUND)],
    "another state than the one named": [write(2, 3, DONE, "a", "v1"), restore(4, 5, DONE, "v2", "a", "v0")],
    "without a deletion": [restore(2, 3, DONE, "v1", "created")],
    "with the version from before the deletion": [delete(2, 3, DONE), restore(4, 5, DONE, "v1", "created"), read(6, 7, "v0", "created")],
    "a conflict although it is deleted": [delete(2, 3, DONE), restore(4, 5, CONFLICT), Operation("read", 6, 7, NOT_FOUND)],
    "twice": [delete(2, 3, DONE), restore(4, 5, DONE, "v1", "created"), restore(6, 7, DONE, "v2", "created")],
    "a failed precondition with the current version": [restore(2, 3, PRECONDITION_FAILED, source="v0", expected="v0")],
    "missing": [restore(2, 3, NOT_FOUND, source="v0")],
}


@pytest.mark.parametrize("name", [*EXPLAINED, *RESTORED])
def test_the_search_finds_an_order_where_there_is_one(name):
    assert search.unexplained([create(0, 1), *(EXPLAINED | RESTORED)[name]]) is None


@pytest.mark.parametrize("name", [*UNEXPLAINED, *NOT_RESTORED])
def test_the_search_finds_no_order_where_there_is_none(name):
    assert search.unexplained([create(0, 1), *(UNEXPLAINED | NOT_RESTORED)[name]]) is not None


def test_a_search_beyond_its_bound_is_undecided():
    many = [write(2, 60, DONE, f"n{number}", f"v{number + 1}") for number in range(12)]
    with pytest.raises(search.Undecided):
        search.unexplained([create(0, 1), *many, read(3, 70, "v99", "n99")], bound=1000)


def test_both_checkers_agree_on_random_histories():
    """Correct histories, and ones with one wrong read; the zones report no more than the search does."""
    rng, found = random.Random(14), collections.Counter()
    for _ in range(400):
        history = _random_history(rng)
        assert search.unexplained(history) is None, history
        assert anomalies(history) == [], history
        broken = _with_one_wrong_answer(rng, history)
        by_search, by_zones = search.unexplained(broken), anomalies(broken)
        assert by_search or not by_zones, (by_zones, broken)
        found["both" if by_zones else "search" if by_search else "neither"] += 1
    assert found["both"] > 100, found


def _random_history(rng):
    """The answers of a row that applies one operation after the other, with overlapping requests."""
    state, history, now = ("created", "v0"), [create(0, 0.5)], 1.0
    for number in range(rng.randrange(3, 14)):
        at = now + rng.random()
        begun, ended, now = at - rng.random(), at + rng.random(), at
        name, version = f"n{number}", f"v{number + 1}"
        expected = rng.choice([None, state[1], "v0"])
        if rng.random() < 0.5:
            history.append(read(begun, ended, state[1], state[0]))
        elif expected not in (None, state[1]):
            history.append(write(begun, ended, PRECONDITION_FAILED, name, expected=expected))
        else:
            state = (name, version)
            outcome = rng.choice([DONE, DONE, UNKNOWN])
            history.append(write(begun, FOREVER if outcome == UNKNOWN else ended, outcome, name, version if outcome == DONE else None, expected))
    return history


def _with_one_wrong_answer(rng, history):
    reads = [index for index, op in enumerate(history) if op.kind == "read"]
    if not reads:
        return [*history, read(98, 99, "v98", "nobody")]
    index = rng.choice(reads)
    other = rng.choice([op for op in history if op.version and op.name])
    wrong = read(history[index].begun, history[index].ended, other.version, other.name)
    return [*history[:index], wrong, *history[index + 1 :]]


# --- a row's history ------------------------------------------------------------------------------------------------


def entry(operation, before, after, name, by=None):
    return {"operation": operation, "versionBefore": before, "versionAfter": after, "name": name, "changedBy": by}


CREATED = entry("create", None, "v0", None)
CHANGED = [CREATED, entry("replace", "v0", "v1", "created")]
WROTE = write(2, 3, DONE, "a", "v1")

SOUND = {
    "a change": ([WROTE], CHANGED, "a"),
    "a lost change that was applied": ([write(2, FOREVER, UNKNOWN, "a")], CHANGED, "a"),
    "a lost change that was not applied": ([write(2, FOREVER, UNKNOWN, "b"), WROTE], CHANGED, "a"),
    "deleted and restored": (
        [delete(2, 3, DONE, "v0"), restore(4, 5, DONE, "v1", "created"), read(6, 7, "v1", "created")],
        [CREATED, entry("delete", "v0", None, "created"), entry("restore", None, "v1", None)],
        "created",
    ),
    "concurrent": ([WROTE, read(2, 4, "v0", "created")], CHANGED, "a"),
}

UNSOUND = {
    "acknowledged but missing from the history": ([WROTE], [CREATED], "created"),
    "entry 1 follows version v7": ([WROTE], [CREATED, entry("replace", "v7", "v1", "created")], "a"),
    "entry 1 (replace) has versionAfter None": ([], [CREATED, entry("replace", "v0", None, "created")], None),
    "version v0 was assigned twice": ([write(2, 3, UNKNOWN, "a")], [CREATED, entry("patch", "v0", "v0", "created")], "a"),
    "entry 1 (replace) has None as its previous state": ([WROTE], [CREATED, entry("replace", "v0", "v1", None)], "a"),
    "entry 1 has operation restore": ([WROTE], [CREATED, entry("restore", "v0", "v1", "created")], "a"),
    "entry 1 has changedBy somebody": (
        [Operation("write", 2, 3, DONE, "v1", "a", principal="me")],
        [CREATED, entry("replace", "v0", "v1", "created", "somebody")],
        "a",
    ),
    "entry 2 has previous state b": ([WROTE], CHANGED, "b"),
    "entry 1 (replace to b)": ([write(2, 3, NOT_DONE, "b")], CHANGED, "b"),
    "entry 1 (restore to": ([], [CREATED, entry("restore", "v0", "v1", "created")], "created"),
    "0 deletions, expected 1": ([delete(2, 3, DONE)], [CREATED], "created"),
    "1 deletions, expected 0": ([], [CREATED, entry("delete", "v0", None, "created")], None),
    "read but missing from the history": ([read(2, 3, "v7", "a")], [CREATED], "created"),
    "real-time order violated": ([WROTE, write(4, 5, DONE, "b", "v2")], [
        CREATED, entry("replace", "v0", "v2", "created"), entry("replace", "v2", "v1", "b")], "a"),
}  # fmt: skip


@pytest.mark.parametrize("name", SOUND)
def test_a_history_that_matches_the_answers_has_no_anomaly(name):
    operations, entries, current = SOUND[name]
    assert chain.anomalies([create(0, 1), *operations], entries, current) == []


@pytest.mark.parametrize("name", UNSOUND)
def test_a_history_that_contradicts_the_answers_is_reported(name):
    operations, entries, current = UNSOUND[name]
    found = chain.anomalies([create(0, 1), *operations], entries, current)
    assert any(anomaly.startswith(name) for anomaly in found), found


def test_a_stale_read_is_not_between_its_entries():
    found = chain.anomalies([create(0, 1), WROTE, read(4, 5, "v1", "a"), read(6, 7, "v0", "created")], CHANGED, "a")
    assert [anomaly for anomaly in found if anomaly.startswith("real-time order violated")], found


def test_the_smallest_history_has_what_shows_the_anomaly_and_nothing_else():
    sound = [write(number, number + 0.5, DONE, f"n{number}", f"v{number}") for number in range(2, 60)]
    reads = [read(number + 0.6, number + 0.8, f"v{number}", f"n{number}") for number in range(2, 60)]
    stale = read(70, 71, "v30", "n30")
    history = [create(0, 1), *sound, *reads, stale]
    smallest = shrink.smallest(history, lambda operations: search.unexplained(operations) is not None)
    assert stale in smallest and len(smallest) <= 4, list(map(str, smallest))
    assert sound[28] in smallest, "the write that the read observed is kept"


# --- answers and the final state ----------------------------------------------------------------------------------


class Service:
    """Answers each kind of path with a prepared body."""

    def __init__(self, **answers):
        self.answers = answers

    async def request(self, method, target, body=None, headers=None):
        name = "history" if "/history" in target else "list" if "?limit" in target else "one"
        return Answer(200, {}, json.dumps(self.answers.get(name, [])).encode())


def _present(*names):
    return {f"u{number}": {"uuid": f"u{number}", **PASSENGERS.body(name)} for number, name in enumerate(names)}


def _creation(names, outcome, how="create", uuid=None):
    return Creation(PASSENGERS, names, outcome, 1.0, how, uuid)


@pytest.mark.parametrize(
    ("topic", "creation", "present"),
    [
        (None, _creation(["a 1"], DONE, uuid="u0"), ["a 1"]),
        (None, _creation(["a 1"], UNKNOWN), ["a 1"]),
        (None, _creation(["a 1"], UNKNOWN), []),
        (None, _creation(["a 1", "a 2"], UNKNOWN, "bulk"), []),
        (None, _creation(["a 1", "a 2"], DONE, "bulk"), ["a 1", "a 2"]),
        ("lost", _creation(["a 1"], DONE, uuid="u0"), []),
        ("lost", _creation(["a 1"], DONE, uuid="u7"), ["a 1"]),
        ("lost", _creation(["a 1", "a 2"], DONE, "import"), ["a 1"]),
        ("wrong outcome", _creation(["a 1"], NOT_DONE), ["a 1"]),
        ("partial", _creation(["a 1", "a 2"], UNKNOWN, "bulk"), ["a 1"]),
        ("doubled", _creation(["a 1"], DONE, uuid="u0"), ["a 1", "a 1"]),
        ("doubled", _creation(["a 1"], UNKNOWN), ["a 1", "a 1"]),
    ],
)
def test_creations_are_compared_with_the_final_state(topic, creation, present):
    ledger = Ledger(random.Random(1))
    ledger.creations.append(creation)
    checker.check_creations(ledger, PASSENGERS, _present(*present))
    assert [found for found, _, _ in ledger.violations] == ([topic] if topic else [])


def test_a_partial_row_is_seen():
    ledger, present = Ledger(random.Random(1)), _present("a 1")
    present["u0"]["fare"] = 2.0
    checker.check_creations(ledger, PASSENGERS, present)
    assert [topic for topic, _, _ in ledger.violations] == ["partial"]


@pytest.mark.parametrize(("seen", "count"), [({"u1": 1, "u2": 1}, 0), ({"u1": 1}, 1), ({"u1": 1, "u2": 2}, 1), ({"u1": 1, "u2": 1, "u3": 2}, 0)])
def test_a_list_has_each_untouched_row_once(seen, count):
    ledger = Ledger(random.Random(1))
    ledger.untouched["passengers"] = {"u1": "untouched 1", "u2": "untouched 2"}
    background._check_untouched(ledger, PASSENGERS, collections.Counter(seen), "/v1/passengers")
    assert len(ledger.violations) == count


def _problem(status, code, **headers):
    body = {"status": status, "code": code, "type": f"/docs/problems/{code}"}
    return Answer(status, {"content-type": "application/problem+json", **headers}, json.dumps(body).encode())


@pytest.mark.parametrize(
    ("answer", "outcome", "is_right"),
    [
        (_problem(503, "unavailable", **{"retry-after": "1"}), NOT_DONE, True),
        (_problem(503, "unavailable"), NOT_DONE, False),
        (_problem(503, "outcome-unknown"), UNKNOWN, True),
        (_problem(503, "outcome-unknown", **{"retry-after": "1"}), UNKNOWN, False),
        (_problem(500, "internal"), UNKNOWN, False),
        (_problem(412, "precondition-failed"), PRECONDITION_FAILED, True),
        (_problem(404, "not-found"), NOT_FOUND, True),
        (_problem(422, "invalid-fields"), UNKNOWN, False),
        (Answer(502, {"content-type": "text/html"}, b"<html>"), UNKNOWN, False),
    ],
)
def test_errors_are_checked_for_form_and_code(answer, outcome, is_right):
    ledger = Ledger(random.Random(1))
    assert ledger.outcome(answer) == outcome
    assert (not ledger.violations) == is_right


def _worker(body, etag='"2"'):
    worker = Worker(Ledger(random.Random(1)), 1, Timeline())

    async def request(*_, **__):
        return Answer(200, {"etag": etag, "content-type": "application/json"}, json.dumps(body).encode())

    worker._client.request = request
    return worker, Row(PASSENGERS, "u1", create(0, 1))


@pytest.mark.parametrize(
    ("body", "topics"),
    [
        ({"uuid": "u1", **PASSENGERS.body("a 1")}, []),
        ({"uuid": "u2", **PASSENGERS.body("a 1")}, ["mixed"]),
        ({"uuid": "u1", **PASSENGERS.body("a 1"), "fare": 2.0}, ["partial"]),
    ],
)
def test_an_answer_must_be_the_complete_requested_row(body, topics):
    worker, row = _worker(body)
    asyncio.run(worker.read(row))
    assert [topic for topic, _, _ in worker._ledger.violations] == topics


def test_a_version_with_two_states_is_seen():
    worker, row = _worker({"uuid": "u1", **PASSENGERS.body("a 1")})
    row.states['"2"'] = "b 2"
    asyncio.run(worker.read(row))
    assert [topic for topic, _, _ in worker._ledger.violations] == ["versions"]


def test_a_retry_that_is_answered_with_another_row_is_seen():
    worker, _ = _worker({"uuid": "u1", **PASSENGERS.body("a 1")})
    creation = _creation(["a 1"], DONE, "create with key", "u0")
    asyncio.run(worker._send(creation, b"", {"Idempotency-Key": "a"}))
    assert [topic for topic, _, _ in worker._ledger.violations] == ["doubled"]


def test_a_row_that_is_not_linearizable_is_shown_with_its_smallest_history():
    ledger, counted = Ledger(random.Random(1)), collections.Counter()
    history = [create(0, 1), WROTE, read(4, 5, "v1", "a"), read(4, 5, "v1", "a"), read(6, 7, "v0", "created")]
    checker.check_row(ledger, "/v1/passengers/u1", history, counted)
    assert counted["not linearizable"] == 1
    ((topic, _, description),) = ledger.violations
    assert topic == "linearizable" and "Smallest history:" in description


def test_checkers_that_disagree_are_a_violation(monkeypatch):
    def topics(unexplained):
        ledger = Ledger(random.Random(1))
        monkeypatch.setattr(search, "unexplained", unexplained)
        checker.check_row(ledger, "/v1/passengers/u1", [create(0, 1), *UNEXPLAINED["stale: the state of the first"]], collections.Counter())
        return [topic for topic, _, _ in ledger.violations]

    def undecided(_):
        raise search.Undecided

    assert topics(lambda _: None) == ["checkers", "linearizable"]
    assert topics(undecided) == ["linearizable"]


def test_latency_counts_from_when_a_request_was_due():
    timeline = Timeline()

    async def act(_, due):
        await asyncio.sleep(0.05)
        timeline.record(due, True)

    asyncio.run(open_loop(100, 0.2, [None], act))
    latencies = timeline.all_latencies()
    assert len(latencies) == 20
    # One worker of 20 requests a second for what is due at 100: the last is due at 0.19 s and begins at 0.95 s.
    assert max(latencies) > 0.7


# --- histories as prove/load writes them --------------------------------------------------------------------------

PATH = "/v1/passengers/u1"
LATE = (100, 101)  # of the last read of a row


def _line(*operations, number=1):
    """A line of prove/load about a row."""
    fields = [
        [op.kind, int(op.begun * 1e9), None if op.ended == FOREVER else int(op.ended * 1e9), op.outcome, op.version, op.name, op.expected, op.source]
        for op in operations
    ]
    return json.dumps({"row": number, "path": PATH, "operations": fields}).encode()


def _topics(found):
    return sorted({topic for topic, _, _ in found.ledger.violations})


def test_a_line_without_a_violation_is_counted():
    checked = histories.Histories(search=1, seed=0)
    line = _line(create(0, 1), WROTE, write(4, 5, NOT_DONE, "b"), Operation("read", 6, FOREVER, UNKNOWN), read(*LATE, "v1", "a"))
    assert checked.add(line)["names"] == ["a"] and _topics(checked) == []
    # The refused write and the read without an answer carry no information.
    assert (checked.counted["operations"], checked.counted["rows"], checked.counted["checked by both"]) == (3, 1, 1)


@pytest.mark.parametrize("search_every", [1, 2])
@pytest.mark.parametrize("name", UNEXPLAINED)
def test_a_violation_in_a_line_is_found_whether_or_not_the_row_is_searched(name, search_every):
    checked = histories.Histories(search_every, seed=0, begin=1000.0)
    checked.add(_line(create(0, 1), *UNEXPLAINED[name], number=1))
    assert "linearizable" in _topics(checked) and "checkers" not in _topics(checked)
    ((_, at, description),) = [one for one in checked.ledger.violations if one[0] == "linearizable"]
    assert description.startswith(f"{PATH}: {name}") and "Smallest history:" in description and at > 1000


@pytest.mark.parametrize("name", NOT_RESTORED)
def test_a_row_with_restores_is_always_searched(name):
    checked = histories.Histories(search=2, seed=0)
    checked.add(_line(create(0, 1), *NOT_RESTORED[name], number=1))
    is_restored = any(op.kind == "restore" and op.outcome == DONE for op in NOT_RESTORED[name])
    assert ("linearizable" in _topics(checked)) == is_restored


def test_the_seed_chooses_the_rows_that_are_searched():
    found = [histories.Histories(2, seed).add(_line(create(0, 1), read(*LATE, "v0", "created"), number=7)) for seed in (0, 1)]
    assert ["operations" in one for one in found] == [False, True]


@pytest.mark.parametrize(
    ("topic", "operations"),
    [
        ("versions", [WROTE, read(*LATE, "v1", "created")]),
        ("errors", [WROTE, Operation("read", *LATE, NOT_DONE)]),
    ],
)
def test_versions_and_unreadable_rows_are_checked(topic, operations):
    checked = histories.Histories(1, 0)
    checked.add(_line(create(0, 1), *operations))
    assert topic in _topics(checked)


def test_a_violation_that_the_load_reports_is_kept():
    checked = histories.Histories(1, 0)
    assert checked.add(b'{"violation": ["mixed", "a text"]}') == {} and _topics(checked) == ["mixed"]
    assert checked.add(b'{"summary": {"requests": 1}}') == {"summary": {"requests": 1}}


LOST_WRITE = write(2, FOREVER, UNKNOWN, "b")


@pytest.mark.parametrize(
    ("operations", "current", "is_right"),
    [
        ([read(*LATE, "v0", "created")], "created", True),
        ([read(*LATE, "v0", "created")], "b", False),
        ([read(*LATE, "v0", "created")], None, False),
        ([LOST_WRITE, read(*LATE, "v0", "created")], "b", True),
        ([delete(2, FOREVER, UNKNOWN), read(*LATE, "v0", "created")], None, True),
        ([delete(2, 3, DONE), Operation("read", *LATE, NOT_FOUND)], None, True),
        ([delete(2, 3, DONE), Operation("read", *LATE, NOT_FOUND)], "created", False),
        ([delete(2, 3, DONE), restore(4, FOREVER, UNKNOWN), Operation("read", *LATE, NOT_FOUND)], "created", True),
    ],
)
def test_the_final_state_is_one_that_the_answers_allow(operations, current, is_right):
    present = {"u1": {"name": current}} if current else {}
    wrong = list(histories.wrong_states({"u1": histories.states_after([create(0, 1), *operations])}, present))
    assert (wrong == []) == is_right, wrong
