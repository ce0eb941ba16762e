"""Confines an egress worker to the descriptors that it was given.

Afterwards it opens, connects and makes nothing: an empty root without a network, a user of its own
where the service is root, a filter of system calls, and memory that is neither dumped nor swapped.
"""

import ctypes
import resource
from collections.abc import Sequence
from typing import Final

from services.isolation import steps, system_calls
from services.isolation.allowed_calls import Kind
from services.isolation.call_filter import install_filter

_DESCRIPTORS: Final = 4096
_MEMORY_BYTES: Final = 512 << 20
_PR_SET_DUMPABLE: Final = 4
_MCL_CURRENT, _MCL_FUTURE, _MCL_ONFAULT = 1, 2, 4


def confine(*, uid: int, gids: Sequence[int], view_required: bool) -> str:
    """Leaves everything behind but open descriptors; returns why it has no view of its own.

    Args:
        uid: the user to become where we are root.
        gids: its group and its further ones.
        view_required: whether a host that permits no view of its own is an error.

    Returns:
        Empty if it has one.

    Raises:
        OSError: a step failed that has to succeed.
    """
    obstacle = ""
    try:
        steps.enter_empty_view()
    except OSError as error:
        if view_required:
            raise
        obstacle = str(error)
    _keep_in_memory()
    steps.become(uid, gids)
    steps.set_limits(
        descriptors=_DESCRIPTORS, memory_bytes=_MEMORY_BYTES, locked_bytes=resource.RLIM_INFINITY
    )
    libc = ctypes.CDLL(None, use_errno=True)
    libc.prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0)
    system_calls.drop_capabilities()
    install_filter(Kind.EGRESS_WORKER)
    return obstacle


def _keep_in_memory() -> None:
    """Has no page swapped, where the host lets us lock that much. Pages are locked as they come.

    Where it does not, the worker's control group permits no swap, if the host has groups.
    """
    try:
        infinite = (resource.RLIM_INFINITY, resource.RLIM_INFINITY)
        resource.setrlimit(resource.RLIMIT_MEMLOCK, infinite)
    except (ValueError, OSError):
        return
    ctypes.CDLL(None, use_errno=True).mlockall(_MCL_CURRENT | _MCL_FUTURE | _MCL_ONFAULT)
