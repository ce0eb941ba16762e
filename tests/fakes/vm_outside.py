"""Images, disks and a host's facts for tests of vm_runner."""

import asyncio
from dataclasses import dataclass, field
from pathlib import Path

from services.core.errors import (
    CapacityExhausted,
    ImageUnknown,
    LnsError,
    RequestInvalid,
    VmFailed,
)
from services.vm_runner.architectures import Architecture
from services.vm_runner.host import AcceleratorReport, ConfinementReport, Host
from services.vm_runner.ports import Image
from services.vm_runner.storage.bind_host import BindSource, ServedBind
from tests.support.runs import DIGEST


@dataclass(frozen=True, slots=True, kw_only=True)
class FakeImage:
    """An image of files that nobody opens."""

    metadata_path: Path = Path("/images/a.cfs")
    pack_paths: tuple[Path, ...] = (Path("/layers/a/objects.erofs"),)
    read_only_paths: tuple[str, ...] = ()
    has_acl: bool = False


@dataclass(slots=True)
class FakeImages:
    """An image store with one image; remembers who leases it."""

    digests: set[str] = field(default_factory=lambda: {DIGEST})
    leased: dict[str, str] = field(default_factory=dict)
    fail_release: LnsError | None = None

    async def lease(self, run_id: str, image_digest: str) -> Image:
        if image_digest not in self.digests:
            raise ImageUnknown(f"no image has the digest {image_digest}")
        self.leased[run_id] = image_digest
        return FakeImage()

    async def release(self, run_id: str) -> None:
        if self.fail_release is not None:
            raise self.fail_release
        self.leased.pop(run_id, None)


@dataclass(slots=True)
class FakeDisks:
    """Disks that are empty files."""

    made: dict[Path, int] = field(default_factory=dict)
    full: bool = False

    async def ensure(self, path: Path, *, size_bytes: int) -> None:
        if self.full:
            raise CapacityExhausted("no room for a disk")
        if path not in self.made:
            await asyncio.to_thread(path.touch)
            self.made[path] = size_bytes


@dataclass(slots=True)
class FakeBindHost:
    """A host whose files are what a test says; remembers what is served."""

    sources: dict[str, BindSource] = field(default_factory=dict)
    serving: dict[str, ServedBind] = field(default_factory=dict)
    fates: dict[str, asyncio.Future[str]] = field(default_factory=dict)
    fail_next: VmFailed | None = None

    async def look(self, source: str) -> BindSource:
        if source not in self.sources:
            raise RequestInvalid(f"{source} cannot be bound: no such file")
        return self.sources[source]

    async def serve(self, bind: ServedBind) -> None:
        if self.fail_next is not None:
            error, self.fail_next = self.fail_next, None
            raise error
        if bind.port.name not in self.serving:
            self.serving[bind.port.name] = bind
            self.fates[bind.port.name] = asyncio.get_running_loop().create_future()

    def end(self, port: str, fate: str) -> None:
        """Has nobody serve a port any more."""
        del self.serving[port]
        self.fates[port].set_result(fate)

    async def lost(self, bind: ServedBind) -> str:
        return await asyncio.shield(self.fates[bind.port.name])

    async def ended(self, binds: tuple[ServedBind, ...]) -> None:
        for bind in binds:
            if bind.port.name in self.serving:
                self.end(bind.port.name, "ended with status 0")


def fake_host(
    home: Path, *, missing: LnsError | None = None, missing_foreign: LnsError | None = None
) -> Host:
    """A host with everything, or with one thing missing, for its own guests or for foreign ones."""

    async def qemu() -> str:
        if missing is not None:
            raise missing
        return "/usr/bin/qemu"

    async def emulator() -> str:
        if missing_foreign is not None:
            raise missing_foreign
        return "/usr/bin/qemu-of-another"

    async def accelerator(again: bool) -> AcceleratorReport:
        return AcceleratorReport(accelerator="tcg", is_hardware=False, detail="a test")

    async def confinement() -> ConfinementReport:
        return ConfinementReport(detail="none: a test", missing=())

    async def snapshots() -> str:
        return "turned off"

    return Host(
        needs={"qemu": qemu},
        accelerator=accelerator,
        confinement=confinement,
        snapshots=snapshots,
        home=home,
        foreign={architecture: {"qemu": emulator} for architecture in Architecture},
    )
