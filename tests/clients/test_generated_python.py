"""A client generated from the OpenAPI document works with the service."""

import importlib
import os
import pathlib
import subprocess
import sys

import support


def test_a_generated_python_client_creates_reads_lists_and_deletes(tmp_path, monkeypatch):
    tools = pathlib.Path(sys.executable).parent
    document = support.REPOSITORY / "docs" / "openapi.json"
    # The generator formats its output with the ruff in the same environment.
    run = subprocess.run(
        [tools / "openapi-python-client", "generate", "--path", document, "--output-path", tmp_path / "made"],
        env={**os.environ, "PATH": f"{tools}:{os.environ['PATH']}"},
        capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert run.returncode == 0, run.stdout + run.stderr
    monkeypatch.syspath_prepend(tmp_path / "made")
    calls = {
        name: importlib.import_module(f"pycrudapi_client.api.passengers.{name}")
        for name in ("create_passenger", "get_passenger", "list_passengers", "delete_passenger")
    }
    models = importlib.import_module("pycrudapi_client.models")
    details = models.PassengerDetails(
        survived=True, passenger_class=2, name="Generated", sex=models.Sex("female"), age=None,
        siblings_or_spouses_aboard=0, parents_or_children_aboard=0, fare=13.0,
    )  # fmt: skip
    with support.running_stack() as stack:
        client = importlib.import_module("pycrudapi_client").Client(base_url=f"http://127.0.0.1:{stack.port}")
        created = calls["create_passenger"].sync(client=client, body=details)
        assert created.name == "Generated", created
        assert calls["get_passenger"].sync(created.uuid, client=client) == created
        assert calls["list_passengers"].sync_detailed(client=client).status_code == 200
        assert calls["delete_passenger"].sync_detailed(created.uuid, client=client).status_code == 204
        assert calls["get_passenger"].sync_detailed(created.uuid, client=client).status_code == 404
