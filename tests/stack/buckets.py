"""A real S3 server for backups, and a way to it that is cut or held."""

import contextlib
import os
import signal
import socket
import subprocess
import threading

import support
from support import REPOSITORY, free_port, until

BUCKET = "pycrudapi"
PLACE = f"s3://{BUCKET}/nightly/one"
REGION = "eu-central-1"
KEY_ID, SECRET = "key-of-tests", "se/cr+et of tests"


class Store:
    """The server, and what it keeps."""

    def __init__(self, directory):
        fetched = subprocess.run([REPOSITORY / "scripts/fetch-s3"], capture_output=True, text=True, check=True)
        self.program, self.directory, self.port = fetched.stdout.strip(), directory, free_port()
        (directory / BUCKET).mkdir(parents=True)
        self.start()

    def start(self):
        place = ["--data-dir", self.directory, "--host", "127.0.0.1", "--port", str(self.port), "--region", REGION]
        environment = {**os.environ, "NANIO_ACCESS_KEY": KEY_ID, "NANIO_SECRET_KEY": SECRET}
        self.process = support.Process([self.program, "serve", *place], environment)
        until(lambda: self._listens() or not self.process.running, "the store listens")
        assert self.process.running, self.process.output

    def _listens(self):
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port), 1):
            return True

    def stop(self):
        self.process.signal(signal.SIGKILL)
        self.process.wait()

    def settings(self):
        """What the program is told to use it."""
        return {
            "BACKUP_DIR": PLACE,
            "AWS_ENDPOINT_URL": f"http://127.0.0.1:{self.port}",
            "AWS_ACCESS_KEY_ID": KEY_ID,
            "AWS_SECRET_ACCESS_KEY": SECRET,
            "AWS_REGION": REGION,
        }

    def files(self):
        """What is behind the place, by key."""
        root = self.directory / BUCKET / "nightly" / "one"
        return {str(path.relative_to(root)): path for path in root.rglob("*") if path.is_file()}


class Wire:
    """A way to the store that lets so many bytes through, and then cuts the connection, or holds it."""

    def __init__(self, port):
        self.port, self.budget, self.holds, self.cuts = port, None, False, 0
        self.held = threading.Event()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.place = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self):
        with contextlib.suppress(OSError):
            while True:
                near, _ = self._listener.accept()
                far = socket.create_connection(("127.0.0.1", self.port))
                for pair in ((near, far, True), (far, near, False)):
                    threading.Thread(target=self._pass_on, args=pair, daemon=True).start()

    def _pass_on(self, source, sink, counts):
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                if counts and self.budget is not None:
                    self.budget -= len(data)
                    if self.budget < 0 and self.holds:
                        self.held.set()
                        return
                    if self.budget < 0:
                        self.budget, self.cuts = None, self.cuts + 1
                        break
                sink.sendall(data)
        for end in (source, sink):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)

    def close(self):
        self._listener.close()
