"""Settings of vm_runner."""

import ipaddress
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path

from services.chassis.guest_kernels import kernel_cache
from services.chassis.settings import SHORTEST, PeerSettings, ProcessSettings
from services.chassis.settings_checks import check_fields, refused_by
from services.chassis.settings_tree import setting
from services.chassis.settings_values import ByteCount, Seconds
from services.core.egress.addresses import Address
from services.core.errors import SettingsInvalid
from services.vm_runner.boundary.boundary import BoundarySettings
from services.vm_runner.life.surroundings import RunnerLimits
from services.vm_runner.vmm_options import AcceleratorMode, ConfinementMode, UserRange

_AHEAD_MOST = 8
_BOOTS_MOST = 1024
_NAMES_BITS = 17
_USER_MOST = (1 << 32) - 2
_PIDS_MOST = 1 << 22
_DISK_LEAST = 16 << 20
_LOG_LEAST = 4 << 10


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


def name_network(text: str) -> ipaddress.IPv4Network:
    """Returns the network whose addresses stand for names.

    Raises:
        ValueError: it is not a network of IPv4, or too small.
    """
    names = ipaddress.IPv4Network(text)
    if names.prefixlen > _NAMES_BITS:
        raise ValueError(f"{names} is smaller than a /{_NAMES_BITS}")
    return names


def fixed_name(entry: str) -> tuple[str, Address]:
    """Returns name and address of `NAME=ADDRESS`.

    Raises:
        ValueError: it is something else.
    """
    name, _, address = entry.partition("=")
    if not name:
        raise ValueError(f"{entry!r} is not NAME=ADDRESS")
    return name.lower(), ipaddress.ip_address(address)


def host_authority(entry: str) -> tuple[str, Path]:
    """Returns host and file of `HOST=FILE`.

    Raises:
        ValueError: it is something else, or the path is not a whole one.
    """
    host, _, path = entry.partition("=")
    if not host or not path.startswith("/"):
        raise ValueError(f"{entry!r} is not HOST=FILE with a whole path")
    return host.lower(), Path(path)


