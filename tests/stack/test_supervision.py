"""supervisord and its plugin, with a stub instead of the server: without a database each test is fast."""

import os
import pathlib
import shutil
import signal
import socket
import subprocess
import threading
import time

import pytest

import support
from support import REPOSITORY, until


@pytest.fixture
def stub(stack, directory):
    """stub(**settings): a stack whose `pycrudapi` is the stub."""
    folder = directory / "bin"
    folder.mkdir()
    program = folder / "pycrudapi"
    shutil.copy(pathlib.Path(__file__).with_name("stub_server.py"), program)
    program.chmod(0o755)
    path = f"{folder}:{os.environ['PATH']}"

    def start(ready=True, **settings):
        return stack(ready=ready, PATH=path, STUB_STANDS_FOR=support.PROGRAM, **settings)

    return start


def pid_by_http(one):
    return int(one.request("GET", "/pid").body)


def test_it_starts_and_stops_without_output_of_its_own(stub):
    one = stub()
    server = pid_by_http(one)
    assert one.stop() == 0
    # nginx logs that it inherits its sockets from `pycrudapi nginx`.
    ours = [line for line in one.process.lines if not line.startswith('{"time"') and "inherited sockets" not in line]
    assert ours[0] == f"stub {server} serves fd:0"
    assert len(ours) == 2 and "received SIGTERM indicating exit request" in ours[1], ours


def test_ctrl_c_reaches_supervisord_only_and_stops_everything(stub):
    one = stub()
    one.process.signal(signal.SIGINT, group=True)
    assert one.process.wait() == 0
    one.assert_nothing_runs()


def test_it_leaves_no_socket_behind(stub):
    one = stub()
    assert (one.run_dir / "pycrudapi.sock").is_socket()
    one.stop()
    assert not (one.run_dir / "pycrudapi.sock").exists()


def test_a_server_that_was_killed_is_replaced_and_no_request_is_refused(stub):
    one = stub()
    first = pid_by_http(one)
    answers, over = [], threading.Event()

    def ask():
        while not over.is_set():
            answers.append(one.request("GET", "/pid").status)

    asking = [threading.Thread(target=ask) for _ in range(4)]
    for thread in asking:
        thread.start()
    until(lambda: len(answers) > 20, "requests are under way")
    os.kill(first, signal.SIGKILL)
    # The request waits in the backlog of the socket held by supervisord, and is then answered.
    second = pid_by_http(one)
    until(lambda: len(answers) > 40, "requests go on")
    over.set()
    for thread in asking:
        thread.join()
    assert second != first
    assert set(answers) == {200}


def test_a_server_that_had_been_up_is_replaced_within_half_a_second(stub):
    one = stub()
    took = []
    for _ in range(3):
        pid = pid_by_http(one)
        _up_for_a_second(pid)
        killed = time.clock_gettime(time.CLOCK_BOOTTIME)
        os.kill(pid, signal.SIGKILL)
        successor = pid_by_http(one)
        assert successor != pid
        took.append(_started(successor) - killed)
    # By itself supervisor would need more than one iteration of its loop, of a second each; load only adds to that.
    assert min(took) < 0.5, took


def test_a_post_that_arrives_while_the_server_restarts_waits_and_is_answered_once(stub):
    one = stub()
    server = pid_by_http(one)
    os.kill(server, signal.SIGSTOP)
    # When `kill` returns, the signal has only been sent; the server accepts connections until it arrives.
    until(lambda: _state(server) == "T", "the server has stopped")
    sent = socket.create_connection(("127.0.0.1", one.port), 30)
    sent.sendall(b"POST /x HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\nConnection: close\r\n\r\n{}")
    # It is in the backlog and not accepted, so the stopped server cannot have read it.
    until(lambda: _backlog(one.run_dir / "pycrudapi.sock") >= 1, "the connection waits in the backlog")
    os.kill(server, signal.SIGKILL)
    answer = sent.recv(1000)
    sent.close()
    assert answer.startswith(b"HTTP/1.1 200 "), answer
    assert not answer.endswith(str(server).encode())


