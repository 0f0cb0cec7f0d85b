"""Non-blocking standard output and standard error.

A paused terminal, an idle pager, a reader that has exited or a full disk must not block, fail or end a program of the stack.
While the output is blocked, lines are buffered up to a limit, then dropped and counted; when it accepts data again, a line
reports their number. Only whole lines are written or dropped.
"""

import atexit
import collections
import io
import os
import select
import stat
import sys
import threading

# Lines beyond this are dropped: about 3,000 lines of nginx's log.
BUFFER_MAX_BYTES = 1024 * 1024

# A longer line is forwarded in parts.
LINE_MAX_BYTES = 64 * 1024

# Lines that arrive within this time are written with one system call.
GATHER_SECONDS = 0.02

# Maximum time that the exit of the process waits for a blocked output.
CLOSE_WITHIN_SECONDS = 1.0

# The maximum size of an atomic write to a pipe.
PIPE_BUF = select.PIPE_BUF


class Relay:
    """Writes to a descriptor in a separate thread."""

    def __init__(self, descriptor):
        self.dropped = 0
        self._descriptor = descriptor
        self._changed = threading.Condition()
        self._chunks = collections.deque()
        self._bytes = 0
        self._unreported = 0
        self._closing = threading.Event()
        self._closed = False
        # A daemon thread, because a write to a paused terminal may block until the process exits.
        threading.Thread(target=self._write_until_closed, daemon=True, name="relay").start()

    def write(self, lines):
        """Enqueues whole lines, or drops them; never blocks."""
        with self._changed:
            if self._bytes + len(lines) > BUFFER_MAX_BYTES:
                self._drop(lines)
                return
            self._chunks.append(lines)
            self._bytes += len(lines)
            if len(self._chunks) == 1:
                self._changed.notify_all()

    def close(self):
        """Waits, up to CLOSE_WITHIN_SECONDS, until everything is written."""
        with self._changed:
            self._closing.set()
            self._changed.notify_all()
            self._changed.wait_for(lambda: self._closed, CLOSE_WITHIN_SECONDS)

    def _drop(self, lines):
        count = lines.count(b"\n")
        self.dropped += count
        self._unreported += count

    def _write_until_closed(self):
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._chunks or self._closing.is_set())
                if not self._chunks:
                    self._closed = True
                    self._changed.notify_all()
                    return
            self._closing.wait(GATHER_SECONDS)
            with self._changed:
                lines = b"".join(self._chunks)
                self._chunks.clear()
                unreported = self._unreported
                # Lines being written count, so that the limit is never exceeded.
                self._bytes = len(lines)
            is_written = self._write(lines)
            with self._changed:
                self._bytes -= len(lines)
                if is_written and unreported:
                    self._unreported -= unreported
                    self.write(b"%d log lines were dropped because nobody read this output\n" % unreported)

    def _write(self, lines):
        """Whether all lines were written; after an error the rest is dropped."""
        for part in parts(lines, PIPE_BUF if self._is_pipe() else len(lines)):
            try:
                self._write_whole(part)
            except OSError:
                with self._changed:
                    self._drop(lines)
                return False
            lines = lines[len(part):]
        return True

    def _write_whole(self, part):
        while part:
            try:
                part = part[os.write(self._descriptor, part):]
            except BlockingIOError:
                # Another process that shares the output has set it to non-blocking.
                select.select([], [self._descriptor], [])

    def _is_pipe(self):
        try:
            return stat.S_ISFIFO(os.fstat(self._descriptor).st_mode)
        except OSError:
            return False


def parts(lines, limit):
    """Splits at line ends into parts no longer than the limit, unless a single line is longer."""
    start = 0
    while start < len(lines):
        if len(lines) - start <= limit:
            end = len(lines)
        else:
            end = lines.rfind(b"\n", start, start + limit) + 1 or lines.find(b"\n", start + limit) + 1 or len(lines)
        yield lines[start:end]
        start = end


class Source:
    """One of several outputs that share a relay: forwards whole lines, so that lines are not mixed, after `edit`."""

    def __init__(self, relay, edit=None):
        self._relay = relay
        self._edit = edit or (lambda lines: lines)
        self._rest = b""

    def write(self, data):
        lines, end, self._rest = (self._rest + data).rpartition(b"\n")
        if end:
            self._relay.write(self._edit(lines + end))
        if len(self._rest) > LINE_MAX_BYTES:
            self.end()

    def end(self):
        """Called at the end of the output: completes an unterminated last line."""
        if self._rest:
            self._relay.write(self._edit(self._rest + b"\n"))
            self._rest = b""


class Text(io.TextIOBase):
    """Replaces sys.stdout or sys.stderr."""

    encoding = "utf-8"

    def __init__(self, relay, descriptor):
        self._source = Source(relay)
        self._descriptor = descriptor

    def write(self, text):
        self._source.write(text.encode("utf-8", "replace"))
        return len(text)

    def fileno(self):
        return self._descriptor

    def isatty(self):
        return os.isatty(self._descriptor)

    def flush(self):
        pass

    def close(self):
        pass


_installed = {}


def install():
    """Makes sys.stdout and sys.stderr non-blocking; returns the relay of each. Later calls have no effect."""
    if not _installed:
        for descriptor in (0, 1, 2):
            open_if_closed(descriptor)
        _installed["stdout"] = Relay(1)
        # One relay preserves the order if both are the same file.
        _installed["stderr"] = _installed["stdout"] if os.path.sameopenfile(1, 2) else Relay(2)
        sys.stdout = Text(_installed["stdout"], 1)
        sys.stderr = Text(_installed["stderr"], 2)
        atexit.register(close)
    return _installed


def open_if_closed(descriptor):
    """Opens a closed standard descriptor on /dev/null; otherwise the next opened file would become the output."""
    try:
        os.fstat(descriptor)
    except OSError:
        # Opens the lowest free descriptor, which is this one.
        os.open(os.devnull, os.O_RDWR)
        os.set_inheritable(descriptor, True)


def close():
    for relay in set(_installed.values()):
        relay.close()


def dropped():
    """The number of lines dropped since the start."""
    return sum(relay.dropped for relay in set(_installed.values()))
