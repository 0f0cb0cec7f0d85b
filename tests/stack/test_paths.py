"""Folders with spaces, accents and quotes in their names: the checkout, DATA_DIR, TMPDIR and the certificate."""

import contextlib
import json
import shutil
import signal
import ssl
import urllib.request

import pytest

import support
from support import PASSENGER, PROGRAM, REPOSITORY, request, until

NAMES = ["My Projects", "Téléchargements", "it's \"quoted\"", "a;b#c{d}"]


@contextlib.contextmanager
def up(checkout, place, **settings):
    """`scripts/up` of a copy of this checkout."""
    for folder in ("scripts", "supervisor", "resources", "data"):
        shutil.copytree(REPOSITORY / folder, checkout / folder)
    shutil.copy(REPOSITORY / "supervisord.conf", checkout)
    (checkout / "target" / "release").mkdir(parents=True)
    (checkout / "target" / "release" / "pycrudapi").symlink_to(PROGRAM)
    for folder in (checkout, place):
        support.open_to_all(folder)
    ports = {name: support.free_port() for name in ("HTTP_PORT", "HTTPS_PORT", "METRICS_PORT")}
    process = support.Process([checkout / "scripts" / "up"], support.clean_environment(**ports, **settings))
    try:
        until(lambda: not process.running or "Ctrl-C stops it" in process.output, "the announcement", 120)
        assert process.running, process.output
        yield ports
        process.signal(signal.SIGINT, group=True)
        process.wait()
    finally:
        if process.running:
            process.signal(signal.SIGKILL, group=True)


def use(ports):
    created = request(ports["HTTP_PORT"], "POST", "/v1/passengers", body=PASSENGER)
    assert created.status == 201, created
    context = ssl._create_unverified_context()
    url = f"https://127.0.0.1:{ports['HTTPS_PORT']}/v1/passengers/{created.json()['uuid']}"
    with urllib.request.urlopen(url, context=context, timeout=support.DEADLINE_SECONDS) as answer:
        assert json.load(answer)["name"] == PASSENGER["name"]


@pytest.mark.parametrize("name", NAMES)
def test_a_checkout_and_everything_of_it_may_be_called_anything(directory, name):
    place = directory / name
    (place / "tmp").mkdir(parents=True)
    with up(place / "pycrudapi", place / "tmp", TMPDIR=place / "tmp", DATA_DIR=place / "my data") as ports:
        use(ports)
        assert (place / "my data" / "tls").is_dir()


def test_files_of_a_certificate_may_be_called_anything(directory):
    place = directory / "plain"
    (place / "tmp").mkdir(parents=True)
    with up(place / "first", place / "tmp", DATA_DIR=place / "data") as ports:
        use(ports)
    pair = directory / 'my "own" çertificate'
    pair.mkdir()
    # The generated certificate is in one file with its key.
    for file in ("my tls.crt", "my tls.key"):
        shutil.copy(place / "data" / "tls" / "self-signed.pem", pair / file)
    support.open_to_all(pair)
    settings = {"TLS_CERT": pair / "my tls.crt", "TLS_KEY": pair / "my tls.key"}
    with up(place / "second", place / "tmp", DATA_DIR=place / "data", **settings) as ports:
        use(ports)


def test_empty_variables_are_unset_ones_for_the_whole_stack(directory):
    place = directory / "plain"
    (place / "tmp").mkdir(parents=True)
    documented = (REPOSITORY / "docs" / "settings.md").read_text()
    names = {line.split("`")[1] for line in documented.splitlines() if line.startswith("| `")}
    empty = {name: "" for name in names} | {"TMPDIR": "", "DATA_DIR": place / "data"}
    for name in ("HTTP_PORT", "HTTPS_PORT", "METRICS_PORT"):
        del empty[name]
    with up(place / "pycrudapi", place / "tmp", **empty) as ports:
        use(ports)
