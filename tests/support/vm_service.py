"""vm_runner as a served service on a fake host: the real one but for microVMs and images."""

import contextlib
import secrets
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from lns.egress.v1 import egress_service_pb2_grpc
from lns.types.v1 import run_plan_pb2
from lns.vm.v1 import run_pb2, vm_service_pb2, vm_service_pb2_grpc

from services.chassis import run_plan_messages
from services.chassis.blocking import Blocking
from services.chassis.channel import open_channel
from services.chassis.reserve import Reserve
from services.chassis.server import Service, running_server
from services.chassis.settings import PeerSettings, ServerSettings
from services.core.errors import LnsError
from services.vm_runner.adapters.answer_files import AnswerFile
from services.vm_runner.adapters.log_files import LogFiles
from services.vm_runner.adapters.run_files import RunFiles
from services.vm_runner.adapters.saved_run_files import SavedRunFiles
from services.vm_runner.adapters.tcp_listeners import TcpListeners
from services.vm_runner.adapters.volume_files import VolumeFiles
from services.vm_runner.boundary.approvals import Approvals
from services.vm_runner.egress_servicer import EgressServicer
from services.vm_runner.life.boot_queue import BootQueue
from services.vm_runner.life.surroundings import RunnerLimits, Surroundings
from services.vm_runner.records.answered import AnsweredRequests
from services.vm_runner.runner import Runner
from services.vm_runner.servicer import VmServicer
from services.vm_runner.snapshots.saved_runs import SavedRuns
from services.vm_runner.snapshots.starts import Starts
from services.vm_runner.storage.binds import Binds
from services.vm_runner.storage.volumes import Volumes
from tests.fakes.egress import boundary_outside
from tests.fakes.hypervisor import FakeHost, FakeHypervisor
from tests.fakes.vm_outside import FakeBindHost, FakeDisks, FakeImages, fake_host
from tests.support.guest_agent import require_agent
from tests.support.runs import DIGEST, a_plan

pb = vm_service_pb2


@dataclass
class VmWorld:
    """What outlives a service: its state directory, its host's machines, the image store."""

    home: Path
    host: FakeHost
    images: FakeImages = field(default_factory=FakeImages)
    disks: FakeDisks = field(default_factory=FakeDisks)
    bind_host: FakeBindHost = field(default_factory=FakeBindHost)
    approvals: Approvals = field(default_factory=Approvals)
    limits: RunnerLimits = field(
        default_factory=lambda: RunnerLimits(boot_seconds=10, shutdown_seconds=5)
    )
    log_bytes: int = 1 << 20
    stall_seconds: float = 5.0
    saved_bytes: int = 1 << 30
    missing: LnsError | None = None
    missing_foreign: LnsError | None = None
    hypervisor: FakeHypervisor = field(init=False)
    runner: Runner = field(init=False)

    def __post_init__(self) -> None:
        self.hypervisor = FakeHypervisor(self.host)


@contextlib.asynccontextmanager
async def vm_world(home: Path) -> AsyncIterator[VmWorld]:
    """Yields a host; its machines are ended with the block."""
    host = FakeHost(require_agent())
    try:
        yield VmWorld(home=home, host=host)
    finally:
        await host.close()


@contextlib.asynccontextmanager
async def vm_service(world: VmWorld) -> AsyncIterator["VmClient"]:
    """Serves vm_runner in a world while the block runs; machines go on after it."""
    runs = world.home / "runs"
    runs.mkdir(exist_ok=True)
    with Blocking(8) as blocking:
        kept = Reserve(world.home / ".reserve", size_bytes=1 << 20)
        kept.fill()
        answered = AnsweredRequests(
            AnswerFile(runs / "answered.json", blocking=blocking, kept=kept)
        )
        volumes = Volumes(
            VolumeFiles(world.home / "volumes", blocking=blocking, kept=kept),
            world.disks,
            default_bytes=1 << 30,
            answered=answered,
        )
        (world.home / "saved").mkdir(exist_ok=True)
        saved = SavedRuns(
            SavedRunFiles(world.home / "saved", blocking=blocking),
            world.images,
            budget_bytes=world.saved_bytes,
        )
        await saved.open()
        surroundings = Surroundings(
            hypervisor=world.hypervisor,
            images=world.images,
            store=RunFiles(runs, blocking=blocking, kept=kept),
            logs=LogFiles(
                runs,
                blocking=blocking,
                default_limit=world.log_bytes,
                stall_seconds=world.stall_seconds,
            ),
            disks=world.disks,
            listeners=TcpListeners(),
            volumes=volumes,
            binds=Binds(world.bind_host),
            limits=world.limits,
            boots=BootQueue(world.limits.boots_at_once),
            starts=Starts(hypervisor=world.hypervisor, disks=world.disks),
            saved=saved,
            boundary=boundary_outside(blocking, approvals=world.approvals),
            answered=answered,
        )
        runner = world.runner = Runner(surroundings)
        await runner.recover()
        service = Service(
            add_to_server=vm_service_pb2_grpc.add_VmServiceServicer_to_server,
            servicer=VmServicer(
                runner,
                volumes,
                fake_host(world.home, missing=world.missing, missing_foreign=world.missing_foreign),
                surroundings.starts,
            ),
            full_name="lns.vm.v1.VmService",
        )
        egress = Service(
            add_to_server=egress_service_pb2_grpc.add_EgressServiceServicer_to_server,
            servicer=EgressServicer(runner, world.approvals),
            full_name="lns.egress.v1.EgressService",
        )
        address = f"unix:{world.home}/vm.sock"
        settings = ServerSettings(listen=(address,), grace=0.1)
        try:
            async with (
                running_server(settings, [service, egress]),
                open_channel(PeerSettings(target=address), pb.DESCRIPTOR) as channel,
            ):
                yield VmClient(vm_service_pb2_grpc.VmServiceStub(channel))
        finally:
            await runner.close()
            await saved.close()


