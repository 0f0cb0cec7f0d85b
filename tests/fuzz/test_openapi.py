"""The service answers as its OpenAPI document says, whatever it is asked, and whoever asks."""

import os
import pathlib
import random
import subprocess
import sys

import pytest

import support

# The same requests each time, unless a number of examples asks for more; the seed that is printed makes them again.
EXAMPLES = os.environ.get("FUZZ_EXAMPLES")
SEED = os.environ.get("FUZZ_SEED") or (str(random.randrange(2**32)) if EXAMPLES else "1")

# Schema-valid requests that are refused are right here: an If-Match that names another version, a filter whose end is
# before its start, an Idempotency-Key that was used. The document names the status of each.
UNSUITABLE = "positive_data_acceptance"

SETTINGS = {"RATE_LIMIT": "off", "CONN_LIMIT": "off", "LOG": "error", "ACCESS_LOG": "off"}
DESCRIPTIONS = str(support.REPOSITORY / "tests" / "support" / "resources")

# {scopes of a token, or none: what may become of passengers}
ALLOWED = {
    None: set(),
    "*:read": set(),
}


@pytest.fixture(scope="module")
def guarded():
    """A stack that lets nobody do anything without a token."""
    with support.running_stack(**SETTINGS, RESOURCES_DIR=DESCRIPTIONS, AUTH="on") as stack:
        yield stack


def fuzz(stack, examples, *more):
    command = [
        *(pathlib.Path(sys.executable).with_name("schemathesis"), "run", "--no-color", "--continue-on-failure"),
        *("--checks", "all", "--exclude-checks", UNSUITABLE, "--phases", "examples,coverage,fuzzing"),
        *("--max-examples", EXAMPLES or str(examples), "--seed", SEED, *more),
        # How long something takes depends on what else the machine does: what is made up, and what is answered.
        *("--suppress-health-check", "too_slow", "--request-timeout", str(support.DEADLINE_SECONDS)),
        f"http://127.0.0.1:{stack.port}/openapi.json",
    ]
    print(f"seed {SEED}", flush=True)
    environment = {**os.environ, "SCHEMATHESIS_HOOKS": "serializers", "PYTHONPATH": pathlib.Path(__file__).parent}
    # In the stack's directory, because it leaves notes where it runs.
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
    """All of them, by their keys."""
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
