"""Limits nginx's connections per client address once half of them are taken, however little each has sent.

nginx counts a client's connections (CONN_LIMIT) when the header of a request has been read. Connections that send nothing,
or half a header, are not counted, and a few thousand of them take all there are. So they are counted in the kernel, by a
process beside nginx that shares its listening sockets: while more than half are taken, a socket filter (BPF) on those
sockets drops the SYN of each address that holds more than its share. That takes no privilege, and no request passes here.

Two files of /proc are read a hundred times a second. Connections are listed only while more than half are taken.
"""

import collections
import ctypes
import os
import signal
import socket
import struct
import sys
import time

import parent

# A worker accepts at most about 100,000 connections a second: 1,000 between two looks, of the 8,192 that are left.
INTERVAL_SECONDS = 0.01
# While more than the limit are taken they are listed so often, and whenever they have grown by such a part of the limit.
LIST_INTERVAL_SECONDS = 1
GROWTH = 16
# Addresses with no more are never refused: what a browser opens.
FEW = 8
# A filter may have 4096 instructions, and five refuse one address.
REFUSED_MAX = 800
LOG_INTERVAL_SECONDS = 10
NOBODY, EVERYBODY = frozenset(), None

SO_ATTACH_FILTER, SO_DETACH_FILTER = 26, 27

# linux/inet_diag.h and linux/sock_diag.h: a dump of the established connections of a family.
NETLINK_SOCK_DIAG, SOCK_DIAG_BY_FAMILY, DUMP_REQUEST, DONE, ERROR = 4, 20, 0x301, 3, 2
ESTABLISHED = 1 << 1
REQUEST = struct.Struct("=IHHIIBBBxIHH16s16sI8s")
HEADER = struct.Struct("=IHHII")
PORT_AT = HEADER.size + 4
REMOTE_AT = PORT_AT + 4 + 16

# linux/filter.h. Addresses are loaded from the network header, wherever the transport header begins.
LOAD, EQUAL, RETURN = 0x20, 0x15, 0x06
NETWORK = 0xFFF00000
SOURCE = {socket.AF_INET: NETWORK + 12, socket.AF_INET6: NETWORK + 8}
ADDRESS_BYTES = {socket.AF_INET: 4, socket.AF_INET6: 8}  # of IPv6 the /64 that a client has to itself


def listen(ports, ipv6):
    """Sockets that listen on all addresses; nginx takes them over and sets its own backlog."""
    sockets = []
    for port in ports:
        for family, any_address in [(socket.AF_INET, "0.0.0.0")] + ipv6 * [(socket.AF_INET6, "::")]:
            listening = socket.socket(family, socket.SOCK_STREAM)
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if family == socket.AF_INET6:
                listening.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            listening.bind((any_address, port))
            listening.listen(511)
            listening.setblocking(False)
            listening.set_inheritable(True)
            sockets.append(listening)
    return sockets


def start(sockets, connections_max, trusted):
    """Watches the sockets in a child that ends with this process, which then becomes nginx.

    `connections_max` is what one worker of nginx takes, `trusted` the networks that are never refused.
    """
    nginx = os.getpid()
    if os.fork() != 0:
        return
    parent.end_with(nginx, signal.SIGKILL)
    # A terminal's Ctrl-C is for supervisord, which ends nginx in good order.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        watch(nginx, sockets, connections_max, trusted)
    except OSError as error:
        for listening in sockets:
            drop(listening, NOBODY)
        log(f"connections cannot be counted, so one client may take all of them: {error}")
    os._exit(0)


def watch(nginx, sockets, connections_max, trusted):
    limiter, taken = Limiter(sockets, connections_max, trusted), open_sockets()
    # nginx closes its sockets when it begins to drain; ours must go then, or clients would wait instead of being refused.
    while all(is_held(nginx, listening) for listening in sockets):
        limiter.look(next(taken))
        time.sleep(INTERVAL_SECONDS)


class Limiter:
    """Refuses connections of whoever holds too many, while too many are taken."""

    def __init__(self, sockets, connections_max, trusted):
        self._connections_max, self._limit, self._trusted = connections_max, connections_max // 2, trusted
        self._refused = dict.fromkeys(sockets, NOBODY)
        self._ports = {listening.getsockname()[1] for listening in sockets}
        # When so many are taken, or after this time, connections are listed again.
        self._list_from, self._list_after = self._limit, 0.0
        self._logged = -LOG_INTERVAL_SECONDS

    def look(self, taken):
        """Takes the number of open sockets, of which nginx's connections are a part."""
        if taken <= self._limit:
            self._list_from = self._limit
            self._refuse([])
        elif taken >= self._list_from:
            # A list takes tens of milliseconds, in which a burst would take the other half. So nobody connects
            # meanwhile; whoever tries is connected a second later, when its kernel repeats the SYN.
            self._set(dict.fromkeys(self._refused, EVERYBODY))
            self._list(taken)
        elif time.monotonic() >= self._list_after:
            self._list(taken)

    def _list(self, taken):
        families = {listening.family for listening in self._refused}
        counts = sum((connections(family, self._ports) for family in families), collections.Counter())
        over = over_share(counts, self._limit, self._trusted)
        self._refuse(over)
        now = time.monotonic()
        self._list_after, self._list_from = now + LIST_INTERVAL_SECONDS, taken + self._limit // GROWTH
        if over and now > self._logged + LOG_INTERVAL_SECONDS:
            self._logged = now
            held = sum(counts[client] for client in over)
            log(f"dropping new connections of {len(over)} addresses, which hold {held} of {counts.total()} connections; "
                f"nginx takes {self._connections_max}")  # fmt: skip

    def _refuse(self, clients):
        self._set({
            listening: frozenset(address for family, address in clients if family == listening.family)
            for listening in self._refused
        })  # fmt: skip

    def _set(self, refused):
        for listening, addresses in refused.items():
            if addresses != self._refused[listening]:
                drop(listening, addresses)
        self._refused = refused


