"""What breaks a stack: small faults by name, each of which knows where it can be, and heals itself.

    @fault("server killed", LAPTOP, SERVERS)
    async def _(world, dice):
        ...inject...
        yield 0.5     # how long it lasts from here on; None for what was over when it was injected
        ...heal...    # also when the run is ended meanwhile

A fault that cannot be injected here raises Skip with the reason, which is printed once and stands in the report.
"""

import contextlib
import dataclasses
import importlib
import pathlib

LAPTOP, SERVERS = "laptop", "servers"


class Skip(Exception):
    """Why a fault cannot be injected here."""


@dataclasses.dataclass(frozen=True)
class Fault:
    name: str
    places: tuple
    body: object
    # Whether PostgreSQL itself restarts: then the time of the service counts from its return.
    waits_for_postgres: bool = False

    def inject(self, world, dice):
        """An asynchronous context manager; its value is how long the fault lasts."""
        return contextlib.asynccontextmanager(self.body)(world, dice)


REGISTRY = {}


def fault(name, *places, **more):
    def register(body):
        REGISTRY[name] = Fault(name, places, body, **more)
        return body

    return register


def all_faults(place):
    """Those of a kind of stack, in the order of their names."""
    for path in sorted(pathlib.Path(__file__).parent.glob("[a-z]*.py")):
        importlib.import_module(f"faults.{path.stem}")
    return [REGISTRY[name] for name in sorted(REGISTRY) if place in REGISTRY[name].places]
