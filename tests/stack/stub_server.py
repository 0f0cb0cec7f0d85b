#!/usr/bin/env python3
"""Replaces `pycrudapi serve` in tests of supervision: answers with its pid on the socket passed as descriptor 0, and
misbehaves according to STUB. Executes the real program for other subcommands."""

import os
import signal
import socket
import sys
import time

if sys.argv[1:] != ["serve"]:
    os.execv(os.environ["STUB_STANDS_FOR"], sys.argv)
behaviour = os.environ.get("STUB", "")
if behaviour == "exits-at-once":
    sys.exit("STUB=exits-at-once: this is why it did not start")

listener = socket.socket(fileno=os.dup(0))
signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
print(f"stub {os.getpid()} serves {os.environ['LISTEN']}", flush=True)
born = time.monotonic()
while True:
    if behaviour == "exits-often":
        listener.settimeout(max(0.01, 1.2 - (time.monotonic() - born)))
    try:
        connection, _ = listener.accept()
    except TimeoutError:
        sys.exit(3)
    with connection:
        # One request per connection, so that further connections stay in the backlog for the next process.
        connection.recv(65536)
        body = str(os.getpid())
        connection.sendall(f"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: {len(body)}\r\n\r\n{body}".encode())