def _state(pid):
    """The state letter of a process; T is stopped (proc_pid_stat(5))."""
    with open(f"/proc/{pid}/stat", encoding="utf-8") as stat:
        return stat.read().rpartition(")")[2].split()[0]


def _backlog(path):
    """The number of connections in the backlog of a Unix socket."""
    with open("/proc/net/unix", encoding="ascii") as table:
        rows = [line.split() for line in table if line.rstrip().endswith(str(path))]
    # State 02 is "connecting": a connection that was not accepted.
    return sum(row[5] == "02" for row in rows)


def test_nginx_that_was_killed_is_replaced_workers_and_all(stub):
    one = stub()
    master = one.nginx_pid()
    workers = {pid for pid, line in one.processes().items() if "nginx: worker" in line}
    assert workers
    os.kill(master, signal.SIGKILL)
    until(lambda: not workers & one.processes().keys(), "the old workers are gone")
    until(lambda: one.is_ready(), "a new nginx answers")
    assert one.stop() == 0


@pytest.mark.parametrize("behaviour", ["exits-at-once", "exits-often"])
def test_a_server_that_keeps_dying_ends_supervisord_with_status_1(stub, behaviour):
    one = stub(ready=False, STUB=behaviour)
    assert one.process.wait() == 1
    one.assert_nothing_runs()
    said = {"exits-at-once": "server did not start", "exits-often": "server ended 5 times within 60 s"}[behaviour]
    assert f"{said}" in one.process.output
    assert "stopping everything with exit status 1" in one.process.output


def test_a_server_that_is_killed_again_and_again_ends_supervisord_with_status_1(stub):
    one = stub()
    for _ in range(5):
        if not one.process.running:
            break
        pid = _server(one)
        _up_for_a_second(pid)
        os.kill(pid, signal.SIGKILL)
        until(lambda: pid not in one.processes(), "it is gone")
    assert one.process.wait() == 1
    one.assert_nothing_runs()


def _server(one):
    return until(lambda: next((pid for pid, line in one.processes().items() if "pycrudapi serve" in line), None), "a server")


def _started(pid):
    """The start time of a process, in time since boot."""
    ticks = int(pathlib.Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19])
    return ticks / os.sysconf("SC_CLK_TCK")


def _up_for_a_second(pid):
    """Waits, because supervisor counts an exit within the first second as a failed start, and delays the next."""
    until(lambda: time.clock_gettime(time.CLOCK_BOOTTIME) > _started(pid) + 2.2, "it has run for two seconds")


def test_nginx_that_cannot_start_ends_supervisord_and_the_server_with_it(stub):
    one = stub(ready=False, RATE_LIMIT="fast")
    assert one.process.wait() == 1
    one.assert_nothing_runs()
    assert "RATE_LIMIT=fast: must be a whole number" in one.process.output
    assert "nginx did not start" in one.process.output


def test_nginx_is_gone_before_the_server_is_told_to_stop(stub, directory):
    """A request in flight keeps nginx draining; the server must not be stopped meanwhile."""
    one = stub()
    server = pid_by_http(one)
    with socket.create_connection(("127.0.0.1", one.port), 30) as upload:
        upload.sendall(b"POST /x HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\n\r\n12")
        # nginx counts a request as in flight only after it has read the head, which it has when it answers another request.
        pid_by_http(one)
        one.process.signal(signal.SIGTERM)
        until(lambda: _refused(one.port), "nginx takes no new connections")
        assert server in one.processes()
        assert not _told_to_stop(server)
        upload.sendall(b"34")
        assert upload.recv(1000).endswith(str(server).encode())
    assert one.process.wait() == 0
    one.assert_nothing_runs()


def _refused(port):
    try:
        socket.create_connection(("127.0.0.1", port), 5).close()
    except OSError:
        return True


def _told_to_stop(pid):
    return not pathlib.Path(f"/proc/{pid}").exists()


