"""Several clients at once, a host that fails anywhere, a service that dies at any moment.

Every await of the runner's outside is a point at which a rule of Hypothesis decides: go on, fail,
or wait. Time is the test's own. After each step the promises of the runner must hold.
"""

import asyncio
import gc
import itertools
import secrets
import threading
from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine, Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from services.chassis.blocking import Blocking
from services.core.errors import (
    CapacityExhausted,
    GuestUnreachable,
    InUse,
    LnsError,
    RequestInvalid,
    ServiceUnavailable,
    VmFailed,
)
from services.core.run_plan import PortMapping, VolumeKind, VolumeMount
from services.vm_runner.adapters.saved_run_files import SavedRunFiles
from services.vm_runner.channel import session
from services.vm_runner.channel.pace import Pace
from services.vm_runner.life import standing_still
from services.vm_runner.life.boot_queue import BootQueue
from services.vm_runner.life.run_life import RunLife
from services.vm_runner.life.surroundings import RunnerLimits, Surroundings
from services.vm_runner.machines import (
    Diagnosis,
    Machine,
    MachineSpec,
    MachineUsage,
    SavedMachine,
)
from services.vm_runner.ports import ClientConnection
from services.vm_runner.records import lifecycle
from services.vm_runner.records.answered import AnsweredRequests
from services.vm_runner.records.run_log import LogChunk, LogPlace, LogStream
from services.vm_runner.records.runs import (
    RestartMode,
    RestartPolicy,
    Run,
    RunOptions,
    RunState,
    Volume,
)
from services.vm_runner.runner import Runner
from services.vm_runner.snapshots.saved_runs import SavedRuns
from services.vm_runner.snapshots.starts import Starts
from services.vm_runner.storage.bind_host import BindSource, ServedBind
from services.vm_runner.storage.binds import Binds
from services.vm_runner.storage.volumes import Volumes
from tests.fakes.egress import boundary_outside
from tests.fakes.scripted_guest import GuestConnection, ScriptedGuest
from tests.fakes.vm_outside import FakeImage
from tests.support.runs import DIGEST, a_plan

_PORTS = (8001, 8002)
_VOLUMES = ("data", "logs")
_NAMES = ("", "ann", "bob")


