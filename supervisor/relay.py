"""Standard output and standard error without waiting for whoever reads there.

A terminal that is paused, a pager nobody scrolls, a reader that has gone, a full disk: none of them may hang, fail or end
a program of the stack. Lines are kept up to a bound while the output is stuck, then dropped and counted; once it flows
again a line says how many. Only whole lines are written or dropped.
"""

import atexit
import collections
import io
import os
import select
import stat
import sys
import threading

# Beyond this, lines are dropped: about 3,000 of nginx's.
BUFFER_MAX_BYTES = 1024 * 1024

# A line that has no end by then is passed on as it is.
LINE_MAX_BYTES = 64 * 1024

# Lines that come within this time of each other share a system call.
GATHER_SECONDS = 0.02

# Longest that the end of the process waits for an output that is stuck.
CLOSE_WITHIN_SECONDS = 1.0

# What a pipe takes as one, never mixed with what others write to it.
PIPE_BUF = select.PIPE_BUF


class Relay:
    """What is written to a descriptor by a thread of its own."""

    def __init__(self, descriptor):
        self.dropped = 0
        self._descriptor = descriptor
        self._changed = threading.Condition()
        self._chunks = collections.deque()
        self._bytes = 0
        self._untold = 0
        self._closing = threading.Event()
        self._closed = False
        # A daemon, because a write to a paused terminal ends with the process only.
        threading.Thread(target=self._write_until_closed, daemon=True, name="relay").start()

    def write(self, lines):
        """Takes whole lines, or drops them; never waits."""
        with self._changed:
            if self._bytes + len(lines) > BUFFER_MAX_BYTES:
                self._lose(lines)
                return
            self._chunks.append(lines)
            self._bytes += len(lines)
            if len(self._chunks) == 1:
                self._changed.notify_all()

    def close(self):
        """Waits, within a bound, until everything is written."""
        with self._changed:
            self._closing.set()
            self._changed.notify_all()
            self._changed.wait_for(lambda: self._closed, CLOSE_WITHIN_SECONDS)

    def _lose(self, lines):
        count = lines.count(b"\n")
        self.dropped += count
        self._untold += count

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
                untold = self._untold
                # While they are being written they count, so that no more than the bound is ever held.
                self._bytes = len(lines)
            flows = self._write(lines)
            with self._changed:
                self._bytes -= len(lines)
                if flows and untold:
                    self._untold -= untold
                    self.write(b"%d log lines were dropped because nobody read this output\n" % untold)

    def _write(self, lines):
        """Whether all of them were written; those that were refused are lost."""
        for piece in pieces(lines, PIPE_BUF if self._is_pipe() else len(lines)):
            try:
                self._write_whole(piece)
            except OSError:
                with self._changed:
                    self._lose(lines)
                return False
            lines = lines[len(piece):]
        return True

    def _write_whole(self, piece):
        while piece:
            try:
                piece = piece[os.write(self._descriptor, piece):]
            except BlockingIOError:
                # Somebody who shares the output has set it so.
                select.select([], [self._descriptor], [])

    def _is_pipe(self):
        try:
            return stat.S_ISFIFO(os.fstat(self._descriptor).st_mode)
        except OSError:
            return False


def pieces(lines, limit):
    """Parts of whole lines, each no longer than the limit unless a single line is."""
    start = 0
    while start < len(lines):
        if len(lines) - start <= limit:
            end = len(lines)
        else:
            end = lines.rfind(b"\n", start, start + limit) + 1 or lines.find(b"\n", start + limit) + 1 or len(lines)
        yield lines[start:end]
        start = end


class Source:
    """One of several outputs that share a relay: hands on whole lines, so that none is mixed with another's."""

    def __init__(self, relay):
        self._relay = relay
        self._rest = b""

    def write(self, data):
        lines, end, self._rest = (self._rest + data).rpartition(b"\n")
        if end:
            self._relay.write(lines + end)
        if len(self._rest) > LINE_MAX_BYTES:
            self.end()

    def end(self):
        """There is no more: a last line without its end gets one."""
        if self._rest:
            self._relay.write(self._rest + b"\n")
            self._rest = b""


class Text(io.TextIOBase):
    """In the place of sys.stdout or sys.stderr."""

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
    """From now on sys.stdout and sys.stderr wait for nobody; returns the relay of each, once for the process."""
    if not _installed:
        for descriptor in (0, 1, 2):
            open_if_closed(descriptor)
        _installed["stdout"] = Relay(1)
        # One relay keeps the order where both are the same.
        _installed["stderr"] = _installed["stdout"] if os.path.sameopenfile(1, 2) else Relay(2)
        sys.stdout = Text(_installed["stdout"], 1)
        sys.stderr = Text(_installed["stderr"], 2)
        atexit.register(close)
    return _installed


def open_if_closed(descriptor):
    """Otherwise the next file that is opened would be taken for the output."""
    try:
        os.fstat(descriptor)
    except OSError:
        # The lowest number that is free, which is this one.
        os.open(os.devnull, os.O_RDWR)
        os.set_inheritable(descriptor, True)


def close():
    for relay in set(_installed.values()):
        relay.close()


def dropped():
    """How many lines were dropped since the start."""
    return sum(relay.dropped for relay in set(_installed.values()))
