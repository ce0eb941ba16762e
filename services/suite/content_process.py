"""The suite's second process, seen from the first: started, kept, ended.

A crash of it is no crash of the suite: VMs go on, and it is started again, each time that it ends
soon after a longer pause.
"""

import asyncio
import contextlib
import json
import os
import signal
import sys
import time
from asyncio.subprocess import Process
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import Any

import structlog

from services.core.errors import LEAVES, Internal, InUse, LnsError
from services.core.version import VERSION

log = structlog.get_logger()

OTHER_VERSION = 3
"""The exit code where lns is of another version than the suite that starts the process."""

_MODULE = "services.suite.content"
_REPORT_BYTES = 64 * 1024
_FIRST_PAUSE_SECONDS = 0.2
_LONGEST_PAUSE_SECONDS = 10.0
_STEADY_SECONDS = 60.0
_CLEAN_UP_SECONDS = 15.0


@contextlib.asynccontextmanager
async def content_process(
    arguments: Sequence[str], *, patience: float, grace: float
) -> AsyncIterator[Callable[[], Awaitable[None]]]:
    """Yields a function that waits until the process serves; keeps it alive until the block ends.

    It raises the error for which the process does not serve.

    Args:
        arguments: of its command line.
        patience: seconds to wait for one of an earlier suite that still holds the stores.
        grace: seconds that its calls get to end.
    """
    keeper = _Keeper(arguments)
    keeping = asyncio.ensure_future(keeper.keep(patience))
    try:
        yield keeper.serving
    finally:
        keeping.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await keeping
        await keeper.end(grace + _CLEAN_UP_SECONDS)


class _Keeper:
    def __init__(self, arguments: Sequence[str]) -> None:
        self._arguments = arguments
        self._process: Process | None = None
        self._first: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    async def serving(self) -> None:
        """Returns when the process serves for the first time; raises why it does not."""
        await asyncio.shield(self._first)

    async def keep(self, patience: float) -> None:
        """Starts the process, and again whenever it ends."""
        try:
            process = await self._start_patiently(patience)
        except LnsError as error:
            self._first.set_exception(error)
            return
        self._first.set_result(None)
        pause = _FIRST_PAUSE_SECONDS
        while True:
            began = time.monotonic()
            code = await process.wait()
            if time.monotonic() - began > _STEADY_SECONDS:
                pause = _FIRST_PAUSE_SECONDS
            log.error("content_process_ended", process=process.pid, exit_code=code)
            process, pause = await self._again(pause)
            log.info("content_process_restarted", process=process.pid)

    async def _start_patiently(self, patience: float) -> Process:
        deadline = time.monotonic() + patience
        while True:
            try:
                return await self._start()
            except InUse:
                if time.monotonic() > deadline:
                    raise
            await asyncio.sleep(_FIRST_PAUSE_SECONDS)

    async def _again(self, pause: float) -> tuple[Process, float]:
        """Starts the process until it serves; returns it with the pause before a next start."""
        while True:
            await asyncio.sleep(pause)
            pause = min(2 * pause, _LONGEST_PAUSE_SECONDS)
            try:
                return await self._start(), pause
            except LnsError as error:
                log.error("content_process_not_started", reason=error.reason, message=error.message)  # noqa: TRY400 - what it says is all there is

    async def _start(self) -> Process:
        """Starts the process; returns when it serves, or raises why it does not."""
        report, theirs = os.pipe()
        try:
            safe = ("-P",) if sys.flags.safe_path else ()
            self._process = process = await asyncio.create_subprocess_exec(
                *(sys.executable, *safe, "-m", _MODULE),
                *(str(os.getpid()), str(theirs), VERSION, *self._arguments),
                stdin=asyncio.subprocess.DEVNULL,
                pass_fds=(theirs,),
                start_new_session=True,  # a signal for the suite's terminal is the suite's
            )
        except OSError as error:
            os.close(report)
            raise Internal(f"no process can be started: {error.strerror}") from error
        except BaseException:
            os.close(report)
            raise
        finally:
            os.close(theirs)
        try:
            said = await asyncio.to_thread(_read_report, report)
        except BaseException:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            raise
        if said == {}:
            return process
        code = await process.wait()
        if code == OTHER_VERSION:
            # What runs is older than what is installed: the next command starts both anew.
            log.warning("another_version_is_installed")
            os.kill(os.getpid(), signal.SIGTERM)
        if said is None:
            raise Internal(f"the process of the registry gateway ended with code {code}")
        leaf = LEAVES.get(said["reason"], Internal)
        raise leaf(said["message"], hint=said["hint"], metadata=said["metadata"])

    async def end(self, seconds: float) -> None:
        """Asks the process to end, and ends it by force after `seconds`."""
        process = self._process
        if process is None or process.returncode is not None:
            return
        with contextlib.suppress(ProcessLookupError):
            process.terminate()
        try:
            await asyncio.wait_for(process.wait(), seconds)
        except TimeoutError:
            log.error("content_process_killed", process=process.pid)  # noqa: TRY400 - no failure of ours
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            await process.wait()


def _read_report(descriptor: int) -> dict[str, Any] | None:
    """Returns what the process says at its start; None if it ends without a word."""
    with open(descriptor, "rb") as file:
        line = file.readline(_REPORT_BYTES)
    said: dict[str, Any] | None = json.loads(line) if line.endswith(b"\n") else None
    return said
