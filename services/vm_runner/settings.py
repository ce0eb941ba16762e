"""Settings of vm_runner."""

import ipaddress
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path

from services.chassis.settings import PeerSettings, ProcessSettings
from services.chassis.settings_tree import setting
from services.chassis.settings_values import ByteCount, Seconds
from services.core.egress.addresses import Address
from services.vm_runner.boundary.boundary import BoundarySettings
from services.vm_runner.life.surroundings import RunnerLimits
from services.vm_runner.vmm_options import AcceleratorMode, ConfinementMode, UserRange

_AHEAD_MOST = 8
_NAMES_BITS = 17


def kernel_cache(environment: Mapping[str, str]) -> Path:
    """Returns the folder `lns/kernel` in the user's cache directory."""
    cache = environment.get("XDG_CACHE_HOME", "")
    if cache.startswith("/"):
        return Path(cache) / "lns" / "kernel"
    home = Path(environment["HOME"]) if environment.get("HOME") else Path.home()
    return home / ".cache" / "lns" / "kernel"


class CredentialStore(StrEnum):
    """Where new secrets are kept."""

    FILE = "file"
    KEYRING = "keyring"


def user_file(name: str) -> Callable[[Mapping[str, str]], Path]:
    """Returns what finds a file in the user's home."""

    def find(environment: Mapping[str, str]) -> Path:
        home = environment.get("HOME", "")
        return (Path(home) if home.startswith("/") else Path.home()) / name

    return find


