"""What supervisor 4 does not do by itself, loaded into supervisord through its RPC interface extension point.

- supervisord outlives dead children and exits 0; an orchestrator would see a healthy container with nothing in it. Here
  a program that cannot be kept alive ends supervisord, in order, with status 1.
- supervisord closes a program's listening socket when its last process dies. Here it stays open, so connections that
  arrive during a restart wait in its backlog instead of being refused.
- supervisord notices signals and exits up to a second late. Here they wake its loop.
- supervisord asks a program to stop once. nginx forgets a QUIT that arrives while it starts, so here it is asked again.
- Once an hour it runs the command that renews nginx's certificate.
- supervisord writes what programs say with writes that wait. Here it goes through a relay that waits for nobody, and the
  number of lines that nobody read is in a file for the server's metrics (LOG_DROPPED_FILE).
- supervisord leaves its programs running when it is killed. Here they are told their parent (PARENT_PID), to end with it.
- Before anything is written, RUN_DIR is made sure to be private; the server's socket is opened to nginx's workers alone.

Each of these uses supervisor's events and public attributes only; nothing is patched.
"""

import atexit
import os
import signal
import subprocess
import sys
import time
from collections import defaultdict, deque

import leftovers
import private
import relay
from supervisor import events
from supervisor.medusa import asyncore_25 as asyncore
from supervisor.states import ProcessStates, SupervisorStates

# A program that exits this often within this time is not worth another restart. One that dies within its first
# second (startsecs) is judged by supervisor itself, which gives up after startretries.
EXITS_TOO_MANY = 5
EXITS_WITHIN_SECONDS = 60.0

CERTIFICATE_COMMAND = ("pycrudapi", "nginx", "reload")
CERTIFICATE_DEADLINE_SECONDS = 60

# What a program says after these is another run's.
ENDS = events.ProcessStateExitedEvent, events.ProcessStateStoppedEvent, events.ProcessStateBackoffEvent


class StackKeeper:
    """Has no RPC methods of its own: being made is its purpose."""

    def __init__(self, supervisord, certificate_command):
        self._supervisord = supervisord
        self._options = supervisord.options
        self._output = Output(supervisord.options.logger)
        self._certificate_command = certificate_command
        self._exits = defaultdict(deque)
        self._failed = False
        self._sockets = {}
        for group in supervisord.process_groups.values():
            manager = getattr(group, "socket_manager", None)
            if manager is not None:
                self._sockets[manager.config().addr()] = manager.get_socket()
                private.socket(manager.config().addr())
        os.environ["PARENT_PID"] = str(os.getpid())
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
        if isinstance(event, ENDS):
            self._output.end(event.process)
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
        self._output.tell_dropped()
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
        leftovers.end(os.environ["RUN_DIR"])
        if self._failed:
            # supervisord has stopped its children and would now return 0.
            relay.close()
            os._exit(1)


class Output:
    """What programs and supervisord itself say, on its way out; never waits."""

    def __init__(self, logger):
        self._relays = relay.install()
        self._sources = {}
        self._told = None
        # Made before us, with the output as it was.
        for handler in logger.handlers:
            if handler.stream is sys.__stdout__:
                handler.stream = sys.stdout
        self._count = os.path.join(os.environ["RUN_DIR"], "log_lines_dropped")
        os.environ["LOG_DROPPED_FILE"] = self._count
        self.tell_dropped()
        events.subscribe(events.ProcessLogEvent, self._on_output)

    def _on_output(self, event):
        key = event.process.config.name, event.channel
        if key not in self._sources:
            self._sources[key] = relay.Source(self._relays[event.channel])
        self._sources[key].write(event.data)
        self.tell_dropped()

    def end(self, process):
        """A program has ended, perhaps in the middle of a line."""
        for channel in ("stdout", "stderr"):
            if (process.config.name, channel) in self._sources:
                self._sources[process.config.name, channel].end()

    def tell_dropped(self):
        """Writes the number of lines that were dropped, for whoever shows it."""
        dropped = relay.dropped()
        if dropped != self._told:
            self._told = dropped
            with open(self._count, "w", encoding="ascii") as file:
                file.write(f"{dropped:020}\n")


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
    try:
        private.directory(os.environ["RUN_DIR"], "RUN_DIR", shared=True)
    except private.Refused as refused:
        # supervisor would show a traceback and a sentence that says nothing.
        relay.install()
        print(refused, file=sys.stderr)
        relay.close()
        os._exit(2)
    return StackKeeper(supervisord, certificate_command)
