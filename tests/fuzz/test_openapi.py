"""The service answers as its OpenAPI document says, whatever it is asked."""

import os
import pathlib
import random
import subprocess
import sys

import support

# The same requests each time, unless a number of examples asks for more; the seed that is printed makes them again.
EXAMPLES = os.environ.get("FUZZ_EXAMPLES")
SEED = os.environ.get("FUZZ_SEED") or (str(random.randrange(2**32)) if EXAMPLES else "1")

# Schema-valid requests that are refused are right here: an If-Match that names another version, a filter whose end is
# before its start, an Idempotency-Key that was used. The document names the status of each.
UNSUITABLE = "positive_data_acceptance"


def test_no_answer_is_a_defect_or_other_than_described():
    resources = support.REPOSITORY / "tests" / "support" / "resources"
    settings = {"RATE_LIMIT": "off", "CONN_LIMIT": "off", "LOG": "error", "ACCESS_LOG": "off"}
    with support.running_stack(**settings, RESOURCES_DIR=str(resources)) as stack:
        command = [
            *(pathlib.Path(sys.executable).with_name("schemathesis"), "run", "--no-color", "--continue-on-failure"),
            *("--checks", "all", "--exclude-checks", UNSUITABLE, "--phases", "examples,coverage,fuzzing"),
            *("--max-examples", EXAMPLES or "25", "--seed", SEED),
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
