"""Many passengers in one body through nginx: several megabytes, forwarded as they arrive, and rejected with problem documents."""

import csv
import io
import json

import pytest

import support
from support import PASSENGER, assert_problem

MIB = 1024 * 1024
ROWS = 40_000


@pytest.fixture(scope="module")
def small():
    """A stack that accepts bodies of 12 MiB for many passengers, and of 1 MiB otherwise."""
    with support.running_stack(BULK_MAX_BYTES=12 * MIB, SEED="false") as one:
        yield one


def many(rows):
    """The same passengers in each format."""
    people = [{**PASSENGER, "name": f"Number {number} " + "x" * 80} for number in range(rows)]
    table = io.StringIO()
    writer = csv.DictWriter(table, PASSENGER)
    writer.writeheader()
    writer.writerows(people)
    return {
        "application/json": json.dumps(people).encode(),
        "application/x-ndjson": "".join(json.dumps(one) + "\n" for one in people).encode(),
        "text/csv": table.getvalue().replace("True", "true").replace("False", "false").encode(),
    }


FORMS = list(many(0))


def post(stack, media_type, body, path="/v1/passengers"):
    return stack.request("POST", path, body=body, headers={"content-type": media_type})


def count(stack):
    answer = stack.request("GET", "/v1/passengers?limit=1&select=uuid", headers={"prefer": "count=exact"})
    return int(answer.headers["content-range"].partition("/")[2])


@pytest.mark.parametrize("form", FORMS)
def test_many_megabytes_of_passengers_are_stored(small, form):
    before, body = count(small), many(ROWS)[form]
    assert len(body) > 4 * MIB
    answer = post(small, form, body)
    assert (answer.status, answer.json()) == (201, {"count": ROWS})
    assert count(small) == before + ROWS


@pytest.mark.parametrize("form", FORMS)
def test_a_bad_row_at_the_end_of_megabytes_is_named_and_nothing_is_stored(small, form):
    before = count(small)
    body = many(ROWS)[form]
    place = body.rindex(b"female")
    answer = post(small, form, body[:place] + b"femail" + body[place + 6 :])
    assert_problem(answer, 422, "invalid-fields")
    assert [error["field"] for error in answer.json()["errors"]] == ["sex"]
    assert count(small) == before


@pytest.mark.parametrize("form", FORMS)
def test_more_than_the_limit_answers_413(small, form):
    body = many(ROWS)[form] * 3
    assert len(body) > 12 * MIB
    assert_problem(post(small, form, body), 413, "body-too-large")


def test_megabytes_of_another_type_answer_415(small):
    assert_problem(post(small, "application/xml", b"<a>" * 2 * MIB), 415, "unsupported-media-type")


def test_one_passenger_has_the_usual_limit_and_so_has_the_short_url(small):
    one = json.dumps({**PASSENGER, "name": "x" * 2 * MIB}).encode()
    assert_problem(post(small, "application/json", one), 413, "body-too-large")
    array = many(ROWS)["application/json"]
    assert_problem(post(small, "application/json", array, "/postpassenger"), 413, "body-too-large")
