"""Hundreds of concurrent slow readers and unfinished bodies, and a stack with the memory limit of a container."""

import contextlib
import pathlib
import socket
import tempfile

import support
from support import until

MIB = 1024 * 1024
LIMIT = 256 * MIB
# Of the processes themselves: the rest of the limit is for the buffers of the kernel and for files in memory.
ANONYMOUS = LIMIT * 7 // 8
READERS, SENDERS = 510, 500

HEADER = "survived,passengerClass,name,sex,age,siblingsOrSpousesAboard,parentsOrChildrenAboard,fare\n"


@contextlib.contextmanager
def stack_in_a_container(kind=support.Stack, rows=100_000, **settings):
    """A stack in a control group (`group`) with that limit, which uses the database of a stack outside of it that has a long list.

    Raises NoControlGroup if no control group can be created.
    """
    with memory_group() as (group, prefix), _running(kind, SEED="false") as outside:
        rows_as_csv = HEADER + "".join(f"true,1,A name of usual length {number},male,30,0,0,7.25\n" for number in range(rows))
        filled = outside.request("POST", "/v1/passengers", rows_as_csv.encode(), {"content-type": "text/csv"})
        assert filled.status == 201, filled
        database = f"host={outside.data_dir}/embedded/run user=postgres dbname=postgres"
        with _running(kind, prefix, DATABASE_URL=database, SEED="false", RATE_LIMIT="off", **settings) as inside:
            inside.group = group
            yield inside


@contextlib.contextmanager
def _running(kind, prefix=(), **settings):
    with support.short_directory() as place:
        one = kind(place, prefix, **settings)
        try:
            yield one.start()
        finally:
            one.destroy()


class NoControlGroup(Exception):
    """This user or this machine cannot create a control group."""


@contextlib.contextmanager
def memory_group():
    """A control group (version 1 or 2), and the command prefix that runs a program in it."""
    root = pathlib.Path("/sys/fs/cgroup")
    is_version_2 = (root / "cgroup.controllers").exists()
    parent = root if is_version_2 else root / "memory"
    try:
        if is_version_2:
            (parent / "cgroup.subtree_control").write_text("+memory")
        group = pathlib.Path(tempfile.mkdtemp(prefix="pycrudapi-test-", dir=parent))
    except OSError as error:
        raise NoControlGroup(f"no control group can be created here: {error}") from error
    try:
        (group / ("memory.max" if is_version_2 else "memory.limit_in_bytes")).write_text(str(LIMIT))
        yield group, ["sh", "-c", f'echo $$ > {group}/cgroup.procs; exec "$@"', "sh"]
    finally:
        until(lambda: not (group / "cgroup.procs").read_text(), "no process is left in the group")
        group.rmdir()


def killed(group):
    """The number of processes killed by the kernel because of the memory limit."""
    file = group / "memory.events"
    lines = (file if file.exists() else group / "memory.oom_control").read_text().splitlines()
    return int(next(line.split()[1] for line in lines if line.startswith("oom_kill ")))


def most_used(group):
    """The peak memory use in MiB."""
    files = [group / name for name in ("memory.peak", "memory.max_usage_in_bytes")]
    return max((int(file.read_text()) for file in files if file.exists()), default=0) // MIB


def anonymous(group):
    """The processes' own memory in bytes, now."""
    counters = dict(line.split() for line in (group / "memory.stat").read_text().splitlines())
    return int(counters.get("total_rss") or counters["anon"])


@contextlib.contextmanager
def attack(port, addresses):
    """Opens connections with unread lists and unfinished bodies from several local addresses."""
    opened = []
    try:
        for number in range(READERS + SENDERS):
            one = socket.socket()
            opened.append(one)
            one.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            one.bind((f"127.0.0.{2 + number % addresses}", 0))
            one.connect(("127.0.0.1", port))
            one.setblocking(False)
            if number % 2 and number < 2 * SENDERS:
                head = "POST /postpassenger HTTP/1.1\r\nContent-Type: application/json\r\nContent-Length: 1000000\r\n"
                body = b" " * 999_000
            else:
                # Distinct lists, because identical ones would be read once for all clients.
                head, body = f"GET /passengerlist?name=neq.{number} HTTP/1.1\r\nAccept-Encoding: gzip\r\n", b""
            with contextlib.suppress(OSError):  # a full buffer, or a refused connection
                one.send(head.encode() + b"Host: localhost\r\n\r\n" + body)
        yield opened
    finally:
        for one in opened:
            one.close()