def test_the_drain_of_a_client_that_never_ends_is_bounded(stub):
    one = stub(DRAIN_TIMEOUT_MS=500)
    with socket.create_connection(("127.0.0.1", one.port), 30) as upload:
        upload.sendall(b"POST /x HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\n\r\n12")
        pid_by_http(one)
        one.process.signal(signal.SIGTERM)
        assert one.process.wait(20) == 0
    one.assert_nothing_runs()


def test_nginx_goes_when_supervisord_itself_is_killed(stub):
    one = stub()
    one.process.signal(signal.SIGKILL)
    until(lambda: not any("nginx" in line for line in one.processes().values()), "nginx is gone")


def test_supervisorctl_works_with_the_same_file(stub):
    one = stub()
    first = pid_by_http(one)
    control = ["supervisorctl", "-c", REPOSITORY / "supervisord.conf"]
    status = subprocess.run([*control, "status"], env=one.environment, capture_output=True, text=True, timeout=30)
    assert {line.split()[0] for line in status.stdout.splitlines()} == {"server", "nginx"}, status
    subprocess.run([*control, "restart", "server"], env=one.environment, check=True, capture_output=True, timeout=60)
    assert pid_by_http(one) != first
    assert one.stop() == 0


def test_the_control_socket_is_closed_to_others(stub):
    one = stub()
    assert (one.run_dir / "supervisor.sock").stat().st_mode & 0o777 == 0o700


def test_a_reload_of_supervisord_keeps_its_promises(stub):
    one = stub()
    first = _server(one)
    one.process.signal(signal.SIGHUP)
    until(lambda: first not in one.processes(), "the old server is gone")
    until(lambda: one.is_ready(), "a new one answers")
    second = pid_by_http(one)
    _up_for_a_second(second)
    os.kill(second, signal.SIGKILL)
    assert pid_by_http(one) != second
    assert one.stop() == 0


def test_a_stop_right_after_the_start_is_not_forgotten(stub):
    """nginx loses a signal that arrives during its start; supervisord would wait for its deadline and kill it."""
    for moment in range(10):
        one = stub(ready=False)
        until(lambda one=one: any("nginx" in line for line in one.processes().values()), "nginx starts")
        rendered = one.run_dir / "nginx" / "nginx.conf"
        until(lambda rendered=rendered: rendered.exists(), "nginx is about to start")
        # Each round sends it a little later, to cover the whole start of nginx.
        for _ in range(moment):
            one.processes()
        one.process.signal(signal.SIGTERM)
        assert one.process.wait(30) == 0
        one.assert_nothing_runs()


def test_once_an_hour_the_certificate_is_looked_after(directory):
    """With supervisord's own interpreter, and the event of its hourly timer."""
    interpreter = pathlib.Path(shutil.which("supervisord")).read_text().splitlines()[0][2:].split()[0]
    mark = directory / "ran"
    program = f"""
import types
from supervisor import events
from stack_keeper import make_stack_keeper
logger = types.SimpleNamespace(warn=print, handlers=[])
supervisord = types.SimpleNamespace(options=types.SimpleNamespace(logger=logger), process_groups={{}})
make_stack_keeper(supervisord, certificate_command=["sh", "-c", "echo renewed; touch {mark}"])
events.notify(events.Tick3600Event(0, supervisord))
make_stack_keeper(supervisord, certificate_command=["/nowhere/at-all"])
events.notify(events.Tick3600Event(3600, supervisord))
"""
    done = subprocess.run(
        [interpreter, "-c", program],
        env=support.clean_environment(
            PYTHONPATH=REPOSITORY / "supervisor", PYTHONDONTWRITEBYTECODE=1, RUN_DIR=directory / "run"
        ),
        capture_output=True,
        text=True,
        timeout=30,
        check=True,
    )
    assert mark.exists()
    assert done.stdout.splitlines()[0] == "renewed"
    assert "the certificate could not be checked" in done.stdout
