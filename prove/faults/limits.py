"""Room that ends: disk, memory, descriptors."""

import contextlib
import os
import resource

from faults import LAPTOP, SERVERS, Skip, fault


@fault("disk full", LAPTOP, waits_for_postgres=True)
async def _(world, dice):
    if world.disk is None:
        raise Skip("the data are not on a disk of their own (as root, in a part of the runs)")
    filler = world.disk / "filler"
    try:
        with open(filler, "wb", buffering=0) as file, contextlib.suppress(OSError):
            while True:
                file.write(b"\0" * 65536)
        yield dice.uniform(0.5, 2.5)
    finally:
        filler.unlink(missing_ok=True)


def _used(pid, kind):
    """Of what a limit is of: descriptors, or bytes of addresses."""
    if kind == resource.RLIMIT_NOFILE:
        return len(os.listdir(f"/proc/{pid}/fd"))
    with open(f"/proc/{pid}/statm", encoding="ascii") as file:
        return int(file.read().split()[0]) * resource.getpagesize()


def _children(pid):
    """Those that it has started under its limit have it, too."""
    try:
        with open(f"/proc/{pid}/task/{pid}/children", encoding="ascii") as file:
            return [int(word) for word in file.read().split()]
    except OSError:
        return []


def _limited(name, of, kind, more):
    @fault(name, LAPTOP, SERVERS)
    async def _(world, dice):
        pids = world.pids(of)
        if not pids:
            raise Skip(f"there is no {of} now")
        pid = dice.choice(pids)
        try:
            before = resource.prlimit(pid, kind)
            resource.prlimit(pid, kind, (_used(pid, kind) + dice.randrange(more), before[1]))
        except (OSError, ValueError) as error:
            raise Skip(f"{of}: {error}") from error
        try:
            yield dice.uniform(0.3, 1.5)
        finally:
            for one in (pid, *_children(pid)):
                with contextlib.suppress(OSError):
                    resource.prlimit(one, kind, before)


_limited("server without descriptors", "server", resource.RLIMIT_NOFILE, 3)
_limited("nginx worker without descriptors", "nginx worker", resource.RLIMIT_NOFILE, 3)
_limited("postmaster without descriptors", "postmaster", resource.RLIMIT_NOFILE, 3)
_limited("server without memory", "server", resource.RLIMIT_AS, 4 << 20)
_limited("backend without memory", "backend", resource.RLIMIT_AS, 1 << 20)
