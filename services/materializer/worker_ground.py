"""Confines a worker to the directories of the store that its jobs need.

Afterwards it is process 1 of 1, sees no other file and no network, and makes listed system calls
only. Docs: `docs/image-store.md`.
"""

import os
from collections.abc import Sequence
from pathlib import Path

from services.isolation import steps, system_calls
from services.isolation.allowed_calls import Kind
from services.isolation.call_filter import install_filter

_DESCRIPTORS = 4096
_MEMORY_LEAST_BYTES = 1 << 30
_FIRST_INHERITED, _INHERITED_MOST = 3, 1 << 20


def confine(*, read: Sequence[Path], write: Sequence[Path]) -> str:
    """Leaves everything behind but standard streams and some directories; goes on in a child.

    Args:
        read: directories that it reads; none is inside another one.
        write: directories that it writes to; at least one, and none inside another one.

    Returns:
        Why the host permits no namespaces of its own; empty where it does.

    Raises:
        OSError: a step failed that has to succeed.
    """
    os.closerange(_FIRST_INHERITED, _INHERITED_MOST)
    try:
        descriptors, obstacle = steps.part_processes(lambda _: None)
    except OSError as error:
        obstacle = str(error)
    else:
        os.close(descriptors)  # of the one procfs that it can see
        system_calls.end_with_parent()
        try:
            steps.enter_directories(read=read, write=write)
        except OSError as error:
            obstacle = str(error)
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    steps.set_limits(descriptors=_DESCRIPTORS, memory_bytes=max(_MEMORY_LEAST_BYTES, memory // 2))
    system_calls.drop_capabilities()
    install_filter(Kind.LAYER_WORKER)
    return obstacle
