"""The life of a worker's process once it has its descriptors, however it was started."""

import asyncio
import contextlib
import gc
import socket
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from services.core.errors import LnsError
from services.vm_runner.channel.session import open_session
from services.vm_runner.egress_worker.ground import confine
from services.vm_runner.egress_worker.guest_port import GuestPort
from services.vm_runner.egress_worker.tls import GuestContexts, UpstreamContexts
from services.vm_runner.egress_worker.worker import Worker
from services.vm_runner.helper_process.entry import READY

_GUEST_SECONDS: Final = 24 * 3600.0
"""How long the guest's agent may take to speak: a machine that is ahead waits for its run."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Given:
    """What a worker is started with.

    Attributes:
        port: descriptor of a stream socket that is connected to the guest's port.
        control: descriptor of a listening `SOCK_SEQPACKET` socket, where runners connect.
        uid: the user to become, where it is root.
        gids: its groups.
        view_required: whether a host that permits no view of its own is an error.
    """

    port: int
    control: int
    uid: int
    gids: tuple[int, ...]
    view_required: bool


def run(given: Given, upstream_contexts: UpstreamContexts, report: Callable[[str], None]) -> int:
    """Works until the guest's port ends; returns the exit status.

    Args:
        given: what it works with.
        upstream_contexts: made before, since they read files.
        report: called with `ready` once it is confined.

    Raises:
        OSError: it cannot be confined.
    """
    # The loop's own descriptors are made before: socketpair is not permitted afterwards.
    with asyncio.Runner() as runner:
        runner.get_loop()
        port, control = socket.socket(fileno=given.port), socket.socket(fileno=given.control)
        obstacle = confine(uid=given.uid, gids=given.gids, view_required=given.view_required)
        if obstacle:
            print(f"no view of its own: {obstacle}", file=sys.stderr, flush=True)
        report(READY)
        gc.freeze()
        return runner.run(_work(port, control, upstream_contexts))


async def _work(
    port: socket.socket, control: socket.socket, upstream_contexts: UpstreamContexts
) -> int:
    try:
        async with open_session(GuestPort(port), answer_seconds=_GUEST_SECONDS) as session:
            worker = Worker(
                session,
                control,
                guest_contexts=GuestContexts(),
                upstream_contexts=upstream_contexts,
            )
            with contextlib.suppress(asyncio.CancelledError):
                await worker.serve()
            return 0
    except LnsError as error:
        print(f"ended: {error.message}", file=sys.stderr)
        return 1
