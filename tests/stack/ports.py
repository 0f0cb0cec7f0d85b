"""Ports for the programs of a test, of which no other test of this machine is given the same."""

import random
import socket

# By port: what keeps it ours until this process ends.
_claims = {}


def free_port():
    """A port nobody listens on, and which no other call has returned, in no process that is still there.

    Suites run beside each other, and a port is not listened on before its program has started, or never; so it is claimed
    by a name in the kernel, which goes with the process that has it. It is below the range from which the system takes
    ports for outgoing connections, one of which could otherwise take it between this check and its use.
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