class VmClient:
    """Calls of vm_runner, with what most tests leave out left out."""

    def __init__(self, stub: "vm_service_pb2_grpc.VmServiceAsyncStub") -> None:
        self.stub = stub

    async def create(
        self,
        *argv: str,
        options: run_pb2.RunOptions | None = None,
        start: bool = True,
        request_id: str = "",
        digest: str = DIGEST,
        labels: dict[str, str] | None = None,
        ports: Sequence[run_plan_pb2.PortMapping] = (),
        volumes: Sequence[run_plan_pb2.VolumeMount] = (),
        group: run_pb2.RunGroup | None = None,
        member: str = "",
        user: str = "",
        more: run_plan_pb2.RunPlan | None = None,
    ) -> run_pb2.Run:
        """Creates a run; `more` has further values of its plan."""
        plan = run_plan_messages.format_run_plan(a_plan(*argv))
        plan.MergeFrom(more or run_plan_pb2.RunPlan())
        plan.user = user
        plan.labels.update(labels or {})
        plan.ports.extend(ports)
        plan.volumes.extend(volumes)
        plan.group, plan.member = ("team", member) if group else ("", "")
        response = await self.stub.CreateRun(
            pb.CreateRunRequest(
                request_id=request_id or secrets.token_hex(8),
                plan=plan,
                image_digest=digest,
                options=options,
                do_not_start=not start,
                group=group,
            )
        )
        return response.run

    async def shell(self, script: str, *, options: run_pb2.RunOptions | None = None) -> run_pb2.Run:
        return await self.create("sh", "-c", script, options=options)

    async def get(self, run: str) -> run_pb2.Run:
        return (await self.stub.GetRun(pb.GetRunRequest(run=run))).run

    async def events(
        self, run: str, *, after: int = 0, until_ended: bool = True
    ) -> list[run_pb2.RunEvent]:
        request = pb.WatchRunRequest(run=run, after_sequence=after, until_ended=until_ended)
        return [response.event async for response in self.stub.WatchRun(request)]

    async def watch(self, run: str) -> AsyncIterator[run_pb2.RunEvent]:
        """Yields the events of a run from the first on; the run's removal is the last."""
        async for response in self.stub.WatchRun(pb.WatchRunRequest(run=run)):
            yield response.event

    async def ended(self, run: str) -> run_pb2.Run:
        """Waits until a run has ended for good."""
        return (await self.events(run))[-1].state_changed

    async def until(self, run: str, state: "run_pb2.Run.State.ValueType") -> run_pb2.Run:
        """Waits until a run is in a state."""
        request = pb.WatchRunRequest(run=run)
        async for response in self.stub.WatchRun(request):
            if response.event.state_changed.state == state:
                break
        return await self.get(run)

    async def logs(self, run: str, **query: object) -> bytes:
        request = pb.ReadLogsRequest(run=run, **query)  # type: ignore[arg-type]  # checked by the proto
        return b"".join([piece.data async for piece in self.stub.ReadLogs(request)])

    def attach(self, start: pb.AttachStart) -> "Terminal":
        return Terminal(self.stub, start)

    async def output(self, run: str) -> tuple[bytes, bytes, run_pb2.ExitStatus]:
        """Attaches with replay; returns everything, once the run has ended."""
        async with self.attach(pb.AttachStart(run=run, replay=True)) as terminal:
            return await terminal.rest()

    async def execute(
        self, run: str, *argv: str, stdin: Sequence[bytes] | None = None, tty: bool = False
    ) -> tuple[bytes, bytes, run_pb2.ExitStatus]:
        """Runs a process in a run to its end."""
        start = pb.AttachStart(
            run=run, exec=pb.ExecSpec(argv=argv, tty=tty), stdin=stdin is not None
        )
        async with self.attach(start) as terminal:
            for data in stdin or ():
                await terminal.send(stdin=data)
            if stdin is not None:
                await terminal.send(stdin_closed=pb.StdinClosed())
            return await terminal.rest()


class Terminal:
    """One call of Attach."""

    def __init__(
        self, stub: "vm_service_pb2_grpc.VmServiceAsyncStub", start: pb.AttachStart
    ) -> None:
        self._call = stub.Attach()
        self._start = start

    async def __aenter__(self) -> "Terminal":
        await self._call.write(pb.AttachRequest(start=self._start))
        first = await self.read()
        assert first.WhichOneof("message") == "started"
        self.started = first.started
        return self

    async def __aexit__(self, *_: object) -> None:
        self._call.cancel()

    async def send(self, **message: object) -> None:
        await self._call.write(pb.AttachRequest(**message))  # type: ignore[arg-type]  # checked by the proto

    async def read(self) -> pb.AttachResponse:
        answer = await self._call.read()
        assert isinstance(answer, pb.AttachResponse), "the call has ended"
        return answer

    async def until(self, text: bytes) -> bytes:
        """Reads standard output up to some text."""
        output = b""
        while text not in output:
            output += (await self.read()).stdout
        return output

    async def rest(self) -> tuple[bytes, bytes, run_pb2.ExitStatus]:
        """Reads to the end: both outputs and the exit status."""
        out, err = b"", b""
        while True:
            answer = await self.read()
            match answer.WhichOneof("message"):
                case "stdout":
                    out += answer.stdout
                case "stderr":
                    err += answer.stderr
                case "exited":
                    return out, err, answer.exited
                case "stdin_ready" | "stdin_taken":
                    pass
                case other:
                    raise AssertionError(f"{other} before the end")
