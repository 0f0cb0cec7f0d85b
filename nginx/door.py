"""Keeps nginx's door open for others: while half of its connections are taken, whoever holds most of them gets no more.

nginx counts a client's connections (CONN_LIMIT) when the header of a request has been read. Connections that send nothing,
or half a header, count for nobody, and a few thousand of them leave no room. So they are counted in the kernel, where they
are from their first packet on, and the packets that would open one more are dropped there, by a filter on nginx's listening
sockets. That takes no privilege, and costs nothing while there is room.

A process of its own beside nginx, which shares the sockets with it and ends with it. A file of /proc is read ten times a
second; only while half of the connections are taken are they listed.
"""

import collections
import ctypes
import os
import signal
import socket
import struct
import sys
import time

TICK_SECONDS = 0.1
# Nobody is kept out who has no more than this.
FEW = 16
# A filter's program may have 4096 instructions, and five keep one address out.
KEPT_OUT_MAX = 500
SAID_EVERY_SECONDS = 10

PR_SET_PDEATHSIG = 1
SO_ATTACH_FILTER, SO_DETACH_FILTER = 26, 27

# linux/inet_diag.h and linux/sock_diag.h: a dump of the established connections of one local port.
NETLINK_SOCK_DIAG, SOCK_DIAG_BY_FAMILY, DUMP_REQUEST, DONE, ERROR = 4, 20, 0x301, 3, 2
ESTABLISHED = 1 << 1
REQUEST = struct.Struct("=IHHII BBBxI HH16s16sI8s".replace(" ", ""))
HEADER = struct.Struct("=IHHII")
REMOTE_AT = HEADER.size + 4 + 4 + 16

# linux/filter.h. Addresses are loaded from the network header, wherever the transport header begins.
LOAD, EQUAL, RETURN = 0x20, 0x15, 0x06
NETWORK = 0xFFF00000
SOURCE = {socket.AF_INET: NETWORK + 12, socket.AF_INET6: NETWORK + 8}
ADDRESS_BYTES = {socket.AF_INET: 4, socket.AF_INET6: 8}  # of IPv6 the /64 that a client has to itself


def listen(ports, ipv6):
    """Sockets that listen on all addresses; nginx takes them over and sets its own queue."""
    sockets = []
    for port in ports:
        for family, any_address in [(socket.AF_INET, "0.0.0.0")] + ipv6 * [(socket.AF_INET6, "::")]:
            one = socket.socket(family, socket.SOCK_STREAM)
            one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if family == socket.AF_INET6:
                one.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            one.bind((any_address, port))
            one.listen(511)
            one.setblocking(False)
            one.set_inheritable(True)
            sockets.append(one)
    return sockets


def keep(sockets, room, trusted):
    """Begins to watch in a child, which ends with this process (or what it becomes)."""
    parent = os.getpid()
    if os.fork() != 0:
        return
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    # A terminal's Ctrl-C is for supervisord, which ends nginx in good order.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        if os.getppid() == parent:
            watch(sockets, room, trusted)
    except OSError as error:
        print(f"connections cannot be counted, so one client may take all of them: {error}", file=sys.stderr, flush=True)
    os._exit(0)


