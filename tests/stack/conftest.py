"""Fixtures: nginx alone in front of a stand-in, and whole stacks; and the report of what was skipped."""

import os
import pathlib
import shutil
import tempfile

import pytest

import support


@pytest.fixture
def directory():
    """A short directory (socket paths are limited to 107 bytes) that every user can enter."""
    path = pathlib.Path(tempfile.mkdtemp(prefix="pcs-", dir=os.environ.get("TMPDIR", "/tmp")))
    path.chmod(0o755)
    yield path
    shutil.rmtree(path, ignore_errors=True)


@pytest.fixture
def nginx(directory):
    """nginx(handler=None, **settings): nginx in front of a stand-in server that answers by handler."""
    started = []

    def start(handler=None, **settings):
        number = len(started)
        place = directory / str(number)
        place.mkdir()
        place.chmod(0o755)
        stand_in = None
        if handler is not None:
            stand_in = support.StandIn(place / "run" / "pycrudapi.sock", handler)
            started.append(stand_in.close)
        server = support.Nginx(place, **settings)
        server.stand_in = stand_in
        started.append(server.stop)
        return server

    yield start
    for end in reversed(started):
        end()


@pytest.fixture
def stack(directory):
    """stack(**settings): a whole stack that is ready."""
    made = []

    def start(ready=True, **settings):
        place = directory / str(len(made))
        place.mkdir()
        place.chmod(0o755)
        one = support.Stack(place, **settings)
        made.append(one)
        return one.start(ready=ready)

    yield start
    for one in made:
        one.destroy()
        # Shown when the test has failed.
        print(f"--- what the stack on port {one.port} said\n{one.process.output[-6000:]}")
