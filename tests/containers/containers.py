"""What the container tests share: the engine, compose projects, requests to them, and load on them."""

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

# Installing, initdb and seeding happen behind one `up`.
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
    """Runs the docker client; answers what it printed."""
    done = subprocess.run(["docker", *map(str, arguments)], capture_output=True, text=True, check=False, **options)
    assert done.returncode == 0 or not check, f"docker {' '.join(map(str, arguments))}: {done.stdout}{done.stderr}"
    return (done.stdout if check else done.stdout + done.stderr).strip()


def inspect(name):
    """What the engine knows of one container or image."""
    return json.loads(docker("inspect", name))[0]


def logs(container):
    return docker("logs", container, check=False)


def kill_from_outside(container):
    """SIGKILL to its first process, as the kernel does when memory runs out.

    Not `docker kill`: after that the engine takes the container for one stopped on purpose. From a container that
    sees the host's processes, so that it works for whoever may use the engine.
    """
    pid = inspect(container)["State"]["Pid"]
    docker("run", "--rm", "--pid=host", "--user=0", "--network=none", f"{IMAGE}:{VERSION}",
           "python3", "-c", f"import os; os.kill({pid}, 9)")  # fmt: skip


def wait_restarted(container, restarts):
    """Returns when the engine has started it once more than so often, and has begun to look at its health anew."""

    def restarted():
        now = inspect(container)
        return now["RestartCount"] == restarts + 1 and now["State"]["Running"]

    until(restarted, "the engine started it again")


class Project:
    """One compose project on ports of its own, without anybody's .env."""

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
        """Starts what is not running, and returns when the service answers and is healthy."""
        self("up", "--detach", *arguments, **settings)
        self.wait_healthy("pycrudapi")
        return self

    def container(self, service):
        """The id of a service's one container."""
        (found,) = self("ps", "--all", "--quiet", service).split()
        return found

    def state(self, service):
        return inspect(self.container(service))["State"]

    def wait_healthy(self, service):
        until(lambda: self.state(service).get("Health", {}).get("Status") == "healthy", f"{service} healthy", UP_SECONDS)

    def request(self, method, path, body=None, headers=None, tls=False):
        """One request on a connection of its own."""
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
    """An address of the container that this machine can reach."""
    networks = inspect(container)["NetworkSettings"]["Networks"].values()
    return next(each["IPAddress"] for each in networks if each["IPAddress"])


class Load:
    """A few clients that ask without pause, each on one connection; what was not answered as expected is kept."""

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
        """Returns when so many more requests were answered."""
        target = self.answered + count
        until(lambda: self.answered >= target, f"{count} more answers")
