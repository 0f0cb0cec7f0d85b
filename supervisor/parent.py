"""Ending with one's parent, however that ends, kill -9 included."""

import ctypes
import os
import sys

PR_SET_PDEATHSIG = 1

# Loaded here, because a forked child should load nothing.
LIBC = ctypes.CDLL(None, use_errno=True)


def end_with(parent, number):
    """Has the kernel send a signal when the parent ends; ends this process if it has ended already.

    The kernel takes the end of the thread that started us for the parent's end: it must be the main one.
    """
    LIBC.prctl(PR_SET_PDEATHSIG, number, 0, 0, 0)
    if os.getppid() != parent:
        sys.exit("the parent process has gone")
