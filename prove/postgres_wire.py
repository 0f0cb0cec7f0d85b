"""Access to PostgreSQL that does not involve the service: liveness, raw sessions, psql, and backend processes."""

import asyncio
import pathlib
import re
import struct


async def psql(url, *commands):
    """Runs psql; (whether it succeeded, its output)."""
    each = [part for command in commands for part in ("-c", command)]
    process = await asyncio.create_subprocess_exec(
        "psql", "-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1", "-d", url, *each,
        stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
    )  # fmt: skip
    try:
        output, _ = await process.communicate()
    except asyncio.CancelledError:
        process.kill()
        await process.wait()
        raise
    return process.returncode == 0, output.decode(errors="replace").strip()


async def session(where, database):
    """An authenticated connection as (reader, writer); None if PostgreSQL rejects it.

    `where` is a local port or the path of a Unix socket.
    """
    opening = asyncio.open_connection("127.0.0.1", where) if isinstance(where, int) else asyncio.open_unix_connection(where)
    reader, writer = await opening
    words = b"user\0postgres\0database\0" + database.encode() + b"\0\0"
    writer.write(struct.pack("!II", 8 + len(words), 196608) + words)
    while True:
        kind = await reader.readexactly(1)
        length = struct.unpack("!I", await reader.readexactly(4))[0]
        await reader.readexactly(length - 4)
        if kind == b"E":
            writer.transport.abort()
            return None
        if kind == b"Z":
            return reader, writer


async def answers(where, database):
    """Whether PostgreSQL accepts a session now."""
    try:
        async with asyncio.timeout(2):
            one = await session(where, database)
    except (OSError, EOFError, TimeoutError):
        return False
    if one:
        one[1].transport.abort()
    return one is not None


def backends(postmaster, database):
    """The backend processes of all client sessions of the database."""
    return children(postmaster, rf"postgres: (\S+: )?\S+ {database} (\[local\]|127\.)")


def children(postmaster, title):
    """The child processes whose title matches the pattern at its beginning."""
    found = []
    for entry in pathlib.Path("/proc").glob("[0-9]*"):
        try:
            parent = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
            line = (entry / "cmdline").read_bytes().decode(errors="replace")
        except (OSError, ValueError):
            continue
        if parent == postmaster and re.match(title, line):
            found.append(int(entry.name))
    return sorted(found)
