"""Exhausted resources: disk, memory, file descriptors."""

import contextlib
import os
import resource

from faults import SINGLE, SCALED, Skip, fault


@fault("disk full", SINGLE, waits_for_postgres=True)
async def _(deployment, rng):
    if deployment.disk is None:
        raise Skip("the data directory has no file system of its own (needs root, used in some of the runs)")
    filler = deployment.disk / "filler"
    try:
        with open(filler, "wb", buffering=0) as file, contextlib.suppress(OSError):
            while True:
                file.write(b"\0" * 65536)
        yield rng.uniform(0.5, 2.5)
    finally:
        filler.unlink(missing_ok=True)


def _used(pid, kind):
    """The current use of a limited resource: descriptors, or bytes of address space."""
    if kind == resource.RLIMIT_NOFILE:
        return len(os.listdir(f"/proc/{pid}/fd"))
    with open(f"/proc/{pid}/statm", encoding="ascii") as file:
        return int(file.read().split()[0]) * resource.getpagesize()


def _children(pid):
    """The child processes, which inherit the limit."""
    try:
        with open(f"/proc/{pid}/task/{pid}/children", encoding="ascii") as file:
            return [int(word) for word in file.read().split()]
    except OSError:
        return []


def _limited(name, of, kind, headroom):
    @fault(name, SINGLE, SCALED)
    async def _(deployment, rng):
        pids = deployment.pids(of)
        if not pids:
            raise Skip(f"no {of} is running")
        pid = rng.choice(pids)
        try:
            before = resource.prlimit(pid, kind)
            resource.prlimit(pid, kind, (_used(pid, kind) + rng.randrange(headroom), before[1]))
        except (OSError, ValueError) as error:
            raise Skip(f"{of}: {error}") from error
        try:
            yield rng.uniform(0.3, 1.5)
        finally:
            for one in (pid, *_children(pid)):
                with contextlib.suppress(OSError):
                    resource.prlimit(one, kind, before)


_limited("server without descriptors", "server", resource.RLIMIT_NOFILE, 3)
_limited("nginx worker without descriptors", "nginx worker", resource.RLIMIT_NOFILE, 3)
_limited("postmaster without descriptors", "postmaster", resource.RLIMIT_NOFILE, 3)
_limited("server without memory", "server", resource.RLIMIT_AS, 4 << 20)
_limited("backend without memory", "backend", resource.RLIMIT_AS, 1 << 20)
