"""What a guest agent tells the host, as values that were read and bounded."""

from dataclasses import dataclass
from enum import IntEnum
from ipaddress import IPv4Address, IPv6Address

from services.vm_runner.channel.wire import Fields, GuestViolation, Tag

_ADDRESS_BYTES = 16
_NAME_BYTES = 253
_PORT_MAX = 0xFFFF
_COUNT_MAX = 2**31 - 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Welcome:
    """The agent's answer to a hello.

    Attributes:
        version: of the protocol that it speaks.
        agent: its own version.
        configured: whether it was configured before.
        highest_id: the highest id of a process or stream that it has seen.
        boot_ns: nanoseconds since the guest's kernel started, when: it started, its modules were
            loaded, its port was open.
    """

    version: int
    agent: str
    configured: bool
    highest_id: int
    boot_ns: tuple[int, ...]

    @classmethod
    def parse(cls, fields: Fields) -> "Welcome":
        """Reads the message."""
        return cls(
            version=fields.number(Tag.VERSION),
            agent=fields.text(Tag.AGENT),
            configured=bool(fields.number(Tag.CONFIGURED)),
            highest_id=min(fields.number(Tag.HIGHEST_ID), 0xFFFF_0000),
            boot_ns=fields.numbers(Tag.BOOT_NS),
        )


@dataclass(frozen=True, slots=True)
class Ready:
    """The agent's state was sent completely."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Configured:
    """The machine is configured, or could not be.

    Attributes:
        errno: 0 for success.
        stage: what failed.
        text: how.
    """

    errno: int
    stage: str
    text: str

    @classmethod
    def parse(cls, fields: Fields) -> "Configured":
        """Reads the message."""
        return cls(
            errno=fields.number(Tag.ERRNO), stage=fields.text(Tag.STAGE), text=fields.text(Tag.TEXT)
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Prepared(Configured):
    """The disks of an image are mounted, or could not be."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Frozen(Configured):
    """No process of the workload executes any more, or it goes on."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Renewed(Configured):
    """The machine is another run's, whose workload goes on; or could not become that."""


@dataclass(frozen=True, slots=True)
class Cleared:
    """A rehearsal is forgotten."""


class ProcessPhase(IntEnum):
    """How a process stands."""

    RUNNING = 1
    EXITED = 2
    FAILED = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class ProcessState:
    """How a process stands.

    Attributes:
        process_id: the host's id of it.
        phase: what the other fields are about.
        exit_code: where it exited.
        signal: number of the signal that ended it, else 0.
        oom_killed: whether the memory limit ended it.
        oom_kills: of how many processes it has done so since the boot; 0 while this one runs.
        stage: where it failed to start: `exec`, `user`, `working directory` …
        errno: why.
        text: why, for users.
    """

    process_id: int
    phase: ProcessPhase
    exit_code: int = 0
    signal: int = 0
    oom_killed: bool = False
    oom_kills: int = 0
    stage: str = ""
    errno: int = 0
    text: str = ""

    @classmethod
    def parse(cls, process_id: int, fields: Fields) -> "ProcessState":
        """Reads the message."""
        try:
            phase = ProcessPhase(fields.number(Tag.STATE))
        except ValueError:
            raise GuestViolation("the guest sent an unknown process state") from None
        return cls(
            process_id=process_id,
            phase=phase,
            exit_code=fields.number(Tag.EXIT_CODE) & 0xFF,
            signal=fields.number(Tag.SIGNAL) & 0x7F,
            oom_killed=bool(fields.number(Tag.OOM_KILLED)),
            oom_kills=_count(fields.number(Tag.OOM_KILLS)),
            stage=fields.text(Tag.STAGE),
            errno=fields.number(Tag.ERRNO) & 0xFFFF,
            text=fields.text(Tag.TEXT),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Connected:
    """A connection to a port of the guest stands, or failed with `errno`."""

    stream_id: int
    errno: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Opening:
    """A program of the guest wants a connection, to an address or to a name.

    Attributes:
        ticket: under which it is admitted or refused.
        address: to which, one of the steered ones in an honest guest; None where it is a name.
        name: to which, as the program asked for it in small letters; the guest's word, at most 253
            printable characters of ASCII.
        port: may be 0.
    """

    ticket: int
    address: IPv4Address | IPv6Address | None
    name: str = ""
    port: int

    @classmethod
    def parse(cls, ticket: int, fields: Fields) -> "Opening":
        """Reads the message."""
        port, name = fields.number(Tag.PORT), fields.octets(Tag.NAME)
        if port > _PORT_MAX:
            raise GuestViolation("the guest asked for a connection to no port")
        if name:
            return cls(ticket=ticket, address=None, name=_name(name), port=port)
        address = fields.octets(Tag.ADDRESS)
        if len(address) != _ADDRESS_BYTES:
            raise GuestViolation("the guest asked for a connection to no address")
        whole = IPv6Address(address)
        return cls(ticket=ticket, address=whole.ipv4_mapped or whole, port=port)


@dataclass(frozen=True, slots=True)
class Wanted:
    """A program of the guest wants a connection, and nobody is at the egress port."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamData:
    """Bytes of a stream, each position exactly once and in order; `ended` with the last."""

    stream_id: int
    data: bytes
    ended: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamRefused:
    """The guest takes no more of a stream's input."""

    stream_id: int


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamWritable:
    """A stream's buffer has room again, or all of it was taken."""

    stream_id: int


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamReset:
    """The guest gave a stream up."""

    stream_id: int


@dataclass(frozen=True, slots=True, kw_only=True)
class GuestStats:
    """What the workload uses inside the guest."""

    memory_bytes: int
    pids: int
    cpu_ns: int
    disk_bytes: int
    oom_kills: int

    @classmethod
    def parse(cls, fields: Fields) -> "GuestStats":
        """Reads the message."""
        return cls(
            memory_bytes=fields.number(Tag.MEMORY_BYTES),
            pids=fields.number(Tag.PIDS),
            cpu_ns=fields.number(Tag.CPU_NS),
            disk_bytes=fields.number(Tag.DISK_BYTES),
            oom_kills=_count(fields.number(Tag.OOM_KILLS)),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Notice:
    """A line of the agent for users."""

    text: str


@dataclass(frozen=True, slots=True)
class Goodbye:
    """Everything is written back; the machine powers off."""


def _name(data: bytes) -> str:
    if len(data) > _NAME_BYTES or not data.isascii() or not data.decode("ascii").isprintable():
        raise GuestViolation("the guest asked for a connection to no name")
    return data.decode("ascii")


def _count(number: int) -> int:
    return min(number, _COUNT_MAX)


GuestEvent = (
    Welcome
    | Ready
    | Configured
    | Prepared
    | Cleared
    | Frozen
    | Renewed
    | ProcessState
    | Connected
    | Opening
    | Wanted
    | StreamData
    | StreamRefused
    | StreamWritable
    | StreamReset
    | GuestStats
    | Notice
    | Goodbye
)
