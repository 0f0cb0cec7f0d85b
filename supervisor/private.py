"""Directories that other users of the machine can neither create in advance nor enter, and the account of nginx's workers.

When nginx runs as root, its workers are another user; only the group of that user gets access.
"""

import os
import pwd


class Refused(Exception):
    """A directory that cannot be used or that another user may have created; the message has the path, the reason and the remedy."""


def worker():
    """The account of the workers if nginx runs as root; None for an ordinary user."""
    if os.geteuid() != 0:
        return None
    for name in ("www-data", "nginx", "nobody"):
        try:
            return pwd.getpwnam(name)
        except KeyError:
            continue
    return None


def directory(path, setting, shared=False):
    """Creates a directory accessible only to this user, or checks an existing one; nginx's workers may traverse a shared one."""
    remedy = f"remove it, or set {setting} to a directory of yours"
    try:
        os.makedirs(os.path.dirname(path) or ".", exist_ok=True)
    except OSError as error:
        raise unwritable(path, setting, error.strerror) from None
    for above in ancestors(path):
        if os.stat(above).st_uid not in trusted_users():
            raise Refused(f"{setting}={path}: {above} belongs to another user; {remedy}")
    opened = None
    while opened is None:
        try:
            os.mkdir(path, 0o700)
        except FileExistsError:
            pass
        except OSError as error:
            raise unwritable(path, setting, error.strerror) from None
        try:
            opened = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
        except FileNotFoundError:
            continue  # a stack that is stopping has just removed it
        except OSError as error:
            raise Refused(f"{setting}={path}: it is not a directory of yours ({error.strerror}); {remedy}") from None
    try:
        if os.fstatvfs(opened).f_flag & os.ST_RDONLY:
            raise unwritable(path, setting, "read-only file system")
        # Through the open descriptor, so that the directory cannot be replaced meanwhile.
        found = os.fstat(opened)
        if found.st_uid != os.geteuid():
            # The volume of a container belongs to root and is writable for the user of the container.
            if found.st_uid not in trusted_users() or any(is_foreign(opened, name) for name in os.listdir(opened)):
                raise Refused(f"{setting}={path}: it belongs to another user; {remedy}")
            return
        if not os.listdir(opened):
            account = worker() if shared else None
            if account:
                os.fchown(opened, -1, account.pw_gid)
            os.fchmod(opened, 0o710 if account else 0o700)
        # Checked again, because now no other user can add files. A directory in use keeps its mode, because it may have other purposes.
        if found.st_mode & 0o022 and os.listdir(opened):
            raise Refused(f"{setting}={path}: other users may have written to it; {remedy}")
    finally:
        os.close(opened)


def unwritable(path, setting, reason):
    return Refused(
        f"{setting}={path}: nothing can be written there ({reason.lower()}); mount a tmpfs on it "
        f"(docker run --tmpfs {path}), or set {setting} to a directory of yours"
    )


def is_foreign(opened, name):
    return os.stat(name, dir_fd=opened, follow_symlinks=False).st_uid != os.geteuid()


def ancestors(path):
    """The parent directories of a path, with symbolic links resolved."""
    above = os.path.realpath(os.path.dirname(os.path.abspath(path)))
    while above != "/":
        yield above
        above = os.path.dirname(above)


def trusted_users():
    """Root and this user. In a user namespace the root of the machine has no id but appears as the overflow uid."""
    with open("/proc/self/uid_map", encoding="ascii") as mapped:
        whole = mapped.read().split() == ["0", "0", "4294967295"]
    return {0, os.geteuid()} if whole else {0, os.geteuid(), 65534}


def socket(path):
    """Allows only nginx's workers to connect, in addition to this user."""
    account = worker()
    if account:
        os.chown(path, -1, account.pw_gid)
    os.chmod(path, 0o660 if account else 0o600)
