"""The service answers every request according to its OpenAPI document, with any credentials."""

import os
import pathlib
import random
import subprocess
import sys

import pytest

import support

# The same requests each time, unless a number of examples is set; the printed seed repeats them.
EXAMPLES = os.environ.get("FUZZ_EXAMPLES")
SEED = os.environ.get("FUZZ_SEED") or (str(random.randrange(2**32)) if EXAMPLES else "1")

# The service correctly rejects some schema-valid requests: an If-Match with another version, a filter whose end is before
# its start, a used Idempotency-Key. The document has the status of each.
UNSUITABLE = "positive_data_acceptance"

SETTINGS = {"RATE_LIMIT": "off", "CONN_LIMIT": "off", "LOG": "error", "ACCESS_LOG": "off"}
DESCRIPTIONS = str(support.REPOSITORY / "tests" / "support" / "resources")

# {scopes of a token, or None: allowed changes of passengers}
ALLOWED = {
    None: set(),
    "*:read": set(),
}


@pytest.fixture(scope="module")
def guarded():
    """A stack that requires a token for every request."""
    with support.running_stack(**SETTINGS, RESOURCES_DIR=DESCRIPTIONS, AUTH="on") as stack:
        yield stack


def fuzz(stack, examples, *more):
    command = [
        *(pathlib.Path(sys.executable).with_name("schemathesis"), "run", "--no-color", "--continue-on-failure"),
        *("--checks", "all", "--exclude-checks", UNSUITABLE, "--phases", "examples,coverage,fuzzing"),
        *("--max-examples", EXAMPLES or str(examples), "--seed", SEED, *more),
        # Durations of generation and answers depend on the load of the machine, so they are not checked.
        *("--suppress-health-check", "too_slow", "--request-timeout", str(support.DEADLINE_SECONDS)),
        f"http://127.0.0.1:{stack.port}/openapi.json",
    ]
    print(f"seed {SEED}", flush=True)
    environment = {**os.environ, "SCHEMATHESIS_HOOKS": "serializers", "PYTHONPATH": pathlib.Path(__file__).parent}
    # In the directory of the stack, because schemathesis writes files to the working directory.
    run = subprocess.run(
        command, cwd=stack.directory, env=environment, capture_output=True, text=True, timeout=3600, check=False
    )
    print(run.stdout[-1500:])
    assert run.returncode == 0, run.stdout + run.stderr


def test_no_answer_is_a_defect_or_other_than_described():
    with support.running_stack(**SETTINGS, RESOURCES_DIR=DESCRIPTIONS) as stack:
        fuzz(stack, 25)


@pytest.fixture
def make_token(guarded):
    def make(scopes):
        command = [support.BINARY_DIR / "pycrudapi", "token", "create", "--name", "fuzz", "--scope", scopes]
        done = subprocess.run(command, env=guarded.environment, check=True, capture_output=True, text=True, timeout=60)
        return done.stdout.strip()

    return make


def passengers(stack, token):
    """{key: passenger} of all passengers."""
    answer = stack.request("GET", "/v1/passengers", headers={"authorization": f"Bearer {token}"})
    return {row["uuid"]: row for row in answer.json()}


@pytest.mark.parametrize("scopes", ALLOWED)
def test_with_a_token_of_any_scope_every_answer_is_as_described_and_nothing_else_is_changed(guarded, make_token, scopes):
    reader = make_token("passengers:read")
    before = passengers(guarded, reader)
    more = ["--header", f"Authorization: Bearer {make_token(scopes)}"] if scopes else []
    fuzz(guarded, 5, *more)
    after = passengers(guarded, reader)
    seen = {
        "created": after.keys() - before.keys(),
        "deleted": before.keys() - after.keys(),
        "changed": {uuid for uuid in before.keys() & after.keys() if before[uuid] != after[uuid]},
    }
    assert {what for what, keys in seen.items() if keys} <= ALLOWED[scopes], seen
