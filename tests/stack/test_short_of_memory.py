"""A server that cannot create threads, because the system denies it the memory for their stacks."""

import json
import os
import resource
import signal

from support import PASSENGER, running_stack, until

# Enough for requests, but less than the stack of a thread.
ROOM_BYTES = 1536 << 10
MANY = json.dumps([PASSENGER] * 500)


def test_what_needs_a_thread_is_answered_with_those_that_are_there():
    with running_stack(RATE_LIMIT="off", ACCESS_LOG="off", LOG="info,access=off") as stack:
        first = stack.server_pid()
        # A server that neither migrated nor seeded has not created a blocking thread yet.
        os.kill(first, signal.SIGKILL)
        until(lambda: any(pid != first and "pycrudapi serve" in line for pid, line in stack.processes().items()) and stack.is_ready(), "another server")
        pid = stack.server_pid()
        with open(f"/proc/{pid}/statm", encoding="ascii") as file:
            used = int(file.read().split()[0]) * resource.getpagesize()
        before = resource.prlimit(pid, resource.RLIMIT_AS)
        resource.prlimit(pid, resource.RLIMIT_AS, (used + ROOM_BYTES, before[1]))
        # Answers with readings are serialized in such a thread.
        for day in range(1, 6):
            answer = stack.request("GET", f"/v1/air-quality?from=2020-01-0{day}T00:00:00Z")
            assert answer.status == 200, answer
            answer = stack.request("POST", "/v1/passengers", MANY, {"content-type": "application/json"})
            assert answer.status == 201, answer
        resource.prlimit(pid, resource.RLIMIT_AS, before)
        assert stack.server_pid() == pid and "panicked" not in stack.process.output
