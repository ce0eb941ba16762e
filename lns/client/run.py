"""One run, as a program holds it."""

import uuid
from collections.abc import AsyncGenerator, Mapping
from datetime import UTC
from types import TracebackType
from typing import TYPE_CHECKING, Self, Unpack

from lns.types.v1 import run_plan_pb2
from lns.vm.v1 import run_pb2
from lns.vm.v1 import vm_service_pb2 as pb

from lns.client.process import Collector, Process, completed
from lns.client.running.attachment import Attachment
from lns.client.running.foreground import failure_of
from lns.client.running.log_reading import read_log
from lns.client.running.stopping import stop_run
from lns.client.running.watching import Watch
from lns.client.values import Completed, ExecOptions, Output
from services.core.errors import RequestInvalid, RunUnknown

if TYPE_CHECKING:
    from lns.client.connection.session import Session

MAX_OUTPUT = 16 * 1024 * 1024
"""Bytes of output that `exec` keeps by default."""

_SAVING_SECONDS = 600.0


class Run:
    """A run. A context manager: leaving it stops the run and removes it with what it wrote.

    Attributes:
        id: 32 hexadecimal digits.
        name: unique among the runs of the node.
    """

    def __init__(self, session: "Session", run: run_pb2.Run) -> None:
        self._session = session
        self._run = run
        self.id = run.run_id
        self.name = run.name

    # ---- what is known of it ----

    async def describe(self) -> run_pb2.Run:
        """Returns all that is known of it: state, ports, exit, health, plan.

        Raises:
            RunUnknown: it was removed.
        """
        return (await self._session.vm.GetRun(pb.GetRunRequest(run=self.id))).run

    async def until_started(self) -> None:
        """Returns when its workload runs or has run.

        Raises:
            LnsError: why it failed before.
        """
        watch = self._watch()
        await watch.until(lambda one: one.has_started or one.has_ended, revive=self._session.revive)
        if watch.has_failed:
            raise failure_of(watch.run)

    async def wait(self) -> Completed:
        """Returns how its workload ended, once nothing of the run will run again by itself.

        Raises:
            LnsError: why it failed.
        """
        watch = self._watch()
        await watch.until(lambda _: False, revive=self._session.revive)
        if watch.has_failed:
            raise failure_of(watch.run)
        return completed(watch.run.exit, {})

    async def logs(
        self, *, follow: bool = False, tail: int | None = None
    ) -> AsyncGenerator[Output, None]:
        """Yields what its workload wrote, in order.

        Args:
            follow: whether to go on until the workload ends.
            tail: only so many last lines.

        Raises:
            LnsError: as the service gave it.
        """
        request = pb.ReadLogsRequest(run=self.id, follow=follow, tail_lines=tail)
        async for piece in read_log(self._session.vm, request, revive=self._session.revive):
            is_error = piece.stream == pb.ReadLogsResponse.STREAM_STDERR
            yield Output(piece.data, is_error, piece.log_time.ToDatetime(tzinfo=UTC))

    # ---- processes in it ----

    async def exec(self, *command: str, **options: Unpack[ExecOptions]) -> Completed:
        """Runs a command in it to its end.

        Args:
            command: program and arguments.
            options: see `ExecOptions`.

        Raises:
            TimeoutError: it ran longer than `within`, and was killed.
            LimitExceeded: it wrote more than `max_output`, and was ended.
            LnsError: as the service gave it.
        """
        given = options.get("given", b"")
        console = Collector(given, options.get("max_output", MAX_OUTPUT))
        spec = _spec(
            command, options.get("env"), options.get("user", ""), options.get("workdir", "")
        )
        start = pb.AttachStart(run=self.id, exec=spec, stdin=bool(given))
        attachment = Attachment(self._session.vm, start, console, revive=self._session.revive)
        return await console.follow(attachment, options.get("within"))

    def process(
        self,
        *command: str,
        env: Mapping[str, str] | None = None,
        user: str = "",
        workdir: str = "",
        tty: bool = False,
    ) -> Process:
        """Returns a process to talk to while it runs; parameters as those of `exec`."""
        spec = _spec(command, env, user, workdir)
        spec.tty = tty
        return self._process(pb.AttachStart(run=self.id, exec=spec, stdin=True), ends=True)

    def attach(self, *, replay: bool = False) -> Process:
        """Returns the workload to talk to; it goes on when it is left.

        Args:
            replay: whether what it wrote before comes first.
        """
        start = pb.AttachStart(run=self.id, replay=replay, stdin=self._run.options.stdin)
        return self._process(start, ends=False)

    def _process(self, start: pb.AttachStart, *, ends: bool) -> Process:
        session = self._session
        return Process(
            lambda process: Attachment(session.vm, start, process, revive=session.revive), ends=ends
        )

    # ---- its life ----

    async def stop(self, grace: float | None = None) -> None:
        """Sends the stop signal and returns when it has ended; KILL after `grace` seconds.

        Raises:
            LnsError: as the service gave it.
        """
        await stop_run(self._session.vm, self._run, grace=grace)

    async def kill(self, signal: str = "KILL") -> None:
        """Sends its workload a signal, by its name without `SIG`.

        Raises:
            LnsError: as the service gave it.
        """
        await self._session.vm.KillRun(pb.KillRunRequest(run=self.id, signal=signal))

    async def pause(self) -> None:
        """Holds its CPUs.

        Raises:
            LnsError: as the service gave it.
        """
        await self._session.vm.PauseRun(pb.PauseRunRequest(run=self.id))

    async def suspend(self) -> None:
        """Saves its machine on the disk and frees its memory, until `resume`.

        Raises:
            LnsError: as the service gave it; it goes on then.
        """
        await self._session.vm.SuspendRun(pb.SuspendRunRequest(run=self.id))

    async def snapshot(self, name: str = "") -> str:
        """Saves it with its memory and disk, so that `Client.fork` goes on from there.

        It stands still meanwhile, and goes on.

        Args:
            name: of the snapshot; without it one is chosen by the run's.

        Returns:
            The snapshot's name.

        Raises:
            RunNotSnapshottable: it has a bind, a named volume or a group.
            LnsError: as the service gave it.
        """
        request = pb.SnapshotRunRequest(request_id=uuid.uuid4().hex, run=self.id, name=name)
        answer = await self._session.vm.SnapshotRun(request, timeout=_SAVING_SECONDS)
        return answer.snapshot.run.name

    async def resume(self) -> None:
        """Lets a paused or suspended run go on.

        Raises:
            LnsError: as the service gave it.
        """
        await self._session.vm.ResumeRun(pb.ResumeRunRequest(run=self.id))

    async def remove(self) -> None:
        """Ends it, and removes it with what it wrote; one that was removed is no error.

        Raises:
            LnsError: as the service gave it.
        """
        request_id = uuid.uuid4().hex
        request = pb.RemoveRunRequest(run=self.id, force=True, request_id=request_id)
        try:
            await self._session.vm.RemoveRun(request)
        except RunUnknown:
            return

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Removes it by force."""
        await self.remove()

    def _watch(self) -> Watch:
        return Watch(self._session.vm, self._run, note=lambda _: None)


def _spec(
    command: tuple[str, ...], env: Mapping[str, str] | None, user: str, workdir: str
) -> pb.ExecSpec:
    if not command:
        raise RequestInvalid("no command was given", hint='name a program: exec("ls", "/")')
    variables = [
        run_plan_pb2.EnvVar(name=name, value=value) for name, value in sorted((env or {}).items())
    ]
    return pb.ExecSpec(argv=command, env=variables, user=user, workdir=workdir)
