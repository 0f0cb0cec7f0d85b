"""Fixtures: providers, and stacks that take their tokens."""

import pytest

import support
from provider import AUDIENCE, Provider


@pytest.fixture
def directory():
    with support.short_directory() as path:
        yield path


@pytest.fixture
def provider(directory):
    """provider(**settings): a provider that has not been started."""
    made = []

    def make(**settings):
        place = directory / f"provider-{len(made)}"
        place.mkdir()
        made.append(Provider(place, **settings))
        return made[-1]

    yield make
    for one in made:
        one.stop()


@pytest.fixture
def guarded(directory):
    """guarded(provider, **settings): a stack that takes the tokens of a provider, and nothing without one."""
    made = []

    def start(provider, **settings):
        place = directory / f"stack-{len(made)}"
        place.mkdir()
        place.chmod(0o755)
        issuer = {"AUTH": "on", "AUTH_ISSUER": provider.issuer, "AUTH_AUDIENCE": AUDIENCE, "AUTH_JWKS_REFRESH": "1s"}
        # Clients that ask without a pause come from one address.
        one = support.Stack(place, **{**issuer, "RATE_LIMIT": "off", **settings})
        made.append(one)
        return one.start()

    yield start
    for one in made:
        one.destroy()
        # Shown when the test has failed.
        print(f"--- what the stack on port {one.port} said\n{one.process.output[-6000:]}")