def log(line):
    print(line, file=sys.stderr, flush=True)


def is_held(process, listening):
    """Whether a process that got this socket by its number still has it open."""
    try:
        theirs, ours = os.stat(f"/proc/{process}/fd/{listening.fileno()}"), os.fstat(listening.fileno())
    except FileNotFoundError:
        return False
    except PermissionError:
        return True  # not known, as of a process that another user runs
    return (theirs.st_dev, theirs.st_ino) == (ours.st_dev, ours.st_ino)


def open_sockets():
    """Yields how many TCP sockets there are now, at whatever port: what is cheap to know, and never less than nginx's."""
    opened = []
    for path, name in (("/proc/net/sockstat", b"TCP: inuse "), ("/proc/net/sockstat6", b"TCP6: inuse ")):
        try:
            opened.append((os.open(path, os.O_RDONLY), name))
        except FileNotFoundError:
            pass  # a kernel without IPv6
    while True:
        # Read again from its beginning, such a file is made again.
        yield sum(int(os.pread(file, 4096, 0).partition(name)[2].split(None, 1)[0]) for file, name in opened)


def connections(family, ports):
    """How many connections each address has to the ports, by family and address."""
    counts = collections.Counter()
    length = ADDRESS_BYTES[family]
    ports = {struct.pack(">H", port) for port in ports}
    with socket.socket(socket.AF_NETLINK, socket.SOCK_DGRAM, NETLINK_SOCK_DIAG) as kernel:
        kernel.send(REQUEST.pack(
            REQUEST.size, SOCK_DIAG_BY_FAMILY, DUMP_REQUEST, 1, 0,
            family, socket.IPPROTO_TCP, 0, ESTABLISHED,
            0, 0, bytes(16), bytes(16), 0, b"\xff" * 8,
        ))  # fmt: skip
        while True:
            answer = kernel.recv(1 << 15)
            at = 0
            while at < len(answer):
                size, kind, *_ = HEADER.unpack_from(answer, at)
                if kind == DONE:
                    return counts
                if kind == ERROR:
                    raise OSError(-struct.unpack_from("=i", answer, at + HEADER.size)[0], "sock_diag")
                if answer[at + PORT_AT : at + PORT_AT + 2] in ports:
                    counts[family, answer[at + REMOTE_AT : at + REMOTE_AT + length]] += 1
                at += size + 3 & ~3


def over_share(counts, limit, trusted):
    """The clients that hold at least what each may have if all together are to have no more than the limit."""
    if counts.total() <= limit:
        return []
    left = limit
    for number, held in enumerate(sorted(counts.values())):
        share = left // (len(counts) - number)
        if held >= share:
            break
        left -= held
    over = [client for client, held in counts.most_common(REFUSED_MAX) if held >= max(share, FEW)]
    return [client for client in over if not is_trusted(client, trusted)]


def is_trusted(client, trusted):
    """Whether this is a proxy of ours: it stands for many clients."""
    family, address = client
    network = int.from_bytes(address.ljust(4 if family == socket.AF_INET else 16, b"\0"), "big")
    version = 4 if family == socket.AF_INET else 6
    return any(
        network & int(each.netmask) == int(each.network_address) for each in trusted if each.version == version
    )


def drop(listening, addresses):
    """Has the kernel drop what would open a connection of these addresses; packets of open ones do not reach the listening socket."""
    if addresses == NOBODY:
        listening.setsockopt(socket.SOL_SOCKET, SO_DETACH_FILTER, 0)
        return
    source = SOURCE[listening.family]
    program = []
    for address in addresses or ():
        words = struct.unpack(f">{len(address) // 4}I", address)
        for index, word in enumerate(words):
            behind = 2 * (len(words) - index - 1) + 1
            program += [(LOAD, 0, 0, source + 4 * index), (EQUAL, 0, behind, word)]
        program.append((RETURN, 0, 0, 0))
    program.append((RETURN, 0, 0, 0 if addresses is EVERYBODY else 0xFFFFFFFF))
    code = ctypes.create_string_buffer(b"".join(struct.pack("=HBBI", *each) for each in program))
    listening.setsockopt(
        socket.SOL_SOCKET, SO_ATTACH_FILTER, struct.pack("@HP", len(program), ctypes.addressof(code))
    )
