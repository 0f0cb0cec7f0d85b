"""Terminates a process when its parent exits for any reason, including kill -9."""

import ctypes
import os
import sys

PR_SET_PDEATHSIG = 1

# Loaded at import time, because a forked child must not load libraries.
LIBC = ctypes.CDLL(None, use_errno=True)


def end_with(parent, number):
    """Has the kernel send a signal when the parent exits; exits if the parent has already exited.

    The kernel sends the signal when the thread that forked this process exits, so that must be the main thread.
    """
    LIBC.prctl(PR_SET_PDEATHSIG, number, 0, 0, 0)
    if os.getppid() != parent:
        sys.exit("the parent process has gone")