class OwnTime(asyncio.SelectorEventLoop):
    """An event loop whose time passes when the test says so."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0
        self.complaints: list[str] = []
        self.set_exception_handler(lambda _, about: self.complaints.append(str(about)))

    def time(self) -> float:
        return self.now

    def run_in_executor(self, executor: Any, function: Callable[..., Any], *args: Any) -> Any:
        """Threads are no part of it: what they would do is done at once."""
        done = self.create_future()
        done.set_result(function(*args))
        return done

    def settle(self) -> None:
        """Runs until every task waits for something."""

        async def until_idle() -> None:
            for _ in range(100_000):
                await asyncio.sleep(0)
                if not self._ready:  # type: ignore[attr-defined]  # what is due, in every event loop of asyncio
                    return
            raise AssertionError("some task runs for ever")

        self.run_until_complete(until_idle())

    def pass_time(self, seconds: float) -> None:
        """Lets time pass; what is due then happens."""
        self.now += seconds
        self.settle()
        self.settle()


class AtOnce(Blocking):
    """Blocking work that is done where it is asked for, as `run_in_executor` does it."""

    async def _run(self, call: Callable[[], Any], cancel: threading.Event | None) -> Any:
        return call()


@dataclass(eq=False)
class Point:
    """Somewhere the runner waits for its outside."""

    what: str
    failure: LnsError | None
    turn: asyncio.Future[None]


class Host:
    """What outlives a service: its disk and its microVMs."""

    def __init__(self) -> None:
        self.runs: dict[str, Run] = {}
        self.volumes: dict[str, Volume] = {}
        self.disks: set[Path] = set()
        self.answers: dict[str, str] = {}
        self.leases: set[str] = set()
        self.machines: dict[str, ScriptedMachine] = {}
        self.points: list[Point] = []
        self.lets_all_pass = False
        self.offences: list[str] = []
        self.limbo: list[asyncio.Future[None]] = []

    async def point(self, what: str, failure: LnsError | None = None) -> None:
        """Waits until a rule lets it go on, or fail."""
        if self.lets_all_pass:
            return
        point = Point(what, failure, asyncio.get_running_loop().create_future())
        self.points.append(point)
        try:
            await point.turn
        finally:
            self.points.remove(point)


class Life:
    """One life of the service: once it is over, nothing that it began has an effect."""

    def __init__(self, host: Host) -> None:
        self.host = host
        self.is_over = False
        self.listening: set[int] = set()

    async def point(self, what: str, failure: LnsError | None = None) -> None:
        await self.check()
        await self.host.point(what, failure)
        await self.check()

    async def check(self) -> None:
        if self.is_over:
            for_ever: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self.host.limbo.append(for_ever)  # a task that nobody knows would be collected
            await for_ever


class ScriptedMachine:
    """A microVM in memory."""

    accelerator = "tcg"
    _pids = itertools.count(1000)

    def __init__(self, host: Host, spec: MachineSpec) -> None:
        self.pid = next(self._pids)
        self.spec = spec
        self.host = host
        self.guest = ScriptedGuest(host.point, self.end)
        self.paused = False
        self.ended = asyncio.Event()

    def end(self) -> None:
        if self.host.machines.get(self.spec.run_id) is self:
            del self.host.machines[self.spec.run_id]
        self.guest.end()
        self.ended.set()


class HeldMachine:
    """A microVM as one life of the service holds it."""

    accelerator = "tcg"

    def __init__(self, machine: ScriptedMachine, life: Life) -> None:
        self._machine = machine
        self._life = life

    @property
    def pid(self) -> int:
        return self._machine.pid

    async def connect(self) -> GuestConnection:
        await self._life.point("connect", GuestUnreachable("it does not listen"))
        if self._machine.ended.is_set():
            raise GuestUnreachable("it has ended")
        return self._machine.guest.connect()

    async def wait(self) -> None:
        await self._machine.ended.wait()
        await self._life.check()

    async def kill(self) -> None:
        await self._life.point("kill")
        self._machine.end()

    async def pause(self) -> None:
        await self._life.point("pause", GuestUnreachable("no answer"))
        self._machine.paused = True

    async def resume(self) -> None:
        await self._life.point("resume", GuestUnreachable("no answer"))
        self._machine.paused = False

    async def is_paused(self) -> bool:
        await self._life.point("is paused", GuestUnreachable("no answer"))
        return self._machine.paused

    async def diagnose(self) -> Diagnosis:
        return Diagnosis(end="it ended" if self._machine.ended.is_set() else "", messages="")

    async def usage(self) -> MachineUsage:
        return MachineUsage(cpu_time=timedelta(), memory_bytes=1)

    async def wait_out_of_room(self) -> None:
        await asyncio.get_running_loop().create_future()

    async def save(self, state: Path) -> None:
        raise AssertionError("snapshots are turned off")

    async def hand_over(self, spec: MachineSpec) -> None:
        raise AssertionError("snapshots are turned off")

    def open_files(self) -> tuple[Path, ...]:
        return tuple(disk.path for disk in self._machine.spec.disks)

    async def leave(self) -> None:
        pass


class Outside:
    """The runner's outside in one life of the service; each await in it is a point."""

    def __init__(self, life: Life) -> None:
        self.life = life
        self.host = life.host

    # ---- hypervisor ----

    async def start(self, spec: MachineSpec) -> Machine:
        await self.life.point("start", VmFailed("it does not start"))
        self._judge(spec)
        machine = self.host.machines[spec.run_id] = ScriptedMachine(self.host, spec)
        await self.life.point("started")
        return HeldMachine(machine, self.life)

    def _judge(self, spec: MachineSpec) -> None:
        if spec.run_id in self.host.machines:
            self.host.offences.append(f"two microVMs of run {spec.run_id}")
        mine = {disk.path: disk.read_only for disk in spec.disks}
        for other in self.host.machines.values():
            for disk in other.spec.disks:
                if disk.path in mine and not (disk.read_only and mine[disk.path]):
                    self.host.offences.append(f"{disk.path} has a writer and another user")

    async def adopt(self, run_id: str, directory: Path) -> Machine | None:
        await self.life.point("adopt")
        machine = self.host.machines.get(run_id)
        return None if machine is None else HeldMachine(machine, self.life)

    async def resume(self, spec: MachineSpec, saved: SavedMachine) -> Machine:
        raise AssertionError("snapshots are turned off")

    async def fingerprint(self, spec: MachineSpec) -> str:
        raise AssertionError("snapshots are turned off")

    # ---- images ----

    async def lease(self, run_id: str, digest: str) -> FakeImage:
        await self.life.point("lease", ServiceUnavailable("no materializer"))
        self.host.leases.add(run_id)
        return FakeImage()

    async def release(self, run_id: str) -> None:
        await self.life.point("release", ServiceUnavailable("no materializer"))
        self.host.leases.discard(run_id)

    # ---- disks and listeners ----

    async def ensure(self, path: Path, *, size_bytes: int) -> None:
        await self.life.point("disk", CapacityExhausted("full"))
        self.host.disks.add(path)

    async def listen(
        self, ip: str, port: int, serve: Callable[[ClientConnection], Awaitable[None]]
    ) -> "ScriptedListener":
        await self.life.point("listen", InUse("taken by another program"))
        if port in self.life.listening:
            raise InUse(f"port {port} is taken")
        self.life.listening.add(port)
        return ScriptedListener(self.life, port)


