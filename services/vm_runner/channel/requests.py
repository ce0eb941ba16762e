"""What the host asks of a guest agent, as values to encode."""

from dataclasses import dataclass, field
from enum import IntEnum
from ipaddress import IPv4Network

from services.vm_runner.channel.mounts import GuestBind, GuestVolume, mount_field
from services.vm_runner.channel.wire import Tag, encode_fields


@dataclass(frozen=True, slots=True, kw_only=True)
class Hello:
    """What a host says first.

    Attributes:
        time_ns: the clock, nanoseconds since the epoch.
        entropy: random bytes for the guest's pool.
    """

    time_ns: int
    entropy: bytes = field(repr=False)

    def encode(self, version: int) -> bytes:
        """Returns the message."""
        return encode_fields(
            [(Tag.VERSION, version), (Tag.TIME_NS, self.time_ns), (Tag.ENTROPY, self.entropy)]
        )


def encode_clock(time_ns: int) -> bytes:
    """Returns a further hello that only sets the guest's clock, nanoseconds since the epoch."""
    return encode_fields([(Tag.TIME_NS, time_ns)])


@dataclass(frozen=True, slots=True, kw_only=True)
class GuestConfig:
    """What the agent makes of a booted machine, before the first process.

    Attributes:
        hostname: name of the machine for the workload.
        metadata_disk: serial of the disk with the composefs metadata image; empty: an empty root.
        pack_disks: serials of the object packs, in the order of the image's layers.
        no_acl: the image has no access control lists.
        writable_disk: serial of the disk of the writable layer; empty keeps it in memory.
        read_only_paths: absolute paths that the workload may not change.
        directories: absolute paths that have to be directories; made where they are missing.
        files: content of files that are laid over the image's, by path.
        volumes: further disks, and what the host serves; each before those below it.
        shm_bytes: size of /dev/shm.
        pids_max: most processes; 0 for no limit.
        memory_max: memory of the workload; 0 leaves the choice to the agent.
        steered: addresses to which the agent takes every connection over and asks about it.
        egress: addresses that stand for names; with them the agent takes every connection and every
            question about names over, and asks at its egress port.
        authority: PEM of the certificate authority that the workload's programs are to trust, too.
    """

    hostname: str
    metadata_disk: str = ""
    pack_disks: tuple[str, ...] = ()
    no_acl: bool = False
    writable_disk: str = ""
    read_only_paths: tuple[str, ...] = ()
    directories: tuple[str, ...] = ()
    files: tuple[tuple[str, bytes], ...] = ()
    volumes: tuple[GuestVolume | GuestBind, ...] = ()
    shm_bytes: int = 0
    pids_max: int = 0
    memory_max: int = 0
    steered: IPv4Network | None = None
    egress: IPv4Network | None = None
    authority: str = ""

    def encode(self) -> bytes:
        """Returns the message."""
        fields: list[tuple[Tag, bytes | str | int]] = [(Tag.HOSTNAME, self.hostname)]
        if self.metadata_disk:
            fields.append((Tag.METADATA_DISK, self.metadata_disk))
        fields += [(Tag.PACK_DISK, disk) for disk in self.pack_disks]
        fields.append((Tag.NO_ACL, int(self.no_acl)))
        if self.writable_disk:
            fields.append((Tag.WRITABLE_DISK, self.writable_disk))
        fields += [(Tag.READ_ONLY_PATH, path) for path in self.read_only_paths]
        fields += [(Tag.DIRECTORY, path) for path in self.directories]
        fields += [(Tag.FILE, path.encode() + b"\0" + content) for path, content in self.files]
        fields += [mount_field(volume) for volume in self.volumes]
        fields += [
            (Tag.SHM_BYTES, self.shm_bytes),
            (Tag.PIDS_MAX, self.pids_max),
            (Tag.MEMORY_MAX, self.memory_max),
        ]
        for tag, network in ((Tag.STEERED, self.steered), (Tag.EGRESS, self.egress)):
            if network is not None:
                fields.append((tag, int(network.network_address) << 32 | int(network.netmask)))
        if self.authority:
            fields.append((Tag.AUTHORITY, self.authority))
        return encode_fields(fields)


@dataclass(frozen=True, slots=True, kw_only=True)
class Rlimit:
    """A resource limit by the kernel's number of it (`resource.RLIMIT_NOFILE` …)."""

    resource: int
    soft: int
    hard: int


class Builtin(IntEnum):
    """What the agent itself does in a process instead of executing a program."""

    NONE = 0
    PACK = 1
    UNPACK = 2
    NOTHING = 3
    STAT = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class ProcessSpec:
    """A process for the agent to start.

    Attributes:
        argv: program and arguments; a program without a slash is looked for in PATH.
        env: environment; PATH, HOME, HOSTNAME (and TERM) are filled in by the agent.
        user: `user[:group]` by name or number; empty is root.
        workdir: absolute; for the main process it is made where it is missing.
        terminal: rows and columns of its terminal; None for pipes.
        is_main: its end ends everything else.
        stdio_stream: stream of its standard input and output.
        stderr_stream: stream of its standard error; 0 with a terminal.
        umask: of the process.
        oom_score: preference of the kernel for ending it when memory runs out.
        rlimits: resource limits.
        groups: further supplementary groups.
        builtin: done in place of a program; `argv` is then its one operand, a path.
    """

    argv: tuple[str, ...]
    env: tuple[str, ...] = ()
    user: str = ""
    workdir: str = ""
    terminal: tuple[int, int] | None = None
    is_main: bool = False
    stdio_stream: int
    stderr_stream: int = 0
    umask: int = 0o022
    oom_score: int = 0
    rlimits: tuple[Rlimit, ...] = ()
    groups: tuple[str, ...] = ()
    builtin: Builtin = Builtin.NONE

    def encode(self) -> bytes:
        """Returns the message."""
        fields: list[tuple[Tag, bytes | str | int]] = [(Tag.ARG, text) for text in self.argv]
        fields += [(Tag.ENV, text) for text in self.env]
        fields += [
            (Tag.USER, self.user),
            (Tag.WORKDIR, self.workdir or "/"),
            (Tag.TTY, int(self.terminal is not None)),
            (Tag.MAIN, int(self.is_main)),
            (Tag.STDIO_STREAM, self.stdio_stream),
            (Tag.STDERR_STREAM, self.stderr_stream),
            (Tag.UMASK, self.umask),
            (Tag.OOM_SCORE, self.oom_score),
        ]
        if self.terminal is not None:
            fields += [(Tag.ROWS, self.terminal[0]), (Tag.COLUMNS, self.terminal[1])]
        for limit in self.rlimits:
            values = (limit.resource, limit.soft, limit.hard)
            fields.append((Tag.RLIMIT, b"".join(v.to_bytes(8, "little") for v in values)))
        fields += [(Tag.GROUP, group) for group in self.groups]
        if self.builtin is not Builtin.NONE:
            fields.append((Tag.BUILTIN, int(self.builtin)))
        return encode_fields(fields)
