"""From a run to what the guest agent is sent: its machine and its workload. Pure."""

import resource
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from services.vm_runner.architectures import Architecture
from services.vm_runner.boundary.boundary import (
    EGRESS_PORT,
    BoundarySettings,
    resolver_address,
)
from services.vm_runner.channel.mounts import GuestBind, GuestVolume
from services.vm_runner.channel.requests import GuestConfig, ProcessSpec, Rlimit
from services.vm_runner.machines import Disk, MachineSpec
from services.vm_runner.ports import Image
from services.vm_runner.records import groups
from services.vm_runner.records.run_log import LogStream
from services.vm_runner.records.runs import ExecRequest, Run, TerminalSize
from services.vm_runner.snapshots.snapshot import Root
from services.vm_runner.storage.binds import bind_ports
from services.vm_runner.storage.volumes import guest_volumes

MAIN_PROCESS = 1
METADATA_SERIAL = "meta"
WRITABLE_SERIAL = "writable"
_NAME_BYTES = 64
_MIB = 1 << 20
_DEFAULT_TERMINAL = TerminalSize(rows=24, columns=80)
_OPEN_FILES = 1 << 20


def image_disks(image: Image) -> tuple[Disk, ...]:
    """Returns the disks of an image: its metadata and its object packs."""
    packs = tuple(
        Disk(serial=f"pack{number}", path=path, read_only=True)
        for number, path in enumerate(image.pack_paths)
    )
    return (Disk(serial=METADATA_SERIAL, path=image.metadata_path, read_only=True), *packs)


def machine_spec(
    run: Run,
    image: Image | None,
    *,
    directory: Path,
    volumes: tuple[Disk, ...],
    default_disk: int,
    default_rate: int = 0,
    architecture: Architecture | None = None,
) -> MachineSpec:
    """Returns the machine of a run.

    Args:
        run: the run.
        image: its image.
        directory: of the run.
        volumes: disks of its named volumes.
        default_disk: bytes of a writable layer whose size the plan leaves open.
        default_rate: bytes a second of its disks where the run sets none; 0 is no limit.
        architecture: of its guest; None is the host's own.
    """
    resources = run.plan.resources
    writable = Disk(
        serial=WRITABLE_SERIAL,
        path=directory / "writable.img",
        read_only=False,
        size_bytes=resources.disk_mib * _MIB or default_disk,
    )
    return MachineSpec(
        run_id=run.run_id,
        directory=directory,
        vcpus=resources.vcpus,
        cpu_millis=resources.cpu_millis,
        memory_mib=resources.memory_mib,
        disks=(*(image_disks(image) if image else ()), *volumes, writable),
        ports=(*bind_ports(run), EGRESS_PORT),
        disk_rate=run.options.disk_rate_bytes or default_rate,
        architecture=architecture,
    )


def guest_root(run: Run, image: Image | None, boundary: BoundarySettings) -> Root:
    """Returns what a run's guest has, and has mounted, before anything of the run is known to it.

    Its egress process is there: what names stand for is the node's choice, not the run's.
    """
    disks = image_disks(image) if image else ()
    return Root(
        image_digest=run.image_digest,
        config=_root_config(image, boundary),
        writable_disk=WRITABLE_SERIAL,
        disks=tuple(disk.path for disk in disks),
    )


def _root_config(image: Image | None, boundary: BoundarySettings) -> GuestConfig:
    return GuestConfig(
        hostname="",
        metadata_disk=METADATA_SERIAL if image else "",
        pack_disks=tuple(f"pack{n}" for n in range(len(image.pack_paths))) if image else (),
        no_acl=image is not None and not image.has_acl,
        read_only_paths=image.read_only_paths if image else (),
        egress=boundary.names,
    )


def hostname(run: Run) -> str:
    """Returns the name of a run's machine: by which its group knows it, or the run's."""
    if run.group is not None:
        return run.plan.member
    text = "".join(c if c.isalnum() and c.isascii() else "-" for c in run.name.lower())
    return text.strip("-")[:_NAME_BYTES].rstrip("-") or run.run_id[:12]


def guest_config(
    run: Run,
    image: Image | None,
    *,
    binds: tuple[GuestBind, ...],
    pids_limit: int,
    boundary: BoundarySettings,
    authority: str = "",
) -> GuestConfig:
    """Returns the machine as the agent assembles it."""
    name = hostname(run)
    return replace(
        _root_config(image, boundary),
        hostname=name,
        writable_disk=WRITABLE_SERIAL,
        directories=run.plan.image_volumes,
        files=(
            ("/etc/hosts", _hosts(run, name)),
            ("/etc/hostname", f"{name}\n".encode()),
            ("/etc/machine-id", f"{run.run_id}\n".encode()),  # machine-id(5): 32 hex digits
            ("/etc/resolv.conf", f"nameserver {resolver_address(boundary)}\n".encode()),
        ),
        # One below another comes later, whatever it was named first.
        volumes=tuple(sorted((*guest_volumes(run), *binds), key=_depth)),
        pids_max=run.options.pids_limit or pids_limit,
        steered=groups.PEER_NETWORK if run.group is not None else None,
        authority=authority,
    )


def _depth(mount: GuestVolume | GuestBind) -> int:
    return mount.target.rstrip("/").count("/")


def _hosts(run: Run, name: str) -> bytes:
    lines = (
        f"127.0.0.1\tlocalhost {name}",
        "::1\tlocalhost ip6-localhost ip6-loopback",
        *(groups.host_lines(run.group, run.plan.member) if run.group is not None else ()),
    )
    return ("\n".join(lines) + "\n").encode()


def exec_process(
    run: Run,
    request: ExecRequest,
    *,
    stdio_stream: int,
    stderr_stream: int,
    terminal: TerminalSize | None,
) -> ProcessSpec:
    """Returns a process beside the workload; what it does not say is as the workload's."""
    size = terminal or _DEFAULT_TERMINAL
    env = dict(run.plan.env) | dict(request.env)
    return replace(
        workload(run),
        argv=request.argv,
        env=tuple(f"{name}={value}" for name, value in env.items()),
        user=request.user or run.plan.user,
        workdir=request.workdir or run.plan.workdir,
        terminal=(size.rows, size.columns) if request.tty else None,
        is_main=False,
        stdio_stream=stdio_stream,
        stderr_stream=stderr_stream,
    )


def with_environment(spec: ProcessSpec, environment: Mapping[str, str]) -> ProcessSpec:
    """Returns a process with variables that it gets unless it sets them itself."""
    known = {entry.partition("=")[0] for entry in spec.env}
    more = (f"{name}={value}" for name, value in environment.items() if name not in known)
    return replace(spec, env=(*spec.env, *more))


def workload(run: Run) -> ProcessSpec:
    """Returns the workload of a run as the agent starts it."""
    terminal = run.options.terminal or _DEFAULT_TERMINAL
    return ProcessSpec(
        argv=run.plan.argv,
        env=tuple(f"{name}={value}" for name, value in run.plan.env),
        user=run.plan.user,
        workdir=run.plan.workdir,
        terminal=(terminal.rows, terminal.columns) if run.options.tty else None,
        is_main=True,
        stdio_stream=LogStream.STDOUT,
        stderr_stream=0 if run.options.tty else LogStream.STDERR,
        rlimits=(Rlimit(resource=resource.RLIMIT_NOFILE, soft=_OPEN_FILES, hard=_OPEN_FILES),),
    )