class ScriptedListener:
    """A port that is listened at."""

    def __init__(self, life: Life, port: int) -> None:
        self._life = life
        self.port = port

    async def close(self) -> None:
        if self.port not in self._life.listening:
            self._life.host.offences.append(f"port {self.port} was closed twice")
        self._life.listening.discard(self.port)


class RunRecords:
    """Where runs are recorded."""

    def __init__(self, life: Life) -> None:
        self.life = life

    async def load(self) -> tuple[Run, ...]:
        await self.life.point("load runs")
        return tuple(self.life.host.runs.values())

    async def save(self, run: Run) -> None:
        await self.life.point("save", CapacityExhausted("full"))
        self.life.host.runs[run.run_id] = run
        await self.life.point("saved")

    async def remove(self, run_id: str) -> None:
        await self.life.point("remove", CapacityExhausted("no room for a directory"))
        self.life.host.runs.pop(run_id, None)
        self.life.host.disks -= {p for p in self.life.host.disks if run_id in p.parts}

    async def size(self, run_id: str) -> int:
        return 0

    async def room(self) -> int:
        return 1

    def directory(self, run_id: str) -> Path:
        return Path("/nonexistent/runs") / run_id


class VolumeRecords:
    """Where volumes are recorded."""

    def __init__(self, life: Life) -> None:
        self.life = life

    async def load(self) -> tuple[Volume, ...]:
        await self.life.point("load volumes")
        return tuple(self.life.host.volumes.values())

    async def save(self, volume: Volume) -> None:
        await self.life.point("save volume", CapacityExhausted("full"))
        self.life.host.volumes[volume.name] = volume

    async def remove(self, name: str) -> None:
        await self.life.point("remove volume")
        self.life.host.volumes.pop(name, None)
        self.life.host.disks.discard(self.disk(name))

    async def used_bytes(self, name: str) -> int:
        return 0

    def disk(self, name: str) -> Path:
        return Path("/volumes") / name


class Answers:
    """Where answered requests are kept."""

    def __init__(self, life: Life) -> None:
        self.life = life

    async def load(self) -> dict[str, str]:
        return self.life.host.answers

    async def save(self, answers: Any) -> None:
        await self.life.point("save answers", CapacityExhausted("full"))
        self.life.host.answers = dict(answers)


class BoundFiles:
    """The host's files."""

    def __init__(self, life: Life) -> None:
        self.life = life

    async def look(self, source: str) -> BindSource:
        await self.life.point("look", RequestInvalid("it does not answer"))
        return BindSource(path=Path(source), is_file=False)

    async def serve(self, bind: ServedBind) -> None:
        await self.life.point("serve", VmFailed("no file server"))

    async def lost(self, bind: ServedBind) -> str:
        await asyncio.get_running_loop().create_future()
        raise AssertionError

    async def ended(self, binds: tuple[ServedBind, ...]) -> None:
        await self.life.point("unserve")


class QuietLog:
    """A log of runs that write nothing."""

    def __init__(self) -> None:
        self._ended: dict[tuple[int, LogStream], tuple[int, bool]] = {}

    async def append(self, chunks: Sequence[LogChunk]) -> None:
        for chunk in chunks:
            self._ended[chunk.boot, chunk.stream] = (chunk.position, chunk.ended)

    async def progress(self, boot: int) -> dict[LogStream, tuple[int, bool]]:
        return {stream: state for (of, stream), state in self._ended.items() if of == boot}

    async def end(self) -> LogPlace:
        return LogPlace()

    async def follow(
        self, place: LogPlace, *, held: bool = False, wait: bool = True
    ) -> AsyncGenerator[Sequence[LogChunk], None]:
        return
        yield

    def begin(self) -> None:
        pass

    def close(self) -> None:
        pass


