"""Ends the processes that a stack leaves behind when its parent process is killed.

Each program of a stack receives the id of its parent (PARENT_PID) and stops when that process exits; this module waits for
those that are still stopping, and finally kills them, so that ports and DATA_DIR are free for a new stack. It never signals a
process whose parent is alive.
"""

import glob
import os
import signal
import time

# Longer than an idle stack takes to stop, and than the default drain of a busy one (DRAIN_TIMEOUT_MS).
TIMEOUT_SECONDS = 20.0
POLL_SECONDS = 0.02


def end(run_dir, say=lambda text: None):
    """Returns when no process is left of a stack in RUN_DIR whose parent has exited."""
    deadline = time.monotonic() + TIMEOUT_SECONDS
    signalled = set()
    while left := orphans(run_dir):
        if not signalled:
            say(f"waiting for what is left of a stack that was killed: {', '.join(map(str, sorted(left)))}")
        for pid, number in left.items():
            if time.monotonic() > deadline:
                number = signal.SIGKILL
            if (pid, number) not in signalled:
                signalled.add((pid, number))
                try:
                    os.kill(pid, number)
                except ProcessLookupError:
                    pass  # it has already exited
        time.sleep(POLL_SECONDS)


def orphans(run_dir):
    """{process: the signal to send} of the processes of the stack in RUN_DIR whose parent has exited."""
    found = {}
    master = nginx_pid(run_dir)
    for entry in glob.glob("/proc/[0-9]*"):
        pid = int(os.path.basename(entry))
        try:
            command = read(pid, "cmdline")
            if command.startswith(b"nginx: "):
                number = signal_for_nginx(pid, master)
            elif pid != os.getpid() and os.stat(entry).st_uid == os.geteuid() and is_orphan(pid, run_dir):
                number = signal.SIGTERM
            else:
                continue
        except (OSError, ValueError):
            continue  # it has exited meanwhile, or belongs to another user
        if number:
            found[pid] = number
    return found


def is_orphan(pid, run_dir):
    settings = dict(part.partition(b"=")[::2] for part in read(pid, "environ").split(b"\0"))
    parent = settings.get(b"PARENT_PID")
    return settings.get(b"RUN_DIR") == os.fsencode(str(run_dir)) and bool(parent) and not is_alive(int(parent))


def signal_for_nginx(pid, master):
    """The signal for an nginx process; None if it does not belong to this stack or must not be ended.

    nginx overwrites its environment with its title, so it is identified by its process group, which is that of the master.
    """
    if master is None or os.getpgid(pid) != master:
        return None
    if not is_nginx_master(master):
        # Workers without a master would keep the ports and answer with old settings.
        return signal.SIGKILL
    if b"supervisord" in read(parent_of(master), "cmdline"):
        return None
    return signal.SIGQUIT if pid == master else None


def nginx_pid(run_dir):
    """The process id of the last nginx master in RUN_DIR, or None."""
    try:
        with open(f"{run_dir}/nginx/nginx.pid", encoding="ascii") as file:
            return int(file.read())
    except (OSError, ValueError):
        return None


def is_nginx_master(pid):
    """Whether a process id, which may have been reused, is that of an nginx master."""
    try:
        return read(pid, "cmdline").startswith(b"nginx: master")
    except OSError:
        return False


def is_alive(pid):
    """Whether a process exists and is not a zombie."""
    try:
        return fields(pid)[0] != b"Z"
    except OSError:
        return False


def parent_of(pid):
    return int(fields(pid)[1])


def fields(pid):
    """State, parent and further fields (proc_pid_stat(5)); the name before them may contain any character."""
    return read(pid, "stat").rpartition(b")")[2].split()


def read(pid, name):
    with open(f"/proc/{pid}/{name}", "rb") as file:
        return file.read()
