"""Fixtures: nginx alone in front of a stand-in server, and whole stacks."""

import pytest

import support


@pytest.fixture
def directory():
    with support.short_directory() as path:
        yield path


@pytest.fixture
def nginx(directory):
    """nginx(handler=None, **settings): nginx in front of a stand-in server that calls handler for each request."""
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
    """stack(**settings): a ready whole stack."""
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
        # pytest shows it if the test failed.
        print(f"--- output of the stack on port {one.port}\n{one.process.output[-6000:]}")
