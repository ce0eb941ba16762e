"""What every run of a node is given: the outside, and limits."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

from services.chassis.broadcast import Broadcast
from services.chassis.machine import own_platform
from services.core.errors import PlatformUnsupported
from services.core.platforms import Platform
from services.core.run_plan import RunPlan
from services.vm_runner.architectures import Architecture, executed, guest_of
from services.vm_runner.boundary.boundary import BoundaryOutside, BoundedRun
from services.vm_runner.life.boot_queue import BootQueue
from services.vm_runner.machines import Hypervisor
from services.vm_runner.node_events import NodeEvent
from services.vm_runner.ports import DiskMaker, ImageSource, LogStorage, PortListeners, RunStore
from services.vm_runner.records.answered import AnsweredRequests
from services.vm_runner.records.runs import Run, RunEvent
from services.vm_runner.snapshots.saved_runs import SavedRuns
from services.vm_runner.snapshots.starts import Starts
from services.vm_runner.storage.binds import Binds
from services.vm_runner.storage.volumes import Volumes


@dataclass(frozen=True, slots=True, kw_only=True)
class RunnerLimits:
    """Sizes and times that hold for every run.

    Attributes:
        boots_at_once: machines that may boot at the same time.
        boot_seconds: longest time from the VMM's start to the agent's answer.
        disk_bytes: size of a writable layer where the plan names none.
        disk_rate_bytes: bytes a second of a run's disks where it names none; 0 is no limit.
        pids: processes where the run names none.
        shutdown_seconds: longest time for a guest to write back after its workload ended.
    """

    boots_at_once: int = 2
    boot_seconds: float = 60.0
    disk_bytes: int = 8 << 30
    disk_rate_bytes: int = 0
    pids: int = 4096
    shutdown_seconds: float = 10.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Surroundings:
    """What a run's life needs from outside.

    `plain_registries` are the hosts that lns speaks to without TLS.
    """

    hypervisor: Hypervisor
    images: ImageSource
    store: RunStore
    logs: LogStorage
    disks: DiskMaker
    listeners: PortListeners
    volumes: Volumes
    binds: Binds
    limits: RunnerLimits
    boots: BootQueue
    starts: Starts
    saved: SavedRuns
    boundary: BoundaryOutside
    answered: AnsweredRequests
    platform: Platform = field(default_factory=own_platform)
    """What guests of this machine's architecture execute, whichever way their CPU is made."""
    plain_registries: tuple[str, ...] = ()
    events: Broadcast[NodeEvent] = field(default_factory=Broadcast)

    def foreign_guest(self, plan: RunPlan) -> Architecture | None:
        """Returns the architecture of a plan's guest where that is not this machine's.

        Raises:
            PlatformUnsupported: no guest of this machine executes the image.
        """
        if plan.image is None:
            return None
        found = guest_of(plan.image.platform, host=self.platform)
        if found is None:
            raise PlatformUnsupported(
                f"{plan.image.requested or plan.image.reference} is made for {plan.image.platform};"
                f" the CPU of the guest executes {executed(self.platform)} at most",
                hint="choose another image, or a machine that executes it",
                metadata={"platform": str(self.platform)},
            )
        return None if found.platform.architecture == self.platform.architecture else found

    def happened(self, run: Run, event: RunEvent) -> None:
        """Tells those who watch the node what happened to a run."""
        self.events.publish(NodeEvent(run=run, happened=event))

    def bounded(
        self, run: Callable[[], Run], *, notice: Callable[[str], Awaitable[None]]
    ) -> BoundedRun:
        """Returns what the boundary of a run is given of it."""
        return BoundedRun(
            run=run,
            directory=self.store.directory(run().run_id),
            notice=notice,
            decided=lambda record: self.events.publish(NodeEvent(run=run(), decided=record)),
        )
