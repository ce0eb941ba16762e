"""Registries to move things to and from."""

import contextlib
import os
from collections.abc import Iterator

from tests.support import registry as registries
from tests.support.registry import RunningRegistry


@contextlib.contextmanager
def run_registry() -> Iterator[RunningRegistry]:
    """`registry:2`, with the priority of this process.

    So a run with `nice -n -15` on a busy machine favours all that takes part, not clients alone.
    """
    registries.remove_orphans()
    with registries.run_registry() as running:
        if running.container is not None and os.nice(0) != 0:
            container = running.container.get_wrapped_container()
            container.reload()
            group = os.getpgid(container.attrs["State"]["Pid"])
            os.setpriority(os.PRIO_PGRP, group, os.nice(0))
        yield running
