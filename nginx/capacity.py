"""How much of the machine nginx may take: connections and buffers by the container's memory and the descriptors there are.

The server takes a quarter of a container's limit for requests (MEMORY_BUDGET), and so does nginx for connections; kernel
buffers, supervisord and the programs have the rest.
"""

import os
import resource

# Two descriptors a request (client and server), and some for logs, listeners and the connections kept alive.
CONNECTIONS_MAX = 16_384
DESCRIPTORS_RESERVED = 128
# nginx's structures for a connection, its header and the kernel's socket; TLS doubles it.
CONNECTION_BYTES = 16 * 1024
# A worker has about 6 MiB of its own before it has any connection.
WORKER_BYTES = 64 * 1024 * 1024
# What a thousand slow readers may leave unread in the kernel is a quarter of the limit. Linux lets each have up to 4 MiB.
READERS = 4096
SEND_BUFFER_MAX = 4 * 1024 * 1024
# Linux's net.core.wmem_default.
SOCKET_BUFFER = 212_992


def memory_limit(mounted="/sys/fs/cgroup", groups="/proc/self/cgroup"):
    """The least memory limit of the control groups this process is in, or None; both versions of them.

    A parent's limit counts as well. In a container the group's own path may not be there: its root is the group.
    """
    try:
        with open(groups, encoding="ascii") as file:
            lines = file.read().splitlines()
    except OSError:
        return None
    limits = []
    for line in lines:
        _, controllers, group = line.split(":", 2)
        if controllers == "":
            root, name = mounted, "memory.max"
        elif "memory" in controllers.split(","):
            root, name = f"{mounted}/memory", "memory.limit_in_bytes"
        else:
            continue
        parts = [part for part in group.split("/") if part]
        for depth in range(len(parts) + 1):
            try:
                with open("/".join([root, *parts[:depth], name]), encoding="ascii") as file:
                    limit = int(file.read())
            except (OSError, ValueError):
                continue  # "max", or a group that is not seen from here
            if limit < 1 << 60:  # without a limit, version 1 says a number beyond all memory
                limits.append(limit)
    return min(limits, default=None)


def workers(processors, limit):
    """One worker per processor, as far as their own memory goes."""
    return processors if limit is None else max(1, min(processors, limit // WORKER_BYTES))


def connections(limit):
    """As many connections as memory and descriptors allow, after the soft limit was raised to the hard one."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
            soft = hard
        except (OSError, ValueError):
            pass
    most = CONNECTIONS_MAX
    if limit is not None:
        most = min(most, limit // 4 // CONNECTION_BYTES)
    if soft != resource.RLIM_INFINITY:
        most = min(most, soft - DESCRIPTORS_RESERVED)
    return max(128, most)


def long_bodies(limit):
    """How many long bodies may be handed on at once, of which one client may have a quarter; 0 for any number.

    The kernel keeps as much of each between nginx and the server as its default buffer takes, whatever the server refuses.
    """
    if limit is None:
        return 0
    return max(8, limit // 8 // SOCKET_BUFFER)


def gzip_memory(limit):
    """Directives that have nginx compress in 64 KiB and 32 KiB of buffers, where there is a limit, instead of 256 and 128.

    A list comes to 7 % more then, and takes a fifth more of the processor.
    """
    return "" if limit is None else "gzip_window 8k; gzip_hash 16k; gzip_buffers 4 8k;"


def send_buffer(limit):
    """The parameter of `listen` that bounds what a slow reader leaves in the kernel; nothing where there is memory enough.

    It bounds the rate of a distant reader too, to this much per round trip.
    """
    if limit is None or limit // READERS >= SEND_BUFFER_MAX:
        return ""
    return f" sndbuf={max(16 * 1024, limit // READERS // 2)}"  # the kernel doubles it, for its own structures
