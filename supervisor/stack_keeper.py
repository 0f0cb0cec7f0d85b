"""What supervisor 4 does not do by itself, loaded into supervisord through its RPC interface extension point.

- supervisord outlives dead children and exits 0; an orchestrator would see a healthy container with nothing in it. Here
  a program that cannot be kept alive ends supervisord, in order, with status 1.
- supervisord closes a program's listening socket when its last process dies. Here it stays open, so connections that
  arrive during a restart wait in its backlog instead of being refused.
- supervisord notices signals and exits up to a second late. Here they wake its loop.
- supervisord asks a program to stop once. nginx forgets a QUIT that arrives while it starts, so here it is asked again.
- Once an hour it runs the command that renews nginx's certificate.

Each of these uses supervisor's events and public attributes only; nothing is patched.
"""

import atexit
import os
import signal
import subprocess
import sys
import time
from collections import defaultdict, deque

from supervisor import events
from supervisor.medusa import asyncore_25 as asyncore
from supervisor.states import ProcessStates, SupervisorStates

# A program that exits this often within this time is not worth another restart. One that dies within its first
# second (startsecs) is judged by supervisor itself, which gives up after startretries.
EXITS_TOO_MANY = 5
EXITS_WITHIN_SECONDS = 60.0

# The folders lie side by side; supervisor expands no %(here)s for an RPC interface, so it cannot be told.
CERTIFICATE_COMMAND = (
    sys.executable,
    os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "nginx", "start.py"),
    "reload",
)
CERTIFICATE_DEADLINE_SECONDS = 60


class StackKeeper:
    """Has no RPC methods of its own: being made is its purpose."""

    def __init__(self, supervisord, certificate_command):
        self._supervisord = supervisord
        self._options = supervisord.options
        self._certificate_command = certificate_command
        self._exits = defaultdict(deque)
        self._failed = False
        self._sockets = {}
        for group in supervisord.process_groups.values():
            manager = getattr(group, "socket_manager", None)
            if manager is not None:
                self._sockets[manager.config().addr()] = manager.get_socket()
        self._wakeup = Wakeup()
        events.subscribe(events.ProcessStateEvent, self._on_state)
        events.subscribe(events.Tick5Event, self._on_five_seconds)
        events.subscribe(events.Tick3600Event, self._on_hour)
        atexit.register(self._at_exit)
        # The programs are started on the loop's first turn, which otherwise waits a second for something to read.
        self._wakeup.wake()

    def _on_state(self, event):
        # The loop acts on a new state (restarts, stops the next program) on its next turn: make that now.
        self._wakeup.wake()
        if self._options.mood < SupervisorStates.RUNNING:
            return
        name = event.process.config.name
        if isinstance(event, events.ProcessStateFatalEvent):
            self._give_up(f"{name} did not start: {event.process.spawnerr or 'see its messages above'}")
        elif isinstance(event, events.ProcessStateExitedEvent):
            now = time.monotonic()
            exits = self._exits[name]
            exits.append(now)
            while exits[0] < now - EXITS_WITHIN_SECONDS:
                exits.popleft()
            if len(exits) >= EXITS_TOO_MANY:
                self._give_up(f"{name} ended {len(exits)} times within {EXITS_WITHIN_SECONDS:.0f} s")

    def _give_up(self, reason):
        self._options.logger.critical(f"{reason}; stopping everything with exit status 1")
        self._failed = True
        self._options.mood = SupervisorStates.SHUTDOWN

    def _on_five_seconds(self, _event):
        for group in self._supervisord.process_groups.values():
            for process in group.processes.values():
                if process.state == ProcessStates.STOPPING and process.pid:
                    # Asking twice changes nothing for a program that has heard the first time.
                    try:
                        os.kill(process.pid, process.config.stopsignal)
                    except ProcessLookupError:
                        pass  # it went meanwhile, and is reaped on this turn

    def _on_hour(self, _event):
        try:
            done = subprocess.run(
                self._certificate_command,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                timeout=CERTIFICATE_DEADLINE_SECONDS,
                check=False,
            )
            said = (done.stdout + done.stderr).strip()
        except (OSError, subprocess.TimeoutExpired) as error:
            said = f"the certificate could not be checked: {error}"
        if said:
            self._options.logger.warn(said)

    def _at_exit(self):
        for path in self._sockets:
            try:
                os.unlink(path)
            except OSError:
                pass
        if self._failed:
            # supervisord has stopped its children and would now return 0.
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(1)


class Wakeup:
    """A pipe in supervisord's select loop: the interpreter writes to it at each signal, and wake() does too."""

    closed = False

    def __init__(self):
        self._reader, self._writer = os.pipe()
        os.set_blocking(self._reader, False)
        os.set_blocking(self._writer, False)
        signal.set_wakeup_fd(self._writer, warn_on_full_buffer=False)
        asyncore.socket_map[self._reader] = self

    def wake(self):
        try:
            os.write(self._writer, b"\0")
        except BlockingIOError:
            pass  # full: it will wake anyway

    def readable(self):
        return True

    def writable(self):
        return False

    def handle_read_event(self):
        try:
            os.read(self._reader, 4096)
        except BlockingIOError:
            pass

    def handle_error(self):
        raise


def make_stack_keeper(supervisord, certificate_command=CERTIFICATE_COMMAND):
    """The factory named in supervisord.conf."""
    return StackKeeper(supervisord, certificate_command)
