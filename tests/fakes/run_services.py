"""The four services as the orchestration of a run sees them: scripted, and noting calls."""

import asyncio
from collections.abc import AsyncIterator, Sequence

from lns.materializer.v1 import materializer_service_pb2 as materializer_pb
from lns.registry.v1 import registry_service_pb2 as registry_pb
from lns.resolver.v1 import resolver_service_pb2 as resolver_pb
from lns.types.v1 import run_plan_pb2, usage_pb2
from lns.vm.v1 import run_pb2
from lns.vm.v1 import vm_service_pb2 as vm_pb

from services.core.errors import LnsError, RunStateConflict, RunUnknown

RUN_ID = "0123456789abcdef" * 2


class FakeResolver:
    """Answers with the plans it was given, or fails as it was scripted.

    `tests/contract/cli` holds it to the real one.
    """

    def __init__(self, *plans: run_plan_pb2.RunPlan, failure: LnsError | None = None) -> None:
        self.plans = plans
        self.failure = failure
        self.asked: list[resolver_pb.ResolveRequest] = []

    async def Resolve(self, request: resolver_pb.ResolveRequest, /) -> resolver_pb.ResolveResponse:
        self.asked.append(request)
        if self.failure:
            raise self.failure
        return resolver_pb.ResolveResponse(plans=self.plans)


class FakeGateway:
    """Pulls anything at once, but for the references that fail; notes how many run side by side."""

    def __init__(self, failures: dict[str, LnsError] | None = None) -> None:
        self.failures = failures or {}
        self.pulled: list[registry_pb.PullRequest] = []
        self.named: dict[str, str] = {}
        self.side_by_side = 0
        self._now = 0

    async def TagStoredImage(
        self, request: registry_pb.TagStoredImageRequest, /
    ) -> registry_pb.TagStoredImageResponse:
        self.named[request.target] = request.source
        return registry_pb.TagStoredImageResponse(reference=request.target)

    async def Pull(
        self, request: registry_pb.PullRequest, /
    ) -> AsyncIterator[registry_pb.PullResponse]:
        self.pulled.append(request)
        self._now += 1
        self.side_by_side = max(self.side_by_side, self._now)
        try:
            await asyncio.sleep(0)
            if request.reference in self.failures:
                raise self.failures[request.reference]
            yield registry_pb.PullResponse(
                progress=usage_pb2.Progress(
                    digest=request.reference, stage=usage_pb2.STAGE_DONE, done_bytes=1
                )
            )
            yield registry_pb.PullResponse(
                result=registry_pb.PullResult(reference=request.reference)
            )
        finally:
            self._now -= 1


class FakeMaterializer:
    """Makes one image of anything, or ends its stream without one."""

    def __init__(self, digest: str = "sha256:" + "c0" * 32, warnings: Sequence[str] = ()) -> None:
        self.digest = digest
        self.warnings = warnings
        self.asked: list[materializer_pb.MaterializeRequest] = []

    async def Materialize(
        self, request: materializer_pb.MaterializeRequest, /
    ) -> AsyncIterator[materializer_pb.MaterializeResponse]:
        self.asked.append(request)
        if self.digest:
            yield materializer_pb.MaterializeResponse(
                result=materializer_pb.MaterializeResult(
                    image=materializer_pb.Image(composefs_digest=self.digest),
                    warnings=self.warnings,
                )
            )


