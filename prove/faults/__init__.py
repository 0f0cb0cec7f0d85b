"""The faults: each has a name, declares the deployments to which it applies, and heals itself.

    @fault("server killed", SINGLE, SCALED)
    async def _(deployment, rng):
        ...inject...
        yield 0.5     # how long the fault lasts; None if it ended at the injection
        ...heal...    # also runs if the run is cancelled

A fault that cannot be injected on this machine raises Skip with the reason, which is printed once and included in the report.
"""

import contextlib
import dataclasses
import importlib
import pathlib

SINGLE, SCALED = "single", "scaled"


class Skip(Exception):
    """The reason why a fault cannot be injected."""


@dataclasses.dataclass(frozen=True)
class Fault:
    name: str
    deployments: tuple
    body: object
    # Whether PostgreSQL itself restarts: then the unavailability of the service counts from the end of that restart.
    waits_for_postgres: bool = False

    def inject(self, deployment, rng):
        """An asynchronous context manager whose value is the duration of the fault."""
        return contextlib.asynccontextmanager(self.body)(deployment, rng)


REGISTRY = {}


def fault(name, *deployments, **more):
    def register(body):
        REGISTRY[name] = Fault(name, deployments, body, **more)
        return body

    return register


def all_faults(deployment):
    """The faults that apply to a deployment, in the order of their names."""
    for path in sorted(pathlib.Path(__file__).parent.glob("[a-z]*.py")):
        importlib.import_module(f"faults.{path.stem}")
    return [REGISTRY[name] for name in sorted(REGISTRY) if deployment in REGISTRY[name].deployments]
