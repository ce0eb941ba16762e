"""Signals to the client that are meant for the workload."""

import asyncio
import contextlib
from collections.abc import Callable
from types import TracebackType
from typing import Self

from lns.vm.v1 import run_pb2
from lns.vm.v1 import vm_service_pb2 as pb

from lns.client.running.ports import Runner
from lns.client.running.stopping import stop_run
from services.core.errors import LnsError

_PATIENCE = 2


class SignalSender:
    """Passes signals on to a run by calls of their own, so that waiting input cannot hold them up.

    Before there is a workload the run is stopped, and from the third interrupt on it is killed:
    nobody would answer to anything gentler. A context manager; leaving it waits for calls under
    way.

    Args:
        runner: the VM runner.
        run_id: the run.
        has_started: whether its workload runs.
    """

    def __init__(self, runner: Runner, run_id: str, *, has_started: Callable[[], bool]) -> None:
        self._runner = runner
        self._run_id = run_id
        self._has_started = has_started
        self._interrupts = 0
        self._calls: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._calls:
            await asyncio.wait(self._calls)

    def send(self, name: str) -> None:
        """Sends the signal of a name, without `SIG`."""
        self._interrupts += name == "INT"
        if self._interrupts > _PATIENCE:
            name = "KILL"
        # A microVM that boots has nothing to be killed in it, and KillRun refuses.
        call = asyncio.ensure_future(self._kill(name) if self._has_started() else self._stop())
        self._calls.add(call)
        call.add_done_callback(self._calls.discard)

    async def _kill(self, name: str) -> None:
        # The run may have ended by itself: how, its attachment says.
        with contextlib.suppress(LnsError):
            await self._runner.KillRun(pb.KillRunRequest(run=self._run_id, signal=name))

    async def _stop(self) -> None:
        with contextlib.suppress(LnsError):
            await stop_run(self._runner, run_pb2.Run(run_id=self._run_id), grace=0)