class FakeRunner:
    """One run, whose events and attachments are scripted.

    Attributes:
        events: what WatchRun replays; an error in it breaks the stream once.
        connections: one script an Attach: responses, errors that break it, and events that it
            waits for. The last is used again.
        received: what clients sent, one list a connection.
        stopping: set by StopRun; a script may wait for it.
        has_told_all: set when a watcher knows all events and waits for more.
    """

    def __init__(self, run_id: str = RUN_ID, member: str = "") -> None:
        self.run = run_pb2.Run(run_id=run_id, name="fake", state=run_pb2.Run.STATE_STARTING)
        self.run.plan.member = member
        self.cannot_start: LnsError | None = None
        self.is_removed = False
        self.started = 0
        self.stopping = asyncio.Event()
        self.has_told_all = asyncio.Event()
        self.created: list[vm_pb.CreateRunRequest] = []
        self.creating = asyncio.Event()
        self.creating.set()
        self.removed: list[str] = []
        self.signals: list[str] = []
        self.events: list[run_pb2.RunEvent | LnsError | asyncio.Event] = []
        self.watched_from: list[int] = []
        self.connections: list[list[vm_pb.AttachResponse | LnsError | asyncio.Event]] = []
        self.received: list[list[vm_pb.AttachRequest]] = []
        self.starts: list[vm_pb.AttachStart] = []

    def state(self, state: run_pb2.Run.State.ValueType, **fields: object) -> None:
        """Adds the event that the run is in a state now."""
        run = run_pb2.Run(run_id=self.run.run_id, name="fake", state=state, **fields)  # type: ignore[arg-type]  # the fields of the message
        self.events.append(run_pb2.RunEvent(sequence=len(self.events) + 1, state_changed=run))

    async def CreateRun(self, request: vm_pb.CreateRunRequest, /) -> vm_pb.CreateRunResponse:
        self.created.append(request)
        await self.creating.wait()
        return vm_pb.CreateRunResponse(run=self.run)

    async def GetRun(self, request: vm_pb.GetRunRequest, /) -> vm_pb.GetRunResponse:
        assert request.run == self.run.run_id
        if self.is_removed:
            raise RunUnknown("there is no such run")
        return vm_pb.GetRunResponse(run=self.run)

    async def StartRun(self, request: vm_pb.StartRunRequest, /) -> vm_pb.StartRunResponse:
        if self.cannot_start is not None:
            raise self.cannot_start
        self.started += 1
        return vm_pb.StartRunResponse(run=self.run)

    async def StopRun(
        self,
        request: vm_pb.StopRunRequest,
        /,
        *,
        timeout: float | None = None,  # noqa: ASYNC109  # as the stubs take it
    ) -> vm_pb.StopRunResponse:
        assert timeout is not None
        self.stopping.set()
        return vm_pb.StopRunResponse(run=self.run)

    async def ListRuns(self, request: vm_pb.ListRunsRequest, /) -> vm_pb.ListRunsResponse:
        return vm_pb.ListRunsResponse(runs=[self.run])

    async def KillRun(self, request: vm_pb.KillRunRequest, /) -> vm_pb.KillRunResponse:
        if self.run.state == run_pb2.Run.STATE_STARTING:
            raise RunStateConflict("it boots")
        self.signals.append(request.signal)
        return vm_pb.KillRunResponse(run=self.run)

    async def RemoveRun(self, request: vm_pb.RemoveRunRequest, /) -> vm_pb.RemoveRunResponse:
        assert request.force
        self.removed.append(request.run)
        return vm_pb.RemoveRunResponse(run_id=request.run)

    async def WatchRun(
        self, request: vm_pb.WatchRunRequest, /
    ) -> AsyncIterator[vm_pb.WatchRunResponse]:
        self.watched_from.append(request.after_sequence)
        for event in self.events:  # also those that a test adds meanwhile
            if isinstance(event, LnsError):
                self.events.remove(event)
                raise event
            if isinstance(event, asyncio.Event):
                await event.wait()
            elif event.sequence > request.after_sequence:
                yield vm_pb.WatchRunResponse(event=event)
        if not (request.until_ended and self.events and _is_end(self.events[-1])):
            self.has_told_all.set()
            await asyncio.Event().wait()

    async def Attach(
        self, requests: AsyncIterator[vm_pb.AttachRequest], /
    ) -> AsyncIterator[vm_pb.AttachResponse]:
        number = len(self.received)
        received: list[vm_pb.AttachRequest] = []
        self.received.append(received)
        first = await anext(requests)
        self.starts.append(first.start)
        listening = asyncio.ensure_future(self._listen(requests, received))
        try:
            for step in self.connections[min(number, len(self.connections) - 1)]:
                if isinstance(step, LnsError):
                    raise step
                if isinstance(step, asyncio.Event):
                    await step.wait()
                else:
                    yield step
        finally:
            listening.cancel()

    async def _listen(
        self, requests: AsyncIterator[vm_pb.AttachRequest], received: list[vm_pb.AttachRequest]
    ) -> None:
        async for request in requests:
            received.append(request)  # noqa: PERF401  # a test looks at it meanwhile


