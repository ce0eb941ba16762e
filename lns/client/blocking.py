"""The client without `await`, for programs that have no event loop.

A loop of its own runs in a thread; every method waits there for the asynchronous one of its name.
"""

import asyncio
import concurrent.futures
import threading
from collections.abc import AsyncGenerator, Coroutine, Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar, Unpack

from lns.egress.v1 import egress_service_pb2 as egress_pb
from lns.types.v1 import run_plan_pb2
from lns.vm.v1 import run_pb2

from lns.client.client import Client
from lns.client.run import Run
from lns.client.values import (
    Completed,
    ExecOptions,
    ForkOptions,
    Output,
    Pulled,
    Pushed,
    RunOptions,
)

ResultT = TypeVar("ResultT")


class _Loop:
    """An event loop in a thread of its own."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(
            target=self._loop.run_forever, name="lns-client", daemon=True
        )
        self._thread.start()

    def call(self, body: Coroutine[Any, Any, ResultT]) -> ResultT:
        """Returns what a coroutine returns; an interrupt cancels it."""
        future = asyncio.run_coroutine_threadsafe(body, self._loop)
        try:
            return future.result()
        except (KeyboardInterrupt, SystemExit):
            future.cancel()
            concurrent.futures.wait([future])
            raise

    def close(self) -> None:
        """Ends the thread."""
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()


class SyncClient:
    """As `Client`, without `await`.

    with SyncClient() as lns, lns.run("localhost:5000/images/python:1", "sleep", "60") as run:
        print(run.exec("ls", "/").text)
    """

    def __init__(self, *, environment: Mapping[str, str] | None = None) -> None:
        self._client = Client(environment=environment)
        self._loop: _Loop | None = None

    def __enter__(self) -> Self:
        self._loop = _Loop()
        try:
            self._call(self._client.__aenter__())
        except BaseException:
            self._loop.close()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        try:
            self._call(self._client.__aexit__(kind, error, traceback))
        finally:
            self._running().close()

    def run(
        self, reference: str | None = None, *command: str, **options: Unpack[RunOptions]
    ) -> "SyncRun":
        """See `Client.run`."""
        run = self._call(self._client.run(reference, *command, **options))
        return SyncRun(run, self._running())

    def fork(self, snapshot: str, **options: Unpack[ForkOptions]) -> "SyncRun":
        """See `Client.fork`."""
        return SyncRun(self._call(self._client.fork(snapshot, **options)), self._running())

    def snapshots(self) -> list[run_pb2.Snapshot]:
        """See `Client.snapshots`."""
        return self._call(self._client.snapshots())

    def remove_snapshot(self, snapshot: str) -> None:
        """See `Client.remove_snapshot`."""
        self._call(self._client.remove_snapshot(snapshot))

    def runs(self, *, include_ended: bool = False) -> list[run_pb2.Run]:
        """See `Client.runs`."""
        return self._call(self._client.runs(include_ended=include_ended))

    def find(self, run: str) -> "SyncRun":
        """See `Client.find`."""
        return SyncRun(self._call(self._client.find(run)), self._running())

    def resolve(
        self, reference: str | None = None, *command: str, **options: Unpack[RunOptions]
    ) -> Sequence[run_plan_pb2.RunPlan]:
        """See `Client.resolve`."""
        return self._call(self._client.resolve(reference, *command, **options))

    def push(
        self, file: Path | str, reference: str, *, content: Path | None = None, family: str = ""
    ) -> Pushed:
        """See `Client.push`."""
        return self._call(self._client.push(file, reference, content=content, family=family))

    def push_image(self, source: str, reference: str) -> Pushed:
        """See `Client.push_image`."""
        return self._call(self._client.push_image(source, reference))

    def pull(self, reference: str) -> Pulled:
        """See `Client.pull`."""
        return self._call(self._client.pull(reference))

    def approvals(self, run: str = "") -> Sequence[egress_pb.Approval]:
        """See `Client.approvals`."""
        return self._call(self._client.approvals(run))

    def allow(self, approval: egress_pb.Approval, *, always: bool = False) -> None:
        """See `Client.allow`."""
        self._call(self._client.allow(approval, always=always))

    def deny(self, approval: egress_pb.Approval, *, always: bool = False) -> None:
        """See `Client.deny`."""
        self._call(self._client.deny(approval, always=always))

    def _running(self) -> _Loop:
        if self._loop is None:
            raise RuntimeError("a client is used inside `with`")
        return self._loop

    def _call(self, body: Coroutine[Any, Any, ResultT]) -> ResultT:
        return self._running().call(body)


class SyncRun:
    """As `Run`, without `await`.

    Attributes:
        id: 32 hexadecimal digits.
        name: unique among the runs of the node.
    """

    def __init__(self, run: Run, loop: _Loop) -> None:
        self._run = run
        self._call = loop.call
        self.id = run.id
        self.name = run.name

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.remove()

    def describe(self) -> run_pb2.Run:
        """See `Run.describe`."""
        return self._call(self._run.describe())

    def exec(self, *command: str, **options: Unpack[ExecOptions]) -> Completed:
        """See `Run.exec`."""
        return self._call(self._run.exec(*command, **options))

    def wait(self) -> Completed:
        """See `Run.wait`."""
        return self._call(self._run.wait())

    def logs(self, *, follow: bool = False, tail: int | None = None) -> Iterator[Output]:
        """See `Run.logs`."""
        pieces = self._run.logs(follow=follow, tail=tail)
        try:
            while (piece := self._call(_next(pieces))) is not None:
                yield piece
        finally:
            self._call(pieces.aclose())

    def stop(self, grace: float | None = None) -> None:
        """See `Run.stop`."""
        self._call(self._run.stop(grace))

    def kill(self, signal: str = "KILL") -> None:
        """See `Run.kill`."""
        self._call(self._run.kill(signal))

    def pause(self) -> None:
        """See `Run.pause`."""
        self._call(self._run.pause())

    def suspend(self) -> None:
        """See `Run.suspend`."""
        self._call(self._run.suspend())

    def snapshot(self, name: str = "") -> str:
        """See `Run.snapshot`."""
        return self._call(self._run.snapshot(name))

    def resume(self) -> None:
        """See `Run.resume`."""
        self._call(self._run.resume())

    def remove(self) -> None:
        """See `Run.remove`."""
        self._call(self._run.remove())


async def _next(pieces: AsyncGenerator[Output, None]) -> Output | None:
    return await anext(pieces, None)
