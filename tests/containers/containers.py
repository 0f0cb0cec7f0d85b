"""Shared by the container tests: the engine, Compose projects, requests to them, and load on them."""

import contextlib
import http.client
import json
import shutil
import ssl
import subprocess
import threading

from support import REPOSITORY, Answer, clean_environment, free_port, until

IMAGE = "pycrudapi-test"
VERSION = "test"

# One `up` includes building, initdb and seeding.
UP_SECONDS = 120.0

PASSENGER = {
    "survived": True,
    "passengerClass": 2,
    "name": "Post-Test-Name",
    "sex": "male",
    "age": 27.0,
    "siblingsOrSpousesAboard": 0,
    "parentsOrChildrenAboard": 0,
    "fare": 13.0,
}


def docker(*arguments, check=True, **options):
    """Runs the docker client; returns its output."""
    done = subprocess.run(["docker", *map(str, arguments)], capture_output=True, text=True, check=False, **options)
    assert done.returncode == 0 or not check, f"docker {' '.join(map(str, arguments))}: {done.stdout}{done.stderr}"
    return (done.stdout if check else done.stdout + done.stderr).strip()


def inspect(name):
    """The output of `docker inspect` for one container or image."""
    return json.loads(docker("inspect", name))[0]


def logs(container):
    return docker("logs", container, check=False)


def kill_from_outside(container):
    """Sends SIGKILL to its first process, as the kernel does when memory is exhausted.

    Not `docker kill`, after which the engine considers the container stopped on purpose. Uses a container that sees the
    processes of the host, so that it works for every user of the engine.
    """
    pid = inspect(container)["State"]["Pid"]
    docker("run", "--rm", "--pid=host", "--user=0", "--network=none", f"{IMAGE}:{VERSION}",
           "python3", "-c", f"import os; os.kill({pid}, 9)")  # fmt: skip


def wait_restarted(container, restarts):
    """Waits until the engine has restarted it once more than this often, and has begun its health checks again."""

    def restarted():
        now = inspect(container)
        return now["RestartCount"] == restarts + 1 and now["State"]["Running"]

    until(restarted, "the engine started it again")


class Project:
    """A Compose project on free ports, without a .env file."""

    def __init__(self, name, directory, *files):
        self.http, self.https, self.metrics = free_port(), free_port(), free_port()
        empty = directory / "empty.env"
        empty.touch()
        tool = ["docker-compose"] if shutil.which("docker-compose") else ["docker", "compose"]
        self.command = [*tool, "--env-file", str(empty), "--project-directory", str(REPOSITORY), "--project-name", name]
        for file in files:
            self.command += ["--file", str(REPOSITORY / file)]
        self.settings = {"IMAGE": IMAGE, "VERSION": VERSION, "HTTP_PORT": self.http, "HTTPS_PORT": self.https, "METRICS_PORT": self.metrics}

    def __call__(self, *arguments, **settings):
        environment = clean_environment(**{**self.settings, **settings})
        done = subprocess.run([*self.command, *arguments], env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, f"compose {' '.join(arguments)}: {done.stdout}{done.stderr}"
        return done.stdout

    def up(self, *arguments, **settings):
        """Starts the containers that are not running, and waits until the service answers and is healthy."""
        self("up", "--detach", *arguments, **settings)
        self.wait_healthy("pycrudapi")
        return self

    def container(self, service):
        """The id of the only container of a service."""
        (found,) = self("ps", "--all", "--quiet", service).split()
        return found

    def state(self, service):
        return inspect(self.container(service))["State"]

    def wait_healthy(self, service):
        until(lambda: self.state(service).get("Health", {}).get("Status") == "healthy", f"{service} healthy", UP_SECONDS)

    def request(self, method, path, body=None, headers=None, tls=False):
        """Sends one request on a new connection."""
        with contextlib.closing(self.connection(tls)) as connection:
            if body is not None:
                body, headers = json.dumps(body), {"content-type": "application/json", **(headers or {})}
            connection.request(method, path, body=body, headers=headers or {})
            return Answer(connection.getresponse())

    def connection(self, tls=False, timeout=30):
        if tls:
            # The certificate is self-signed.
            context = ssl._create_unverified_context()  # noqa: SLF001
            return http.client.HTTPSConnection("127.0.0.1", self.https, timeout=timeout, context=context)
        return http.client.HTTPConnection("127.0.0.1", self.http, timeout=timeout)


def address(container):
    """The address of the container that is reachable from this machine."""
    networks = inspect(container)["NetworkSettings"]["Networks"].values()
    return next(each["IPAddress"] for each in networks if each["IPAddress"])


class Load:
    """Clients that send requests continuously, each on one connection; unexpected answers are recorded."""

    def __init__(self, project, work, clients=4):
        self.project, self.work = project, work
        self.answered, self.failures = 0, []
        self.lock, self.ended = threading.Lock(), threading.Event()
        self.threads = [threading.Thread(target=self.run) for _ in range(clients)]

    def __enter__(self):
        for thread in self.threads:
            thread.start()
        return self

    def __exit__(self, *_):
        self.ended.set()
        for thread in self.threads:
            thread.join()

    def run(self):
        connection = self.project.connection()
        while not self.ended.is_set():
            try:
                method, path, body, expected = self.work()
                connection.request(method, path, body=body, headers={"content-type": "application/json"} if body else {})
                answer = Answer(connection.getresponse())
                failure = None if answer.status == expected else f"{method} {answer}"
            except (OSError, http.client.HTTPException) as error:
                connection.close()
                failure = repr(error)
            with self.lock:
                self.answered += 1
                if failure:
                    self.failures.append(failure)
        connection.close()

    def more(self, count):
        """Waits until this many more requests have been answered."""
        target = self.answered + count
        until(lambda: self.answered >= target, f"{count} more answers")