class FakeGroup:
    """Several runs, each scripted as `FakeRunner` is, by the names of a group's members.

    Attributes:
        members: by their names, which are their ids too.
        created: requests in their order.
        refusals: raised by the creation of a member.
    """

    def __init__(self, *names: str) -> None:
        self.members = {name: FakeRunner(name, name) for name in names}
        for member in self.members.values():
            member.run.group.CopyFrom(run_pb2.RunGroup(name="team", members=names))
        self.created: list[vm_pb.CreateRunRequest] = []
        self.refusals: dict[str, LnsError] = {}

    @property
    def removed(self) -> list[str]:
        return [name for name, member in self.members.items() if member.removed]

    async def CreateRun(self, request: vm_pb.CreateRunRequest, /) -> vm_pb.CreateRunResponse:
        self.created.append(request)
        name = request.plan.member
        if name in self.refusals:
            raise self.refusals[name]
        return await self.members[name].CreateRun(request)

    async def StartRun(self, request: vm_pb.StartRunRequest, /) -> vm_pb.StartRunResponse:
        return await self.members[request.run].StartRun(request)

    async def StopRun(
        self,
        request: vm_pb.StopRunRequest,
        /,
        *,
        timeout: float | None = None,  # noqa: ASYNC109  # as the stubs take it
    ) -> vm_pb.StopRunResponse:
        return await self.members[request.run].StopRun(request, timeout=timeout)

    async def GetRun(self, request: vm_pb.GetRunRequest, /) -> vm_pb.GetRunResponse:
        return await self.members[request.run].GetRun(request)

    async def ListRuns(self, request: vm_pb.ListRunsRequest, /) -> vm_pb.ListRunsResponse:
        return vm_pb.ListRunsResponse(runs=[member.run for member in self.members.values()])

    async def KillRun(self, request: vm_pb.KillRunRequest, /) -> vm_pb.KillRunResponse:
        return await self.members[request.run].KillRun(request)

    async def RemoveRun(self, request: vm_pb.RemoveRunRequest, /) -> vm_pb.RemoveRunResponse:
        return await self.members[request.run].RemoveRun(request)

    async def WatchRun(
        self, request: vm_pb.WatchRunRequest, /
    ) -> AsyncIterator[vm_pb.WatchRunResponse]:
        async for response in self.members[request.run].WatchRun(request):
            yield response

    async def Attach(
        self, requests: AsyncIterator[vm_pb.AttachRequest], /
    ) -> AsyncIterator[vm_pb.AttachResponse]:
        first = await anext(requests)

        async def again() -> AsyncIterator[vm_pb.AttachRequest]:
            yield first
            async for request in requests:
                yield request

        async for response in self.members[first.start.run].Attach(again()):
            yield response


def _is_end(event: run_pb2.RunEvent | LnsError | asyncio.Event) -> bool:
    if not isinstance(event, run_pb2.RunEvent):
        return False
    ended = (run_pb2.Run.STATE_EXITED, run_pb2.Run.STATE_FAILED, run_pb2.Run.STATE_LOST)
    return event.HasField("removed") or event.state_changed.state in ended


def stdout(data: bytes) -> vm_pb.AttachResponse:
    """Returns a piece of standard output."""
    return vm_pb.AttachResponse(stdout=data)


def stderr(data: bytes) -> vm_pb.AttachResponse:
    """Returns a piece of standard error."""
    return vm_pb.AttachResponse(stderr=data)


def exited(code: int) -> vm_pb.AttachResponse:
    """Returns the end of a process."""
    return vm_pb.AttachResponse(exited=run_pb2.ExitStatus(code=code))
