"""Directories that other users of the machine can neither prepare nor enter, and the account nginx's workers have.

As root the workers are another user, whose group is then let through; nobody else is.
"""

import os
import pwd


class Refused(Exception):
    """A directory that somebody else may have prepared; says which, why, and what to do."""


def worker():
    """The account that root's nginx gives its workers; None for an ordinary user, who has nothing to give up."""
    if os.geteuid() != 0:
        return None
    for name in ("www-data", "nginx", "nobody"):
        try:
            return pwd.getpwnam(name)
        except KeyError:
            continue
    return None


def directory(path, setting, shared=False):
    """Makes a directory, or takes one that is ours, for us alone; a shared one may be passed through by the workers."""
    remedy = f"remove it, or set {setting} to a directory of yours"
    try:
        os.makedirs(os.path.dirname(path) or ".", exist_ok=True)
    except OSError as error:
        raise unwritable(path, setting, error.strerror) from None
    for above in ancestors(path):
        if os.stat(above).st_uid not in trusted_users():
            raise Refused(f"{setting}={path}: {above} belongs to another user; {remedy}")
    try:
        os.mkdir(path, 0o700)
    except FileExistsError:
        pass
    except OSError as error:
        raise unwritable(path, setting, error.strerror) from None
    if os.statvfs(path).f_flag & os.ST_RDONLY:
        raise unwritable(path, setting, "read-only file system")
    try:
        opened = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError as error:
        raise Refused(f"{setting}={path}: it is no directory of yours ({error.strerror}); {remedy}") from None
    try:
        # Through the open directory, so that nobody can put another in its place meanwhile.
        found = os.fstat(opened)
        if found.st_uid != os.geteuid():
            # A container's volume is root's and open to its one user.
            if found.st_uid not in trusted_users() or any(is_foreign(opened, name) for name in os.listdir(opened)):
                raise Refused(f"{setting}={path}: it belongs to another user; {remedy}")
            return
        if not os.listdir(opened):
            account = worker() if shared else None
            if account:
                os.fchown(opened, -1, account.pw_gid)
            os.fchmod(opened, 0o710 if account else 0o700)
        # Looked at again, now that nobody else adds to it. One that is in use keeps its mode: it may serve other ends.
        if found.st_mode & 0o022 and os.listdir(opened):
            raise Refused(f"{setting}={path}: other users may have written to it; {remedy}")
    finally:
        os.close(opened)


def unwritable(path, setting, reason):
    return Refused(
        f"{setting}={path}: nothing can be written there ({reason.lower()}); mount a file system in memory on it "
        f"(docker run --tmpfs {path}), or set {setting} to a directory of yours"
    )


def is_foreign(opened, name):
    return os.stat(name, dir_fd=opened, follow_symlinks=False).st_uid != os.geteuid()


def ancestors(path):
    """The directories above a path, without links."""
    above = os.path.realpath(os.path.dirname(os.path.abspath(path)))
    while above != "/":
        yield above
        above = os.path.dirname(above)


def trusted_users():
    """Root and ourselves. In a user namespace the machine's root has no number of its own, but the overflow one."""
    with open("/proc/self/uid_map", encoding="ascii") as mapped:
        whole = mapped.read().split() == ["0", "0", "4294967295"]
    return {0, os.geteuid()} if whole else {0, os.geteuid(), 65534}


def socket(path):
    """Lets the workers connect, and nobody else."""
    account = worker()
    if account:
        os.chown(path, -1, account.pw_gid)
    os.chmod(path, 0o660 if account else 0o600)