class QuietLogs:
    """The logs of runs; they are on the disk."""

    def __init__(self) -> None:
        self._logs: dict[str, QuietLog] = {}

    def open(self, run: Run) -> QuietLog:
        return self._logs.setdefault(run.run_id, QuietLog())


@dataclass
class Client:
    """A client that waits for something."""

    what: str
    task: asyncio.Task[object]


class ManyClients(RuleBasedStateMachine):
    """Clients, the host, and the service between them."""

    @initialize(mode=st.sampled_from(RestartMode), remove=st.booleans())
    def begin(self, mode: RestartMode, remove: bool) -> None:
        self.loop = OwnTime()
        self.host = Host()
        self.logs = QuietLogs()
        self.blocking = AtOnce(1)
        self.clients: list[Client] = []
        self.leftovers: list[asyncio.Task[object]] = []
        self.open_service()
        self.everything_goes_on()
        for name in ("one", "two"):
            self.create(
                name=name, mode=mode, port=_PORTS[0], volume=_VOLUMES[0], read_only=False,
                binds=True, start=False, remove=remove, again=False,
            )  # fmt: skip
        self.everything_goes_on()

    def open_service(self) -> None:
        life = self.life = Life(self.host)
        outside = Outside(life)
        answered = AnsweredRequests(Answers(life))
        volumes = self.volumes = Volumes(
            VolumeRecords(life), outside, default_bytes=1 << 30, answered=answered
        )
        self.runner = Runner(
            Surroundings(
                hypervisor=outside,
                images=outside,
                store=RunRecords(life),
                logs=self.logs,
                disks=outside,
                listeners=outside,
                volumes=volumes,
                binds=Binds(BoundFiles(life)),
                limits=RunnerLimits(boot_seconds=60, shutdown_seconds=10),
                boots=BootQueue(1),
                answered=answered,
                starts=Starts(hypervisor=outside, disks=outside),
                saved=SavedRuns(
                    SavedRunFiles(Path("/saved"), blocking=self.blocking), outside, budget_bytes=0
                ),
                boundary=boundary_outside(self.blocking),
            )
        )
        self.recovering = self.spawn(self.runner.recover())
        self.loop.settle()

    def spawn(self, work: Coroutine[Any, Any, Any]) -> asyncio.Task[object]:
        async def create() -> asyncio.Task[object]:
            return asyncio.get_running_loop().create_task(work)

        return self.loop.run_until_complete(create())

    def ask(self, what: str, work: Coroutine[Any, Any, Any]) -> None:
        async def asked() -> object:
            try:
                return await work
            except LnsError as error:
                return error

        self.clients.append(Client(what, self.spawn(asked())))
        self.loop.settle()

    def lives(self) -> list[RunLife]:
        return sorted(self.runner.register.lives(), key=lambda life: life.run.create_time)

    def pick(self, number: int) -> RunLife:
        return self.lives()[number % len(self.lives())]

    def is_up(self) -> bool:
        return self.recovering.done()

    def has_runs(self) -> bool:
        return self.is_up() and bool(self.runner.register.lives())

    # ---- what clients ask for ----

    @precondition(is_up)
    @rule(
        name=st.sampled_from(_NAMES),
        mode=st.sampled_from(RestartMode),
        port=st.sampled_from([0, *_PORTS]),
        volume=st.sampled_from(["", *_VOLUMES]),
        read_only=st.booleans(),
        binds=st.booleans(),
        start=st.booleans(),
        remove=st.booleans(),
        again=st.booleans(),
    )
    def create(
        self, *, name: str, mode: RestartMode, port: int, volume: str, read_only: bool,
        binds: bool, start: bool, remove: bool, again: bool,
    ) -> None:  # fmt: skip
        mounts = []
        if volume:
            mounts.append(
                VolumeMount(kind=VolumeKind.NAMED, source=volume, target="/v", read_only=read_only)
            )
        if binds:
            mounts.append(VolumeMount(kind=VolumeKind.BIND, source="/srv", target="/srv"))
        plan = replace(
            a_plan(),
            volumes=tuple(mounts),
            ports=(PortMapping(host_port=port, container_port=80),) if port else (),
        )
        request_id = secrets.token_hex(4)
        for _ in range(2 if again else 1):
            self.ask(
                "create",
                self.runner.create(
                    plan=plan,
                    options=RunOptions(name=name, restart=RestartPolicy(mode=mode), remove=remove),
                    image_digest=DIGEST,
                    request_id=request_id,
                    start=start,
                ),
            )

    @precondition(has_runs)
    @rule(number=st.integers(0, 9))
    def a_run_comes_to_run(self, number: int) -> None:
        """What is interesting happens to runs that run: gets there without a hindrance."""
        self.start(number=number, twice=False)
        self.everything_goes_on()

    @precondition(has_runs)
    @rule(number=st.integers(0, 9), twice=st.booleans())
    def start(self, number: int, twice: bool) -> None:
        run_id = self.pick(number).run.run_id
        for _ in range(2 if twice else 1):
            self.ask("start", self.runner.start(run_id, request_id=secrets.token_hex(4)))

    @precondition(has_runs)
    @rule(number=st.integers(0, 9), seconds=st.sampled_from([0.0, 10.0]))
    def stop(self, number: int, seconds: float) -> None:
        self.ask("stop", self.pick(number).stop(seconds=seconds))

    @precondition(has_runs)
    @rule(number=st.integers(0, 9))
    def kill(self, number: int) -> None:
        self.ask("kill", self.runner.kill(self.pick(number).run.run_id))

    @precondition(has_runs)
    @rule(number=st.integers(0, 9), resume=st.booleans())
    def pause_or_resume(self, number: int, resume: bool) -> None:
        life = self.pick(number)
        self.ask("pause", standing_still.resume(life) if resume else standing_still.pause(life))

    @precondition(has_runs)
    @rule(number=st.integers(0, 9), name=st.sampled_from(_NAMES[1:]))
    def rename(self, number: int, name: str) -> None:
        self.ask("rename", self.runner.rename(self.pick(number).run.run_id, name))

    @precondition(has_runs)
    @rule(number=st.integers(0, 9), port=st.sampled_from(_PORTS), take_back=st.booleans())
    def publish(self, number: int, port: int, take_back: bool) -> None:
        life = self.pick(number)
        mapping = PortMapping(host_port=port, container_port=80)
        self.ask("publish", life.unpublish(mapping) if take_back else life.publish(mapping))

    @precondition(has_runs)
    @rule(number=st.integers(0, 9), force=st.booleans())
    def remove(self, number: int, force: bool) -> None:
        run_id = self.pick(number).run.run_id
        self.ask("remove", self.runner.remove(run_id, force=force, request_id=secrets.token_hex(4)))

    @precondition(has_runs)
    @rule(number=st.integers(0, 9))
    def wait(self, number: int) -> None:
        self.ask("wait", self.pick(number).wait_ended())

    @precondition(is_up)
    @rule(name=st.sampled_from(_VOLUMES), remove=st.booleans())
    def change_volume(self, name: str, remove: bool) -> None:
        volumes = self.volumes
        self.ask("volume", volumes.remove(name) if remove else volumes.create(name))

    @precondition(lambda self: bool(self.clients))
    @rule(number=st.integers(0, 9))
    def a_client_leaves(self, number: int) -> None:
        self.clients[number % len(self.clients)].task.cancel()
        self.loop.settle()

    # ---- what the host does ----

    @precondition(lambda self: bool(self.host.points))
    @rule(number=st.integers(0, 99), fail=st.sampled_from([False, False, False, True]))
    def go_on_or_fail(self, number: int, fail: bool) -> None:
        points = sorted(self.host.points, key=lambda point: point.what)
        point = points[number % len(points)]
        if fail and point.failure is not None:
            point.turn.set_exception(type(point.failure)(point.failure.message))
        else:
            point.turn.set_result(None)
        self.loop.settle()

    @precondition(lambda self: bool(self.host.points))
    @rule()
    def everything_goes_on(self) -> None:
        for _ in range(20):
            for point in list(self.host.points):
                point.turn.set_result(None)
            self.loop.settle()

    @precondition(lambda self: bool(self.host.machines))
    @rule(number=st.integers(0, 9), code=st.sampled_from([0, 1, 137]))
    def a_workload_ends(self, number: int, code: int) -> None:
        machines = list(self.host.machines.values())
        machines[number % len(machines)].guest.exit(code)
        self.loop.settle()

    @precondition(lambda self: bool(self.host.machines))
    @rule(number=st.integers(0, 9))
    def a_machine_dies(self, number: int) -> None:
        machines = list(self.host.machines.values())
        machines[number % len(machines)].end()
        self.loop.settle()

    @rule(seconds=st.sampled_from([0.2, 5.0, 61.0]))
    def time_passes(self, seconds: float) -> None:
        self.loop.pass_time(seconds)

    @rule(really=st.sampled_from([False, False, False, True]), next_is_up=st.booleans())
    def the_service_dies(self, really: bool, next_is_up: bool) -> None:
        """The service does not notice: no clean-up has an effect."""
        if not really:
            return
        self.life.is_over = True
        for point in list(self.host.points):
            if not point.what.startswith(("configured", "started", "goodbye")):
                point.turn.cancel()
        tasks = sorted(asyncio.all_tasks(self.loop), key=_age)
        for task in tasks:
            task.cancel()
        self.loop.settle()
        self.leftovers += [task for task in tasks if not task.done()]
        self.clients.clear()
        for machine in self.host.machines.values():
            machine.guest.connection_lost()
        self.open_service()
        if next_is_up:
            self.everything_goes_on()

    # ---- what must hold ----

    @invariant()
    def nothing_was_broken(self) -> None:
        assert self.host.offences == []
        assert self.loop.complaints == []

    @invariant()
    def names_are_unique(self) -> None:
        names = [run.name for run in self.runner.register.runs()]
        assert len(set(names)) == len(names)

    @invariant()
    def the_history_is_gapless_and_in_order(self) -> None:
        for life in self.runner.register.lives():
            events = list(life.record.history._events)
            sequences = [event.sequence for event in events]
            assert sequences == list(range(sequences[0], sequences[0] + len(sequences)))
            states = [event.run for event in events if event.run is not None]
            assert life.record.is_removed or sequences[-1] == life.run.sequence
            assert states

    @invariant()
    def what_is_recorded_is_what_is(self) -> None:
        for life in self.runner.register.lives():
            if (
                not life._turn.locked()
                and life.run.state in lifecycle.LIVE
                and life.holdings.are_held
            ):
                assert set(life.run.ports) == set(life.holdings.ports.mappings)

    @invariant()
    def an_ended_run_holds_nothing(self) -> None:
        if not self.is_up():
            return
        held = set()
        for life in self.runner.register.lives():
            busy = life._turn.locked() or life.living.is_at_work
            if busy or not (lifecycle.is_over(life.run) or life.run.state is RunState.CREATED):
                held |= {mapping.host_port for mapping in life.holdings.ports.mappings}
                continue
            assert life.holdings.ports.mappings == ()
            assert life.run.run_id not in self.host.machines
            for holders in self.volumes._holders.values():
                assert life.run.run_id not in holders
        assert self.life.listening >= held

    def teardown(self) -> None:
        """In the end everybody has an answer, and nothing is left."""
        if not hasattr(self, "loop"):
            return
        try:
            self._end_well()
        finally:
            for task in asyncio.all_tasks(self.loop):
                task.cancel()
            self.loop.settle()
            self.loop.close()
            self.blocking.close()

    def _end_well(self) -> None:
        self.host.lets_all_pass = True
        for _ in range(30):
            self._let_all_pass()
            self.loop.pass_time(61)
        assert self.recovering.done()
        for life in self.lives():
            self.ask("stop", life.stop(seconds=0))
        for _ in range(40):
            self._let_all_pass()
            self.loop.pass_time(61)
        waiting = [client.what for client in self.clients if not client.task.done()]
        assert waiting == []
        assert [life.run.state for life in self.lives() if not _is_at_rest(life)] == []
        assert self.host.machines == {}
        assert self.life.listening == set()
        assert [holders for holders in self.volumes._holders.values() if holders] == []
        recorded = {run.run_id: run for run in self.host.runs.values()}
        assert recorded == {life.run.run_id: life.run for life in self.lives()}
        gc.collect()
        assert self.loop.complaints == []

    def _let_all_pass(self) -> None:
        for point in list(self.host.points):
            if not point.turn.done():
                point.turn.set_result(None)
        self.loop.settle()


def _age(task: asyncio.Task[Any]) -> int:
    return int(task.get_name().removeprefix("Task-"))


class Unhurried(Pace):
    """Takes what guests send at once: how fast this machine is must not matter."""

    def spend(self, cost: float, *, now: float) -> float:
        return 0.0


def _is_at_rest(life: RunLife) -> bool:
    return lifecycle.is_over(life.run) or life.run.state is RunState.CREATED


def test_every_promise_holds_whatever_clients_and_host_do(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(session, "Pace", Unhurried)
    run_state_machine_as_test(
        ManyClients,
        settings=settings(
            max_examples=30,
            stateful_step_count=40,
            deadline=None,
            suppress_health_check=list(HealthCheck),
        ),
    )
