"""Fixtures: nginx alone in front of a stand-in, and whole stacks; and the report of what was skipped."""

import pytest

import support


@pytest.fixture
def directory():
    with support.short_directory() as path:
        yield path


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
