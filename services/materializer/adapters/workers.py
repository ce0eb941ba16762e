"""Worker processes that do the heavy jobs, a bounded number at a time.

Each takes one job a line; see `services.materializer.worker`. A job whose caller is cancelled is
ended by killing its process; the next job gets a fresh one.
"""

import asyncio
import contextlib
import json
import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import structlog

from services.core.errors import LEAVES, Internal, LnsError

log = structlog.get_logger()

_LINE_MAX = 64 << 20
_PIECE_BYTES = 1 << 20
_MODULE = "services.materializer.worker"


@dataclass(frozen=True, slots=True, kw_only=True)
class Ground:
    """What workers have of the file system; absolute directories that exist, none inside another.

    Attributes:
        read: what they read.
        write: what they write to, at least one.
    """

    read: Sequence[Path] = ()
    write: Sequence[Path]

    def arguments(self) -> list[str]:
        """Returns it for the command line of a worker."""
        return [
            *(f"--read={directory}" for directory in self.read),
            *(f"--write={directory}" for directory in self.write),
        ]


class Workers:
    """At most `limit` worker processes, started when they are first needed and then kept.

    An asynchronous context manager; leaving it ends the processes.
    """

    def __init__(self, limit: int, ground: Ground) -> None:
        self._ground = ground
        self._free = asyncio.Semaphore(limit)
        self._idle: list[asyncio.subprocess.Process] = []

    async def __aenter__(self) -> Self:
        """Starts a first worker, so that the first job need not wait for it."""
        self._idle.append(await _start(self._ground))
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        for worker in self._idle:
            await _end(worker)
        self._idle.clear()

    async def run(
        self, job: str, request: dict[str, Any], progressed: Callable[[int], None] | None = None
    ) -> dict[str, Any]:
        """Returns the result of a job.

        Args:
            job: its name.
            request: what it needs, as JSON has it.
            progressed: called with the progress of the job, in bytes.

        Raises:
            LnsError: the one that the job ended with; Internal if its process died.
        """
        async with self._free:
            answer = await self._converse({"job": job, **request}, progressed)
        failure = answer.get("error")
        if failure is not None:
            raise _rebuild(failure)
        result: dict[str, Any] = answer["result"]
        return result

    async def _converse(
        self, request: dict[str, Any], progressed: Callable[[int], None] | None
    ) -> dict[str, Any]:
        """Has a worker do a job; one whose job did not end, or that leaves, is not used again."""
        worker = self._idle.pop() if self._idle else await _start(self._ground)
        if worker.returncode is not None:
            worker = await _start(self._ground)
        try:
            answer = await _converse(worker, request, progressed)
        except BaseException:
            await _end(worker)
            raise
        if answer["leaving"]:
            await _end(worker)
        else:
            self._idle.append(worker)
        return answer


async def _start(ground: Ground) -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        _MODULE,
        f"--parent={os.getpid()}",
        *ground.arguments(),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        limit=_LINE_MAX,
        start_new_session=True,  # a signal for the service's terminal is not for its workers
    )


async def _end(worker: asyncio.subprocess.Process) -> None:
    with contextlib.suppress(ProcessLookupError):
        worker.kill()
    # However often the caller is cancelled: what the worker wrote to is cleaned up after this.
    waiting = asyncio.ensure_future(_see_end(worker))
    while not waiting.done():
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.shield(waiting)


async def _see_end(worker: asyncio.subprocess.Process) -> None:
    """Waits for the process, and for the one behind it, which holds the other end of the pipe."""
    await worker.wait()
    while worker.stdout is not None and await worker.stdout.read(_PIECE_BYTES):
        pass


async def _converse(
    worker: asyncio.subprocess.Process,
    request: dict[str, Any],
    progressed: Callable[[int], None] | None,
) -> dict[str, Any]:
    """Sends a job and reads its answers up to the last."""
    if worker.stdin is None or worker.stdout is None:
        raise AssertionError("a worker has pipes")
    try:
        worker.stdin.write(json.dumps(request).encode() + b"\n")
        await worker.stdin.drain()
        while line := await worker.stdout.readline():
            answer: dict[str, Any] = json.loads(line)
            if "progress" not in answer:
                return answer
            if progressed is not None:
                progressed(answer["progress"])
    except (BrokenPipeError, ConnectionResetError):
        pass
    code = await worker.wait()
    log.error("worker_died", job=request["job"], exit_code=code)
    raise Internal(f"a worker of the materializer died (exit code {code})")


def _rebuild(failure: dict[str, Any]) -> LnsError:
    leaf = LEAVES.get(failure["reason"], Internal)
    return leaf(failure["message"], hint=failure["hint"], metadata=failure["metadata"])
