"""Extends supervisor 4, loaded into supervisord through its RPC interface extension point.

- supervisord keeps running when its children have failed, and exits 0; an orchestrator would see a healthy but empty
  container. This module stops supervisord in order, with status 1, if a program cannot be kept running.
- supervisord closes the listening socket of a program when its last process exits. This module keeps it open, so that
  connections arriving during a restart wait in the backlog and are not refused.
- supervisord handles signals and exits up to a second late. This module wakes its loop.
- supervisord sends the stop signal once. nginx loses a QUIT that arrives while it starts, so this module repeats it.
- Once an hour this module runs the command that reloads a renewed certificate of nginx.
- supervisord writes the output of programs with blocking writes. This module writes it through a non-blocking relay, and
  stores the number of dropped lines in a file for the metrics of the server (LOG_DROPPED_FILE).
- supervisord leaves its programs running when it is killed. This module passes its process id to them (PARENT_PID), so that
  they exit with it.
- Before anything is written, this module checks that RUN_DIR is private; it restricts the server's socket to nginx's workers.

It uses only events and public attributes of supervisor; nothing is patched.
"""

import atexit
import os
import re
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

# A program that exits this often within this time is not restarted again. supervisor itself handles exits within the first
# second (startsecs) and gives up after startretries.
EXITS_TOO_MANY = 5
EXITS_WITHIN_SECONDS = 60.0

CERTIFICATE_COMMAND = ("pycrudapi", "nginx", "reload")
CERTIFICATE_DEADLINE_SECONDS = 60

# Output after these events belongs to the next run of a program.
ENDS = events.ProcessStateExitedEvent, events.ProcessStateStoppedEvent, events.ProcessStateBackoffEvent


class StackKeeper:
    """Has no RPC methods; its constructor installs everything."""

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
        # The programs are started in the first iteration of the loop, which otherwise waits up to a second for input.
        self._wakeup.wake()

    def _on_state(self, event):
        # The loop acts on a new state (restarts, stops the next program) in its next iteration: trigger that now.
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
        self._output.report_dropped()
        for group in self._supervisord.process_groups.values():
            for process in group.processes.values():
                if process.state == ProcessStates.STOPPING and process.pid:
                    # A second signal has no effect on a program that has received the first.
                    try:
                        os.kill(process.pid, process.config.stopsignal)
                    except ProcessLookupError:
                        pass  # it has exited meanwhile, and is reaped in this iteration

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
            output = (done.stdout + done.stderr).strip()
        except (OSError, subprocess.TimeoutExpired) as error:
            output = f"the certificate could not be checked: {error}"
        if output:
            self._options.logger.warn(output)

    def _at_exit(self):
        for path in self._sockets:
            try:
                os.unlink(path)
            except OSError:
                pass
        leftovers.end(os.environ["RUN_DIR"])
        if self._failed:
            # supervisord has stopped its children and would now exit 0.
            relay.close()
            os._exit(1)


# nginx's error log repeats the request line and the referrer as they were sent, and its format cannot be configured. The same texts are
# masked in its access log (nginx/log.conf) and in traces (src/auth/exposed.rs).
CREDENTIAL = re.compile(
    rb'((?i:access_token|id_token|refresh_token)=|[?&]code=)[^&\s",]+|(?:pycrudapi_|eyJ)[0-9A-Za-z_.-]{20,}'
)


def masked(lines):
    """Masks the credentials in lines."""
    return CREDENTIAL.sub(lambda found: (found[1] or b"") + b"(masked)", lines)


class Output:
    """Forwards the output of the programs and of supervisord; never blocks."""

    def __init__(self, logger):
        self._relays = relay.install()
        self._sources = {}
        self._reported = None
        # The handlers were created before, with the original streams.
        for handler in logger.handlers:
            if handler.stream is sys.__stdout__:
                handler.stream = sys.stdout
        self._count = os.path.join(os.environ["RUN_DIR"], "log_lines_dropped")
        os.environ["LOG_DROPPED_FILE"] = self._count
        self.report_dropped()
        events.subscribe(events.ProcessLogEvent, self._on_output)

    def _on_output(self, event):
        key = event.process.config.name, event.channel
        if key not in self._sources:
            edit = masked if key == ("nginx", "stderr") else None
            self._sources[key] = relay.Source(self._relays[event.channel], edit)
        self._sources[key].write(event.data)
        self.report_dropped()

    def end(self, process):
        """Completes the last line of a program that has exited."""
        for channel in ("stdout", "stderr"):
            if (process.config.name, channel) in self._sources:
                self._sources[process.config.name, channel].end()

    def report_dropped(self):
        """Writes the number of dropped lines to LOG_DROPPED_FILE."""
        dropped = relay.dropped()
        if dropped != self._reported:
            self._reported = dropped
            with open(self._count, "w", encoding="ascii") as file:
                file.write(f"{dropped:020}\n")


class Wakeup:
    """A pipe in supervisord's select loop, written to by the interpreter at each signal and by wake()."""

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
            pass  # full: the loop wakes anyway

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
        # supervisor would print a traceback and an unspecific message.
        relay.install()
        print(refused, file=sys.stderr)
        relay.close()
        os._exit(2)
    return StackKeeper(supervisord, certificate_command)
