"""The client: connects to the services of this machine, or to those that are configured."""

import contextlib
import os
import uuid
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self, Unpack

from lns.egress.v1 import egress_service_pb2 as egress_pb
from lns.registry.v1 import registry_service_pb2 as registry_pb
from lns.types.v1 import run_plan_pb2, usage_pb2
from lns.vm.v1 import run_pb2
from lns.vm.v1 import vm_service_pb2 as pb

from lns.client.connection.config import load_config
from lns.client.connection.session import Peer, Session, open_session
from lns.client.content.document_file import read_document
from lns.client.content.local_files import place
from lns.client.content.upload import upload_content
from lns.client.order import make_fork, make_order
from lns.client.run import Run
from lns.client.running.approving import answer
from lns.client.running.launch import Order, Services, last_result, launch
from lns.client.running.members import remove_all
from lns.client.values import ForkOptions, Pulled, Pushed, RunOptions
from services.chassis import caller_environment
from services.chassis import context as calls
from services.chassis.tasks import together
from services.core.errors import RequestInvalid
from services.core.run_plan import Verdict


class Client:
    """A connection to lns. A context manager; runs outlive it unless they are left, too.

    Without configuration it talks to the suite of this user, which is started where none lives;
    the variables and the configuration file of the `lns` command apply.

    Args:
        environment: variables instead of those of the process.
        note: takes lines for the user: warnings, progress in words. By default they are dropped.
    """

    def __init__(
        self,
        *,
        environment: Mapping[str, str] | None = None,
        note: Callable[[str], None] | None = None,
    ) -> None:
        self._caller = _Caller(os.environ if environment is None else environment, note)
        self._stack = contextlib.AsyncExitStack()
        self._opened: Session | None = None

    async def __aenter__(self) -> Self:
        """Connects.

        Raises:
            ServiceUnavailable: the suite could not be started.
            SettingsInvalid: the configuration cannot be used.
        """
        self._opened = await self._stack.enter_async_context(open_session(self._caller, *Peer))
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Closes the connections."""
        self._opened = None
        await self._stack.aclose()

    # ---- runs ----

    async def run(
        self, reference: str | None = None, *command: str, **options: Unpack[RunOptions]
    ) -> Run:
        """Runs an image, an agent, or a bundle of one agent, and returns when its workload runs.

        Args:
            reference: what; a path such as ./agent.yaml runs a file. None is a machine without an
                image.
            command: instead of the one that the reference brings.
            options: see `RunOptions`.

        Raises:
            LnsError: as a service gave it; nothing is left then.
        """
        runs = await self._launch(reference, command, options)
        if len(runs) > 1:
            await remove_all(runs, self._session().vm)
            raise RequestInvalid(
                f"{reference} has {len(runs)} agents", hint="run_group returns a run for each"
            )
        return (await self._started(runs))[0]

    async def run_group(self, reference: str, **options: Unpack[RunOptions]) -> list[Run]:
        """Runs a bundle of several agents, in the order of the bundle; else as `run`."""
        return await self._started(await self._launch(reference, (), options))

    async def fork(self, snapshot: str, **options: Unpack[ForkOptions]) -> Run:
        """Starts a run that goes on from a snapshot of another one (`Run.snapshot`).

        Args:
            snapshot: its name, or its id or the beginning of it.
            options: see `ForkOptions`.

        Raises:
            SnapshotUnknown: it does not exist.
            LnsError: as a service gave it; nothing is left then.
        """
        session = self._session()
        config = load_config(self._caller)
        environment = self._caller.environment
        order = make_fork(snapshot, options, environment=environment, config=config)
        return (await self._started(await self._launched(order, session)))[0]

    async def snapshots(self) -> list[run_pb2.Snapshot]:
        """Lists the snapshots of runs, by name.

        Raises:
            LnsError: as the service gave it.
        """
        request = pb.ListSnapshotsRequest()
        found: list[run_pb2.Snapshot] = []
        while True:
            page = await self._session().vm.ListSnapshots(request)
            found += (one for one in page.snapshots if one.HasField("run"))
            if not page.next_page_token:
                return sorted(found, key=lambda one: one.run.name)
            request.page_token = page.next_page_token

    async def remove_snapshot(self, snapshot: str) -> None:
        """Removes a snapshot; runs that go on from it do so.

        Raises:
            SnapshotUnknown: it does not exist.
        """
        await self._session().vm.RemoveSnapshot(pb.RemoveSnapshotRequest(snapshot=snapshot))

    async def runs(self, *, include_ended: bool = False) -> list[run_pb2.Run]:
        """Lists runs.

        Raises:
            LnsError: as the service gave it.
        """
        request = pb.ListRunsRequest(include_ended=include_ended)
        found: list[run_pb2.Run] = []
        while True:
            page = await self._session().vm.ListRuns(request)
            found += page.runs
            if not page.next_page_token:
                return found
            request.page_token = page.next_page_token

    async def find(self, run: str) -> Run:
        """Returns a run by its name, or its id or the beginning of it.

        Raises:
            RunUnknown: it does not exist.
        """
        session = self._session()
        return Run(session, (await session.vm.GetRun(pb.GetRunRequest(run=run))).run)

    async def resolve(
        self, reference: str | None = None, *command: str, **options: Unpack[RunOptions]
    ) -> Sequence[run_plan_pb2.RunPlan]:
        """Returns what `run` with the same arguments would run, and where each value comes from.

        Raises:
            LnsError: as the service gave it.
        """
        order = await self._order(reference, command, options)
        return (await self._session().resolver.Resolve(order.resolve)).plans

    async def _launch(
        self, reference: str | None, command: Sequence[str], options: RunOptions
    ) -> list[run_pb2.Run]:
        order = await self._order(reference, command, options)
        return await self._launched(order, self._session())

    async def _launched(self, order: Order, session: Session) -> list[run_pb2.Run]:
        services = Services(
            runner_elsewhere=session.elsewhere(Peer.VM_RUNNER),
            resolver=session.resolver,
            gateway=session.registry,
            materializer=session.materializer,
            runner=session.vm,
        )
        return await launch(order, services, reporter=self._caller, phases=self._caller)

    async def _order(
        self, reference: str | None, command: Sequence[str], options: RunOptions
    ) -> Order:
        session = self._session()
        order = make_order(
            reference,
            command,
            options,
            environment=self._caller.environment,
            config=load_config(self._caller),
        )
        await place(order.resolve, session)
        return order

    async def _started(self, runs: list[run_pb2.Run]) -> list[Run]:
        """Waits until all of them run, or leaves none."""
        session = self._session()
        made = [Run(session, run) for run in runs]
        try:
            await together([one.until_started() for one in made])
        except BaseException:
            await remove_all(runs, session.vm)
            raise
        return made

    # ---- artifacts and images ----

    async def push(
        self, file: Path | str, reference: str, *, content: Path | None = None, family: str = ""
    ) -> Pushed:
        """Pushes an artifact's file, YAML or JSON, with its content.

        Raises:
            LnsError: as the service gave it; ArtifactInvalid names what is wrong in the file.
            OSError: a file cannot be read.
        """
        registry = self._session().registry
        request = registry_pb.PushArtifactRequest(
            reference=reference, family=family, document=read_document(str(file))
        )
        if content is not None:
            request.layers.append(await upload_content(content, registry))
        answered = await registry.PushArtifact(request)
        return Pushed(
            reference=answered.reference,
            digest=answered.descriptor.digest,
            family=answered.family,
            warnings=tuple(answered.warnings),
        )

    async def push_image(self, source: str, reference: str) -> Pushed:
        """Pushes an image: a reference in the store, oci:DIR, oci-archive:FILE and their like.

        Raises:
            LnsError: as the service gave it.
        """
        request = registry_pb.PushImageRequest(source=source, reference=reference)
        answers = self._session().registry.PushImage(request)
        result: registry_pb.PushImageResult = await last_result(
            answers, self._caller, "the registry gateway"
        )
        return Pushed(
            reference=result.reference,
            digest=result.descriptor.digest,
            warnings=tuple(result.warnings),
        )

    async def pull(self, reference: str) -> Pulled:
        """Pulls an artifact or image with all its content into the store.

        Raises:
            LnsError: as the service gave it.
        """
        request = registry_pb.PullRequest(reference=reference, mode=registry_pb.PULL_MODE_ALWAYS)
        answers = self._session().registry.Pull(request)
        result: registry_pb.PullResult = await last_result(
            answers, self._caller, "the registry gateway"
        )
        return Pulled(
            reference=result.reference,
            digest=result.root.digest,
            family=result.family,
            content=result.document,
        )

    # ---- approvals ----

    async def approvals(self, run: str = "") -> Sequence[egress_pb.Approval]:
        """Returns what runs wait for an answer about, oldest first; of one run, if it is named.

        Raises:
            LnsError: as the service gave it.
        """
        request = egress_pb.ListApprovalsRequest(run=run)
        return (await self._session().egress.ListApprovals(request)).approvals

    async def watch_approvals(self, run: str = "") -> AsyncIterator[egress_pb.Approval]:
        """Yields what runs ask for, what waits already first.

        Raises:
            LnsError: as the service gave it.
        """
        request = egress_pb.WatchApprovalsRequest(run=run)
        async for event in self._session().egress.WatchApprovals(request):
            if event.HasField("asked"):
                yield event.asked

    async def allow(self, approval: egress_pb.Approval, *, always: bool = False) -> None:
        """Allows what is asked for: for the run, or for good by a rule in its policy file.

        Raises:
            ApprovalUnknown: nobody waits for it any more.
        """
        await answer(self._session().egress, approval, Verdict.ALLOW, always=always)

    async def deny(self, approval: egress_pb.Approval, *, always: bool = False) -> None:
        """Denies what is asked for; else as `allow`."""
        await answer(self._session().egress, approval, Verdict.DENY, always=always)

    def _session(self) -> Session:
        """Returns the connections, with the calls that follow in this task made ready."""
        if self._opened is None:
            raise RuntimeError("a client is used inside `async with`")
        calls.set_request_id(calls.new_request_id())
        environment = self._caller.environment
        calls.set_environment(caller_environment.encode(environment, directory=Path.cwd()))
        return self._opened


class _Caller:
    """A program that embeds lns; implements `Caller`, `Progress` and `Timer`."""

    def __init__(self, environment: Mapping[str, str], note: Callable[[str], None] | None) -> None:
        self._environment = environment
        self._note = note
        self.request_id = uuid.uuid4().hex

    @property
    def environment(self) -> Mapping[str, str]:
        return self._environment

    def note(self, line: str) -> None:
        if self._note is not None:
            self._note(line)

    def is_set(self, variable: str) -> bool:
        return bool(self._environment.get(variable))

    @property
    def user_home(self) -> Path:
        home = self._environment.get("HOME")
        return Path(home) if home else Path.home()

    def doing(self, what: str) -> None:
        """Drops what happens now: a program asked for it itself."""

    def progress(self, progress: usage_pb2.Progress) -> None:
        """Drops how far one blob is."""

    def measure(self, done: str) -> contextlib.AbstractContextManager[None]:
        """Measures nothing."""
        return contextlib.nullcontext()
