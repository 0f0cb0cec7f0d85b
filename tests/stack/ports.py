"""Ports for the programs of a test that no other test on this machine receives."""

import random
import socket

# {port: the socket that reserves it until this process exits}
_claims = {}


def free_port():
    """A port on which no process listens, and which no other call in any running process has returned.

    Suites run concurrently, and a port is in use only when its program has started; so it is reserved by an abstract socket
    name, which the kernel releases when the process exits. The port is below the ephemeral range, because an outgoing
    connection could otherwise use it between this check and the start of the program.
    """
    while True:
        port = random.randrange(10_000, 32_000)
        claim = socket.socket(socket.AF_UNIX)
        try:
            claim.bind(f"\0pycrudapi-tests-port-{port}")
            with socket.socket() as probe:
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                probe.bind(("0.0.0.0", port))
        except OSError:
            claim.close()
            continue
        _claims[port] = claim
        return port