@dataclass(frozen=True, slots=True, kw_only=True)
class VmSettings:
    """How microVMs are run on this node."""

    materializer: PeerSettings = field(default_factory=PeerSettings)
    """The service that owns this node's images."""

    qemu: str = ""
    """QEMU's program. Empty: `qemu-system-` with this machine's architecture, from PATH."""

    kernel: Path | None = None
    """The guest's kernel: a file, or a folder with `boot` and `lib/modules`. None: the newest of
    `kernels`."""

    kernels: Path = field(metadata=setting(default_from=kernel_cache))
    """Folder with a folder for each kernel, by default `lns/kernel` in the user's cache."""

    agent: Path | None = None
    """The guest agent. None: the one that is shipped."""

    launcher: Path | None = None
    """The launcher that confines VMMs. None: the one that is shipped."""

    confinement: ConfinementMode = ConfinementMode.AUTO
    """`auto`: as much as the host permits, which `lns doctor` says; `required`: no run where a VMM
    cannot have namespaces and a mount view of its own."""

    vmm_user_first: int = 1_900_000_000
    """First of the users that VMMs run as where the service is root: this plus their pid."""

    vmm_user_count: int = 1 << 22
    """Number of those users. If it is below the kernel's `pid_max`, two VMMs may get one user."""

    cgroup: Path | None = None
    """A folder of cgroups v2 without processes, in which VMMs get theirs. None: the service's own
    group if that is delegated; for root, the top of the hierarchy."""

    accelerator: AcceleratorMode = AcceleratorMode.AUTO
    """`auto`: KVM where a guest really runs, else emulation; `kvm` or `tcg` to insist."""

    probe_time: Seconds = 5.0
    """How long a guest may take to answer when KVM is tried."""

    boot_time: Seconds = 60.0
    """How long a guest may take to answer when a run starts."""

    boots_at_once: int = 0
    """How many guests boot at the same time; further starts wait. 0: as many as this machine has
    processors, and at least two."""

    snapshot_disk: ByteCount = 4 << 30
    """What snapshots of images may take on the disk together; those used longest ago go. 0: none
    are made, and every start boots a kernel."""

    machines_ahead: int = 1
    """How many machines wait for runs like the last ones, resumed already: 0 to 8."""

    ahead_idle: Seconds = 600.0
    """How long a machine waits for a run before it is ended."""

    shutdown_time: Seconds = 10.0
    """How long a guest may take to write back after its workload ended."""

    disk: ByteCount = 8 << 30
    """Size of a run's writable layer, if the plan sets no size. It is sparse."""

    log: ByteCount = 64 << 20
    """Bytes of log that are kept of a run, if the run sets no limit."""

    pids: int = 4096
    """Processes of a run, if the run sets no limit."""

    credentials: Path = field(
        metadata=setting(
            default_from=user_file(".lns-credentials.json"), variable="LNS_CREDENTIALS_PATH"
        )
    )
    """File with the credentials of integrations, by default `.lns-credentials.json` in the user's
    home. Mode 0600; never a symbolic link."""

    credential_store: CredentialStore = CredentialStore.FILE
    """Where new secrets of integrations are kept: `file`, or `keyring` for the OS keyring."""

    integrations: Path = field(
        metadata=setting(
            default_from=user_file(".lns-integrations.yaml"), variable="LNS_INTEGRATIONS_PATH"
        )
    )
    """File with the user's own integrations, by default `.lns-integrations.yaml` in the user's
    home."""

    stall_time: Seconds = 30.0
    """How long a client that is attached may stand still before the run's output goes on without
    it."""

    egress_range: str = "198.18.0.0/15"
    """IPv4 network whose addresses stand for names in guests. Another one suits programs that
    refuse addresses for benchmarks; at least a /17."""

    egress_names: tuple[str, ...] = ()
    """Names that are not looked up, as `NAME=ADDRESS`; for tests, and without a resolver."""

    egress_authorities: tuple[str, ...] = ()
    """Files with the only roots that count for a host whose TLS is looked into, as `HOST=FILE` or
    `*.HOST=FILE`: for services with a private authority. Others count the host's own roots."""

    audit: ByteCount = 64 << 20
    """Bytes of audit log that are kept of a run."""

    def __post_init__(self) -> None:
        """Checks what depends on several settings.

        Raises:
            ValueError: the users of VMMs are not a range of users, the number of boots is
                negative, that of machines that wait out of range, or a value of egress cannot be
                used.
        """
        self.vmm_users()
        self.worker_users()
        self.boundary()
        self.fixed_names()
        if not 0 <= self.machines_ahead <= _AHEAD_MOST:
            raise ValueError(f"machines_ahead is not between 0 and {_AHEAD_MOST}")
        if self.boots_at_once < 0:
            raise ValueError("boots_at_once is negative")

    def vmm_users(self) -> UserRange:
        """Returns the users of VMMs."""
        return UserRange(first=self.vmm_user_first, count=self.vmm_user_count)

    def worker_users(self) -> UserRange:
        """Returns the users of egress workers, as many as VMMs have and behind those."""
        first = self.vmm_user_first + self.vmm_user_count
        return UserRange(first=first, count=self.vmm_user_count)

    def boundary(self) -> BoundarySettings:
        """Returns what holds for what runs reach."""
        names = ipaddress.IPv4Network(self.egress_range)
        if names.prefixlen > _NAMES_BITS:
            raise ValueError(f"egress_range {names} is smaller than a /{_NAMES_BITS}")
        return BoundarySettings(names=names, authorities=self._authorities())

    def _authorities(self) -> Mapping[str, Path]:
        found = {}
        for entry in self.egress_authorities:
            host, _, path = entry.partition("=")
            if not host or not path.startswith("/"):
                raise ValueError(
                    f"egress_authorities: {entry!r} is not HOST=FILE with a whole path"
                )
            found[host.lower()] = Path(path)
        return found

    def fixed_names(self) -> Mapping[str, Address]:
        """Returns the names that are not looked up."""
        pairs = [entry.partition("=") for entry in self.egress_names]
        return {name.lower(): ipaddress.ip_address(address) for name, _, address in pairs}

    def limits(self) -> RunnerLimits:
        """Returns the sizes and times that hold for every run."""
        return RunnerLimits(
            boots_at_once=self.boots_at_once or max(2, os.cpu_count() or 1),
            boot_seconds=self.boot_time,
            disk_bytes=self.disk,
            pids=self.pids,
            shutdown_seconds=self.shutdown_time,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class VmProcess(ProcessSettings):
    """Settings of a process that serves vm_runner."""

    vm_runner: VmSettings
    """How microVMs are run."""