@dataclass(frozen=True, slots=True, kw_only=True)
class VmSettings:
    """How microVMs are run on this node."""

    materializer: PeerSettings = field(default_factory=PeerSettings)
    """The service that owns this node's images."""

    plain_registries: tuple[str, ...] = ()
    """Registries that are spoken to without TLS: no artifact by itself publishes a port that one of
    them has. In the suite, `registry_gateway.plain_http` counts as well."""

    qemu: str = ""
    """QEMU's program. Empty: `qemu-system-` with this machine's architecture, from PATH."""

    kernel: Path | None = None
    """The guest's kernel: a file, or a folder with `boot` and `lib/modules`. None: of `kernels`,
    the one that `lns setup --kernel` chose, else the newest."""

    kernels: Path = field(metadata=setting(default_from=kernel_cache))
    """Folder with a folder for each kernel, by default `lns/kernel` in the user's cache. Its folder
    `foreign` has those of guests of another architecture."""

    agent: Path | None = None
    """The guest agent. None: the one that is shipped."""

    launcher: Path | None = None
    """The launcher that confines VMMs. None: the one that is shipped."""

    confinement: ConfinementMode = ConfinementMode.AUTO
    """`auto`: as much as the host permits, which `lns doctor` says; `required`: no run where a VMM
    cannot have namespaces and a mount view of its own."""

    vmm_user_first: int = field(default=1_900_000_000, metadata=setting(least=1, most=_USER_MOST))
    """First of the users that VMMs run as where the service is root: this plus their pid."""

    vmm_user_count: int = field(default=1 << 22, metadata=setting(least=1, most=_USER_MOST))
    """Number of those users. If it is below the kernel's `pid_max`, two VMMs may get one user."""

    cgroup: Path | None = None
    """A folder of cgroups v2 without processes, in which VMMs get theirs. None: the service's own
    group if that is delegated; for root, the top of the hierarchy."""

    accelerator: AcceleratorMode = AcceleratorMode.AUTO
    """`auto`: KVM where a guest really runs, else emulation; `kvm` or `tcg` to insist."""

    probe_time: Seconds = field(default=5.0, metadata=setting(least=SHORTEST))
    """How long a guest may take to answer when KVM is tried."""

    boot_time: Seconds = field(default=60.0, metadata=setting(least=SHORTEST))
    """How long a guest may take to answer when a run starts."""

    boots_at_once: int = field(default=0, metadata=setting(least=0, most=_BOOTS_MOST))
    """How many guests boot at the same time; further starts wait. 0: as many as this machine has
    processors, and at least two."""

    snapshot_disk: ByteCount = 4 << 30
    """What snapshots of images may take on the disk together; those used longest ago go. 0: none
    are made, and every start boots a kernel."""

    saved_disk: ByteCount = 16 << 30
    """What snapshots that users make of runs may take on the disk together. None is removed to make
    room: a further one is refused."""

    machines_ahead: int = field(default=1, metadata=setting(least=0, most=_AHEAD_MOST))
    """How many machines wait for runs like the last ones, resumed already: 0 to 8."""

    ahead_idle: Seconds = field(default=600.0, metadata=setting(least=SHORTEST))
    """How long a machine waits for a run before it is ended."""

    shutdown_time: Seconds = 10.0
    """How long a guest may take to write back after its workload ended."""

    disk: ByteCount = field(default=8 << 30, metadata=setting(least=_DISK_LEAST))
    """Size of a run's writable layer, if the plan sets no size. It is sparse."""

    disk_rate: ByteCount = field(default=0, metadata=setting(least=0))
    """Most that the disks of a run read and write together in a second, and as much for each of its
    binds, if the run sets no rate. 0: what the host's disk gives. A run with a rate takes no
    machine that waits."""

    log: ByteCount = field(default=64 << 20, metadata=setting(least=_LOG_LEAST))
    """Bytes of log that are kept of a run, if the run sets no limit."""

    pids: int = field(default=4096, metadata=setting(least=1, most=_PIDS_MOST))
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

    stall_time: Seconds = field(default=30.0, metadata=setting(least=SHORTEST))
    """How long a client that is attached may stand still before the run's output goes on without
    it."""

    egress_range: str = field(
        default="198.18.0.0/15", metadata=setting(check=refused_by(name_network))
    )
    """IPv4 network whose addresses stand for names in guests. Another one suits programs that
    refuse addresses for benchmarks; at least a /17."""

    egress_names: tuple[str, ...] = field(
        default=(), metadata=setting(check=refused_by(fixed_name))
    )
    """Names that are not looked up, as `NAME=ADDRESS`; for tests, and without a resolver."""

    egress_authorities: tuple[str, ...] = field(
        default=(), metadata=setting(check=refused_by(host_authority))
    )
    """Files with the only roots that count for a host whose TLS is looked into, as `HOST=FILE` or
    `*.HOST=FILE`: for services with a private authority. Others count the host's own roots."""

    egress_identities: tuple[str, ...] = field(
        default=(), metadata=setting(check=refused_by(host_authority))
    )
    """Files with a client certificate and its key, PEM, for a host whose TLS is looked into and
    which asks for one, as `HOST=FILE` or `*.HOST=FILE`. No guest sees them; a run's worker gets one
    with a connection to its host."""

    audit: ByteCount = field(default=64 << 20, metadata=setting(least=_LOG_LEAST))
    """Bytes of audit log that are kept of a run."""

    def __post_init__(self) -> None:
        """Checks every setting, and what depends on several.

        Raises:
            SettingsInvalid: one cannot be used, or the users of VMMs are not a range of users.
        """
        check_fields(self)
        try:
            self.vmm_users()
            self.worker_users()
        except ValueError as error:
            raise SettingsInvalid(f"`vmm_user_first`, `vmm_user_count`: {error}") from error

    def vmm_users(self) -> UserRange:
        """Returns the users of VMMs."""
        return UserRange(first=self.vmm_user_first, count=self.vmm_user_count)

    def worker_users(self) -> UserRange:
        """Returns the users of egress workers, as many as VMMs have and behind those."""
        first = self.vmm_user_first + self.vmm_user_count
        return UserRange(first=first, count=self.vmm_user_count)

    def boundary(self) -> BoundarySettings:
        """Returns what holds for what runs reach."""
        authorities = dict(map(host_authority, self.egress_authorities))
        identities = dict(map(host_authority, self.egress_identities))
        return BoundarySettings(
            names=name_network(self.egress_range), authorities=authorities, identities=identities
        )

    def fixed_names(self) -> Mapping[str, Address]:
        """Returns the names that are not looked up."""
        return dict(map(fixed_name, self.egress_names))

    def limits(self) -> RunnerLimits:
        """Returns the sizes and times that hold for every run."""
        return RunnerLimits(
            boots_at_once=self.boots_at_once or max(2, os.cpu_count() or 1),
            boot_seconds=self.boot_time,
            disk_bytes=self.disk,
            disk_rate_bytes=self.disk_rate,
            pids=self.pids,
            shutdown_seconds=self.shutdown_time,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class VmProcess(ProcessSettings):
    """Settings of a process that serves vm_runner."""

    vm_runner: VmSettings
    """How microVMs are run."""
