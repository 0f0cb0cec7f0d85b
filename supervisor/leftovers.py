"""What a stack leaves behind when the process above it is killed, and its end.

Each program of a stack is told its parent (PARENT_PID) and stops when that ends; this waits for those that are still at
it, and kills them in the end, so that a new stack finds ports and DATA_DIR free. Refuses to touch a process whose parent
lives, whoever started it.
"""

import glob
import os
import signal
import time

# Longer than an idle stack takes to stop, and than the drain of a busy one (DRAIN_TIMEOUT_MS) by default.
PATIENCE_SECONDS = 20.0
POLL_SECONDS = 0.02


def end(run_dir, say=lambda text: None):
    """Returns when nothing is left of a stack in RUN_DIR whose parent has gone."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    asked = set()
    while left := orphans(run_dir):
        if not asked:
            say(f"waiting for what is left of a stack that was killed: {', '.join(map(str, sorted(left)))}")
        for pid, number in left.items():
            if time.monotonic() > deadline:
                number = signal.SIGKILL
            if (pid, number) not in asked:
                asked.add((pid, number))
                try:
                    os.kill(pid, number)
                except ProcessLookupError:
                    pass  # it went by itself
        time.sleep(POLL_SECONDS)


def orphans(run_dir):
    """{process: the signal that ends it} of the stack in RUN_DIR, as far as the parent is gone."""
    found = {}
    master = nginx_pid(run_dir)
    for entry in glob.glob("/proc/[0-9]*"):
        pid = int(os.path.basename(entry))
        try:
            command = read(pid, "cmdline")
            if command.startswith(b"nginx: "):
                number = end_of_nginx(pid, master)
            elif pid != os.getpid() and os.stat(entry).st_uid == os.geteuid() and is_orphan(pid, run_dir):
                number = signal.SIGTERM
            else:
                continue
        except (OSError, ValueError):
            continue  # it has gone meanwhile, or is another user's
        if number:
            found[pid] = number
    return found


def is_orphan(pid, run_dir):
    settings = dict(part.partition(b"=")[::2] for part in read(pid, "environ").split(b"\0"))
    parent = settings.get(b"PARENT_PID")
    return settings.get(b"RUN_DIR") == os.fsencode(str(run_dir)) and bool(parent) and not lives(int(parent))


def end_of_nginx(pid, master):
    """The signal for an nginx process, which has written its title over its environment; None when it is none of ours.

    It is known by its group, which is the master's own.
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
    """The process that last was nginx's master here, or None."""
    try:
        with open(f"{run_dir}/nginx/nginx.pid", encoding="ascii") as file:
            return int(file.read())
    except (OSError, ValueError):
        return None


def is_nginx_master(pid):
    """Whether a number that may be in use again is still nginx's."""
    try:
        return read(pid, "cmdline").startswith(b"nginx: master")
    except OSError:
        return False


def lives(pid):
    """Whether a process exists and has not ended; one that nobody has waited for yet has."""
    try:
        return fields(pid)[0] != b"Z"
    except OSError:
        return False


def parent_of(pid):
    return int(fields(pid)[1])


def fields(pid):
    """State, parent and so on (proc_pid_stat(5)); the name before them may hold anything."""
    return read(pid, "stat").rpartition(b")")[2].split()


def read(pid, name):
    with open(f"/proc/{pid}/{name}", "rb") as file:
        return file.read()
