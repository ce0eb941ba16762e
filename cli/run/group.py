"""A group: the runs of a bundle of several agents, begun together and followed together.

The service knows single runs that record their group; what is done to all of them is done here.
"""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass

from lns.vm.v1 import run_pb2
from lns.vm.v1 import vm_service_pb2 as pb

from cli.context import RUN_FAILURE
from cli.render.lines import PrefixedLines
from cli.terminal import ENDING_SIGNALS
from lns.client.running.attachment import Attachment
from lns.client.running.foreground import Revive, failure_of, follow_run
from lns.client.running.ports import Runner
from lns.client.running.stopping import stop_run
from lns.client.running.watching import Watch
from services.chassis.tasks import settle, together
from services.core.errors import LnsError


@dataclass(frozen=True, slots=True, kw_only=True)
class MemberEnd:
    """How a member of a group ended; `error` says why lns or the machine ended it."""

    name: str
    code: int
    error: LnsError | None = None


def group_code(ends: Sequence[MemberEnd]) -> int:
    """Returns the exit code of a group: the first of its members' that is not 0, in their order."""
    return next((end.code for end in ends if end.code), 0)


class GroupRun:
    """The runs of a group while a client follows them.

    A group starts as a whole: a member whose program never ran ends the others. From then on each
    goes on by itself.

    Args:
        watches: each member, by its name.
        runner: the VM runner.
        revive: called before a lost connection is taken up again; makes the services answer.
        note: shows a line to the person who waits.
    """

    def __init__(
        self,
        watches: Mapping[str, Watch],
        runner: Runner,
        *,
        revive: Revive,
        note: Callable[[str], None],
    ) -> None:
        self._watches = watches
        self._runner = runner
        self._revive = revive
        self._note = note
        self._stopping: asyncio.Future[None] | None = None
        self._calls: set[asyncio.Future[None]] = set()

    # ---- following ----

    async def until_started(self) -> None:
        """Returns when every member's program runs or has run.

        Raises:
            LnsError: why one failed; the others were ended.
        """

        async def started(watch: Watch) -> None:
            await watch.until(lambda one: one.has_started or one.has_ended, revive=self._revive)
            if watch.has_failed:
                raise failure_of(watch.run)

        try:
            await together([started(watch) for watch in self._watches.values()])
        except LnsError:
            await self.stop()
            raise
        if not all(watch.has_started for watch in self._watches.values()):
            await self.stop()

    async def follow(self, lines: PrefixedLines) -> list[MemberEnd]:
        """Shows what members write until all have ended; returns how, in their order."""
        following = [self._follow(name, lines) for name in self._watches]
        try:
            return await together(following)
        finally:
            for call in list(self._calls):
                await settle(call)

    async def _follow(self, name: str, lines: PrefixedLines) -> MemberEnd:
        watch = self._watches[name]
        start = pb.AttachStart(run=watch.run.run_id, replay=True)
        attachment = Attachment(self._runner, start, _Output(name, lines), revive=self._revive)
        try:
            ending = await follow_run(watch, attachment, self._runner, revive=self._revive)
            exit_status = ending.exit or run_pb2.ExitStatus()
            end = MemberEnd(name=name, code=exit_status.code)
            reason = ": it needed more memory than it has" if exit_status.oom_killed else ""
            said = f"ended with {end.code}{reason}"
        except LnsError as error:
            end = MemberEnd(name=name, code=RUN_FAILURE, error=error)
            said = "failed"
        await lines.finish(name)
        self._note(f"lns: {name} {said}")
        if not watch.has_started and self._stopping is None:
            self._note(f"lns: {name} did not start; the others are stopped")
            self._spawn(self.stop())
        return end

    # ---- ending ----

    def signalled(self, name: str) -> None:
        """Acts on a signal to the client: stops the group, kills it at the second time."""
        if name not in ENDING_SIGNALS:
            self._spawn(self._kill(name))
        elif self._stopping is None:
            self._note("lns: stopping the group; once more kills it")
            self._spawn(self.stop())
        else:
            self._spawn(self._kill("KILL"))

    async def stop(self) -> None:
        """Stops every member, side by side; those that have ended stay as they are."""
        self._stopping = self._stopping or asyncio.get_running_loop().create_future()

        async def stop(watch: Watch) -> None:
            with contextlib.suppress(LnsError):  # it may be gone: --rm
                await stop_run(self._runner, watch.run)

        await together([stop(watch) for watch in self._watches.values()])

    async def _kill(self, signal: str) -> None:
        async def kill(watch: Watch) -> None:
            with contextlib.suppress(LnsError):  # it may have ended
                request = pb.KillRunRequest(run=watch.run.run_id, signal=signal)
                await self._runner.KillRun(request)

        await together([kill(watch) for watch in self._watches.values()])

    def _spawn(self, call: Awaitable[None]) -> None:
        task = asyncio.ensure_future(call)
        self._calls.add(task)
        task.add_done_callback(self._calls.discard)


class _Output:
    """A member's side of its attachment: it shows and gives nothing."""

    def __init__(self, name: str, lines: PrefixedLines) -> None:
        self._name = name
        self._lines = lines

    async def next_input(self) -> bytes:
        await asyncio.Event().wait()
        raise AssertionError

    async def next_control(self) -> pb.AttachRequest:
        await asyncio.Event().wait()
        raise AssertionError

    async def show(self, data: bytes, *, is_error: bool) -> None:
        await self._lines.add(self._name, data, is_error=is_error)
