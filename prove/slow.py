#!/usr/bin/env python3
"""Slow clients: `slow.py PORT COUNT`. One third sends headers one byte at a time, one third sends bodies so, and one third does not read
the requested list. Prints "ready" once all are connected, and exits when its standard input is closed. It is a process of its own so that
it delays no other client."""

import contextlib
import select
import socket
import sys
import time

ADDRESSES = 200
DRIP_SECONDS = 2.0
HEADS = (
    "GET /v1/passengers HTTP/1.1\r\nHost: localhost\r\nX-Slow: ",
    "POST /v1/passengers HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: 60000\r\n\r\n",
    # Distinct lists, because identical ones would be read once for all clients.
    "GET /passengerlist?name=neq.{number} HTTP/1.1\r\nHost: localhost\r\n\r\n",
)


def main(port, count):
    held = []
    for number in range(count):
        one = socket.socket()
        one.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        one.bind((f"127.0.0.{2 + number % ADDRESSES}", 0))
        one.connect(("127.0.0.1", port))
        one.setblocking(False)
        with contextlib.suppress(OSError):  # refused
            one.send(HEADS[number % 3].format(number=number).encode())
        held.append(one)
    print("ready", flush=True)
    while True:
        begun = time.monotonic()
        for number, one in enumerate(held):
            if number % 3 < 2:
                with contextlib.suppress(OSError):
                    one.send(b" ")
        # The parent writes nothing and closes standard input at the end.
        if select.select([sys.stdin], [], [], max(0.1, DRIP_SECONDS - (time.monotonic() - begun)))[0]:
            return


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]))
