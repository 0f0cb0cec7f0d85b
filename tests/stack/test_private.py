"""Another user of the machine can neither bypass nginx nor create the directories to which the stack writes."""

import importlib
import os
import pwd
import subprocess
import sys

import pytest

import support
from support import REPOSITORY

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root to become another user")


def as_nobody(program, *arguments):
    """Runs a line of Python as the user nobody and returns its output."""
    account = pwd.getpwnam("nobody")
    return subprocess.run(
        ["/usr/bin/python3", "-c", program, *map(str, arguments)], user=account.pw_uid, group=account.pw_gid,
        extra_groups=[], capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip


CONNECT = "import socket, sys; socket.socket(socket.AF_UNIX).connect(sys.argv[1])"


@needs_root
def test_another_user_can_connect_to_no_socket_of_the_stack(stack):
    one = stack()
    for name in ("pycrudapi.sock", "supervisor.sock"):
        assert "PermissionError" in as_nobody(CONNECT, one.run_dir / name).stderr, name
    assert one.request("GET", "/hello").status == 200
    # The modes of the sockets deny access, too.
    one.run_dir.chmod(0o755)
    for name in ("pycrudapi.sock", "supervisor.sock"):
        assert "PermissionError" in as_nobody(CONNECT, one.run_dir / name).stderr, name
    # Also after a reload of supervisord, which recreates them.
    first = one.server_pid()
    one.process.signal(support.signal.SIGHUP)
    support.until(lambda: first not in one.processes(), "the old server is gone")
    support.until(one.is_ready, "a new one answers")
    assert "PermissionError" in as_nobody(CONNECT, one.run_dir / "pycrudapi.sock").stderr


@needs_root
def test_nothing_in_the_run_directory_can_be_read_or_written_by_others(stack):
    one = stack(TLS_SELF_SIGNED="true")
    # The directory itself belongs to the test.
    mine = (one.run_dir / "nginx").stat()
    assert mine.st_uid == 0 and mine.st_mode & 0o007 == 0, oct(mine.st_mode)
    key = one.run_dir / "tls" / "self-signed.pem"
    assert key.stat().st_mode & 0o077 == 0


@needs_root
@pytest.mark.parametrize("writable", [False, True])
def test_a_read_only_container_without_its_file_systems_in_memory_says_what_is_missing(directory, writable):
    """Only RUN_DIR is required: supervisord starts without another directory for temporary files."""
    run_dir = directory / "run"
    run_dir.mkdir(mode=0o755)
    script = f"""
        mount -t tmpfs -o mode=1777 none {run_dir} || exit 77
        {"" if writable else f"mount -o remount,ro {run_dir}"}
        for place in /tmp /var/tmp; do mount --rbind $place $place && mount -o remount,ro,bind $place || exit 77; done
        cd / && exec /usr/bin/python3 -m begin --version
    """
    environment = support.clean_environment(RUN_DIR=run_dir, PYTHONPATH=REPOSITORY / "supervisor", PYTHONDONTWRITEBYTECODE=1)
    environment.pop("TMPDIR", None)
    done = subprocess.run(["unshare", "--mount", "sh", "-c", script], env=environment, capture_output=True, text=True, check=False)
    if done.returncode == 77 or "unshare" in done.stderr:
        pytest.skip(f"file systems cannot be mounted here: {done.stderr}")
    assert "Traceback" not in done.stderr, done.stderr
    if writable:
        assert (done.returncode, done.stderr) == (0, "")
    else:
        assert done.returncode == 2
        assert f"RUN_DIR={run_dir}: nothing can be written there" in done.stderr and f"--tmpfs {run_dir}" in done.stderr


def prepared_by_nobody(path, how):
    programs = {
        "directory": "import os, sys; os.mkdir(sys.argv[1]); os.chmod(sys.argv[1], 0o777)",
        "link": "import os, sys; os.symlink('/', sys.argv[1])",
        "file": "import sys; open(sys.argv[1], 'w')",
    }
    done = as_nobody(programs[how], path)
    assert done.returncode == 0, done


@pytest.fixture
def open_directory(directory):
    """A world-writable directory like /tmp."""
    place = directory / "open"
    place.mkdir()
    place.chmod(0o1777)
    return place


@needs_root
@pytest.mark.parametrize("how", ["directory", "link", "file"])
@pytest.mark.parametrize("which", ["scripts/up", "supervisord", "pycrudapi nginx"])
def test_a_run_directory_that_somebody_else_prepared_is_refused(open_directory, directory, how, which):
    run_dir = open_directory / "run"
    prepared_by_nobody(run_dir, how)
    commands = {
        "scripts/up": [REPOSITORY / "scripts" / "up"],
        "supervisord": ["supervisord", "-c", REPOSITORY / "supervisord.conf", "-u", "root"],
        "pycrudapi nginx": [support.PROGRAM, "nginx"],
    }
    settings = {
        "RUN_DIR": run_dir, "DATA_DIR": directory / "data", "PYTHONPATH": REPOSITORY / "supervisor",
        "PATH": f"{support.BINARY_DIR}:{os.environ['PATH']}", "METRICS_PORT": support.free_port(),
        "HTTP_PORT": support.free_port(), "HTTPS_PORT": support.free_port(),
    }  # fmt: skip
    done = subprocess.run(
        commands[which], env=support.clean_environment(**settings), capture_output=True, text=True, timeout=60
    )
    said = done.stdout + done.stderr
    assert done.returncode not in (0, None), said
    if how == "directory" or which != "supervisord":
        assert f"RUN_DIR={run_dir}" in said, said
    if how == "directory":
        # supervisord binds its sockets before it loads its plugin; scripts/up checks before that.
        assert all(path.is_socket() for path in run_dir.iterdir()), list(run_dir.iterdir())


@needs_root
def test_a_guessed_run_directory_that_somebody_else_made_is_passed_by(open_directory, directory):
    ports = {name: support.free_port() for name in ("HTTP_PORT", "HTTPS_PORT", "METRICS_PORT")}
    environment = support.clean_environment(TMPDIR=open_directory, DATA_DIR=directory / "data", **ports)
    look = "import runpy, sys; up = runpy.run_path(sys.argv[1]); print(up['wanted_run_dir']())"
    guessed = subprocess.run(
        [sys.executable, "-c", look, REPOSITORY / "scripts" / "up"], env=environment, capture_output=True, text=True,
        check=True,
    ).stdout.strip()  # fmt: skip
    prepared_by_nobody(guessed, "directory")
    one = support.Process([REPOSITORY / "scripts" / "up"], environment)
    try:
        support.until(lambda: not one.running or "Ctrl-C stops it" in one.output, "the announcement", 120)
        assert one.running, one.output
        assert os.listdir(guessed) == []
        used = [entry for entry in open_directory.iterdir() if str(entry) != guessed]
        assert len(used) == 1 and used[0].stat().st_uid == 0, used
    finally:
        one.signal(support.signal.SIGTERM)
        one.wait()


@needs_root
@pytest.mark.parametrize("how", ["directory", "link"])
def test_a_certificate_that_somebody_else_prepared_is_refused(open_directory, directory, how):
    prepared_by_nobody(open_directory / "tls", how)
    settings = {"RUN_DIR": directory / "run", "TLS_SELF_SIGNED": "true", "TLS_DIR": open_directory / "tls"}
    done = subprocess.run(
        [support.PROGRAM, "nginx", "check"], env=support.clean_environment(**settings),
        capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert done.returncode == 2 and "TLS_DIR" in done.stderr, done


def test_a_directory_that_a_stopping_stack_removes_meanwhile_is_created_again(directory, monkeypatch):
    monkeypatch.syspath_prepend(REPOSITORY / "supervisor")
    private = importlib.import_module("private")
    path, opening = directory / "run", os.open

    def open_too_late(*arguments):
        monkeypatch.setattr(private.os, "open", opening)
        os.rmdir(path)
        return opening(*arguments)

    monkeypatch.setattr(private.os, "open", open_too_late)
    private.directory(str(path), "RUN_DIR")
    assert path.is_dir()


def test_a_directory_above_that_belongs_to_somebody_else_is_refused(open_directory):
    if os.geteuid() != 0:
        pytest.skip("needs root to become another user")
    prepared_by_nobody(open_directory / "theirs", "directory")
    done = subprocess.run(
        [support.PROGRAM, "nginx", "check"],
        env=support.clean_environment(RUN_DIR=open_directory / "theirs" / "run"), capture_output=True, text=True,
        timeout=60,
    )  # fmt: skip
    assert done.returncode == 2 and "belongs to another user" in done.stderr, done


@needs_root
def test_a_volume_of_roots_that_is_open_to_the_one_user_serves(open_directory):
    """As in a container, whose volumes belong to root and are writable for its user; files of other users make it unusable."""
    command = ["/usr/bin/python3", "-c", "import private, sys; private.directory(sys.argv[1], 'RUN_DIR')", open_directory]
    account = pwd.getpwnam("www-data")

    def ask():
        return subprocess.run(
            command, user=account.pw_uid, group=account.pw_gid, extra_groups=[], capture_output=True, text=True,
            env=support.clean_environment(PYTHONPATH=REPOSITORY / "supervisor", PYTHONDONTWRITEBYTECODE=1), timeout=60,
        )  # fmt: skip

    assert ask().returncode == 0, ask()
    prepared_by_nobody(open_directory / "nginx", "directory")
    assert "belongs to another user" in ask().stderr, ask()
