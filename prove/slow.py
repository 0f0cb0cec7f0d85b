#!/usr/bin/env python3
"""Slow clients: `slow.py PORT MANY`. A third each send their headers or bodies a byte at a time, or do not read the list that they have
asked for. Says "ready" once all have come, and ends with its standard input. A process of its own, so that it keeps no other client waiting."""

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
    # Each its own: the same list would be read once for all of them.
    "GET /passengerlist?name=neq.{number} HTTP/1.1\r\nHost: localhost\r\n\r\n",
)


def main(port, many):
    held = []
    for number in range(many):
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
        # Whoever has started this says nothing, and closes it in the end.
        if select.select([sys.stdin], [], [], max(0.1, DRIP_SECONDS - (time.monotonic() - begun)))[0]:
            return


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]))
