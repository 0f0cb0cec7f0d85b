"""No token appears in the output of the stack: logs at the most verbose level, metrics, files, arguments of processes."""

import os
import pathlib
import signal
import subprocess

import pytest

import support
from support import until

PROGRAM = str(support.BINARY_DIR / "pycrudapi")
# In the format of a token, but with a wrong checksum, and in the format of an identity provider's token.
MADE_UP = "pycrudapi_PLANTEDplantedPLANTEDplantedPLANTEDplantedPLANTED0"
FOREIGN = "eyJhbGciOiJQTEFOVEVEIn0.UExBTlRFRHBsYW50ZWRQTEFOVEVE.UExBTlRFRHNpZ25hdHVyZQ"
PASSENGER = {
    "survived": True, "passengerClass": 2, "name": "Secret, Mr. Kept", "sex": "male", "age": 27.0,
    "siblingsOrSpousesAboard": 0, "parentsOrChildrenAboard": 0, "fare": 13.0,
}  # fmt: skip


@pytest.fixture(scope="module")
def stack():
    keys = '{"keys":[]}'
    with support.short_directory() as place:
        (place / "keys.json").write_text(keys)
        settings = {"AUTH_ISSUER": "https://id.example", "AUTH_AUDIENCE": "us", "AUTH_JWKS_FILE": str(place / "keys.json")}
        with support.running_stack(RATE_LIMIT="off", AUTH="on", LOG="trace", **settings) as one:
            yield one


def token_command(stack, *arguments):
    said = subprocess.run([PROGRAM, "token", *arguments], env=stack.environment | {"LOG": "trace"}, check=True,
                          capture_output=True, text=True, timeout=60)  # fmt: skip
    return said


def files(*folders):
    for folder in folders:
        for path in folder.rglob("*"):
            if path.is_file() and not path.is_symlink():
                yield path


def test_no_token_is_written_anywhere(stack):
    made = token_command(stack, "create", "--name", "planted", "--scope", "admin")
    token = made.stdout.strip()
    said = [made.stderr]
    for credential in (token, MADE_UP, FOREIGN):
        bearer = {"authorization": f"Bearer {credential}"}
        said.append(str(stack.request("GET", "/v1/passengers", headers=bearer).body))
        created = stack.request("POST", "/v1/passengers", PASSENGER, bearer | {"idempotency-key": "planted"})
        said.append(str(created.body))
        said.append(str(stack.request("GET", f"/v1/passengers?{'x' * 9000}", headers=bearer).body))
        said.append(str(stack.request("POST", "/v1/passengers", b"{", bearer).body))
        said.append(str(stack.request("GET", "/v1/tokens", headers=bearer).body))
        # In places where tokens do not belong.
        said.append(str(stack.request("GET", f"/v1/passengers?limit=1&access_token={credential}").body))
        said.append(str(stack.request("DELETE", f"/v1/tokens/{credential}", headers=bearer).body))
        said.append(str(stack.request("GET", "/hello", headers={"x-request-id": credential, "user-agent": credential}).body))
        said.append(str(stack.request("GET", "/hello", headers={"referer": f"http://localhost/?access_token={credential}"}).body))
    identifier = made.stderr.split(" id ")[1].split(",")[0]
    rotated = stack.request("POST", f"/v1/tokens/{identifier}/rotate",
                            headers={"authorization": f"Bearer {token}", "content-length": "0"})  # fmt: skip
    assert rotated.status == 201
    successor = rotated.json()["token"]
    listed = token_command(stack, "list")
    said += [listed.stdout, listed.stderr]
    until(lambda: "/rotate" in stack.process.output, "the last request is in the log")
    said.append(stack.process.output)
    said.append(str(support.request(stack.metrics_port, "GET", "/metrics").body))
    for process in pathlib.Path("/proc").glob("[0-9]*"):
        try:
            said.append((process / "cmdline").read_text(errors="replace"))
        except OSError:
            continue
    assert f"token:{identifier}" in stack.process.output, "the log that is searched names the principal"
    # Half of a token would also identify it.
    for secret in (token, successor, MADE_UP, FOREIGN.split(".")[2]):
        part = secret[len("pycrudapi_") : len("pycrudapi_") + 20] if secret.startswith("pycrudapi_") else secret
        assert not [text[max(0, text.index(part) - 200) :][:400] for text in said if part in text]
        for path in files(stack.run_dir, stack.data_dir):
            assert part.encode() not in path.read_bytes(), path


def test_nginx_masks_credentials_in_its_error_log():
    """It repeats the request line when a server does not respond."""
    with support.running_stack(RATE_LIMIT="off", UPSTREAM_TIMEOUT_MS=1000) as stack:
        server = stack.server_pid()
        os.kill(server, signal.SIGSTOP)
        try:
            for query in (f"access_token={MADE_UP}", f"x={FOREIGN}", "code=PLANTEDcode&state=1"):
                stack.request("GET", f"/?{query}", headers={"referer": f"http://localhost/?{query}"})
        finally:
            os.kill(server, signal.SIGCONT)
        told = until(lambda: [line for line in stack.process.output.splitlines() if "upstream timed out" in line], "it is logged")
        assert [line for line in told if 'request: "GET /?access_token=(masked) HTTP/1.1"' in line]
        for secret in ("PLANTED", FOREIGN.split(".")[2]):
            assert secret not in stack.process.output