def watch(sockets, room, trusted):
    nginx = os.getppid()
    kept_out, said = {one: frozenset() for one in sockets}, 0.0
    # nginx closes its sockets when it begins to drain; whoever comes then must be refused, not left waiting on ours.
    while all(has(nginx, one) for one in sockets):
        counts = collections.Counter()
        if established() > room // 2:
            for one in sockets:
                counts += connections(one.family, one.getsockname()[1])
        most = greedy(counts, room // 2, trusted)
        for one in sockets:
            addresses = frozenset(address for family, address in most if family == one.family)
            if addresses != kept_out[one]:
                keep_out(one, addresses)
                kept_out[one] = addresses
        if most and time.monotonic() - said > SAID_EVERY_SECONDS:
            said = time.monotonic()
            held = sum(counts[each] for each in most)
            print(f"{len(most)} clients hold {held} of {sum(counts.values())} connections and get no more; "
                  f"there is room for {room}", file=sys.stderr, flush=True)  # fmt: skip
        time.sleep(TICK_SECONDS)


def has(process, one):
    """Whether a process that got this socket by its number still has it."""
    try:
        theirs, ours = os.stat(f"/proc/{process}/fd/{one.fileno()}"), os.fstat(one.fileno())
    except FileNotFoundError:
        return False
    except PermissionError:
        return True  # it is not for us to know
    return (theirs.st_dev, theirs.st_ino) == (ours.st_dev, ours.st_ino)


def established():
    """How many TCP sockets are open here, at whatever port."""
    total = 0
    for file, name in (("/proc/net/sockstat", "TCP:"), ("/proc/net/sockstat6", "TCP6:")):
        try:
            with open(file, encoding="ascii") as lines:
                total += sum(int(line.split()[2]) for line in lines if line.startswith(name + " inuse"))
        except FileNotFoundError:
            pass  # a kernel without IPv6
    return total


def connections(family, port):
    """How many connections each client has to a port, by family and address."""
    counts = collections.Counter()
    length = ADDRESS_BYTES[family]
    with socket.socket(socket.AF_NETLINK, socket.SOCK_DGRAM, NETLINK_SOCK_DIAG) as kernel:
        kernel.send(REQUEST.pack(
            REQUEST.size, SOCK_DIAG_BY_FAMILY, DUMP_REQUEST, 1, 0,
            family, socket.IPPROTO_TCP, 0, ESTABLISHED,
            socket.htons(port), 0, bytes(16), bytes(16), 0, b"\xff" * 8,
        ))  # fmt: skip
        while True:
            answer = kernel.recv(1 << 20)
            at = 0
            while at < len(answer):
                size, kind, *_ = HEADER.unpack_from(answer, at)
                if kind == DONE:
                    return counts
                if kind == ERROR:
                    raise OSError(-struct.unpack_from("=i", answer, at + HEADER.size)[0], "sock_diag")
                counts[family, answer[at + REMOTE_AT : at + REMOTE_AT + length]] += 1
                at += size + 3 & ~3


def greedy(counts, room, trusted):
    """Who holds at least what would be each one's if the room were shared out evenly."""
    if counts.total() <= room:
        return []
    left = room
    for place, held in enumerate(sorted(counts.values())):
        share = left // (len(counts) - place)
        if held >= share:
            break
        left -= held
    greedy = [client for client, held in counts.most_common(KEPT_OUT_MAX) if held >= max(share, FEW)]
    return [client for client in greedy if not is_trusted(client, trusted)]


def is_trusted(client, trusted):
    """Whether this is a proxy of ours: it stands for many clients."""
    family, address = client
    network = int.from_bytes(address.ljust(4 if family == socket.AF_INET else 16, b"\0"), "big")
    version = 4 if family == socket.AF_INET else 6
    return any(
        network & int(each.netmask) == int(each.network_address) for each in trusted if each.version == version
    )


def keep_out(listening, addresses):
    """Drops the packets of these addresses that would open a connection; those of open ones do not come by here."""
    if not addresses:
        listening.setsockopt(socket.SOL_SOCKET, SO_DETACH_FILTER, 0)
        return
    source = SOURCE[listening.family]
    program = []
    for address in addresses:
        words = struct.unpack(f">{len(address) // 4}I", address)
        for index, word in enumerate(words):
            behind = 2 * (len(words) - index - 1) + 1
            program += [(LOAD, 0, 0, source + 4 * index), (EQUAL, 0, behind, word)]
        program.append((RETURN, 0, 0, 0))
    program.append((RETURN, 0, 0, 0xFFFFFFFF))
    code = ctypes.create_string_buffer(b"".join(struct.pack("=HBBI", *each) for each in program))
    listening.setsockopt(
        socket.SOL_SOCKET, SO_ATTACH_FILTER, struct.pack("@HP", len(program), ctypes.addressof(code))
    )
