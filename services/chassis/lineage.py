"""Processes that end with the one that started them, however that dies."""

import ctypes
import os
import signal

_PR_SET_PDEATHSIG = 1  # linux/prctl.h


def end_with_parent(parent: int) -> bool:
    """Has the kernel kill this process when its parent dies; returns whether that lives.

    Args:
        parent: the process that started this one. Its id is compared, not looked for: it may be
            1, in a container.
    """
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    return os.getppid() == parent
