"""The settings that every lns process has: state directory, server, peers, log, metrics.

A service adds its own part as one section and derives its process's tree:

    @dataclass(frozen=True, slots=True, kw_only=True)
    class GatewayProcess(ProcessSettings):
        registry_gateway: GatewaySettings = field(default_factory=GatewaySettings)

so that a file has the same shape for one service as for the suite. `services.chassis.main` loads
it.
"""

import enum
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from services.chassis.rpc_methods import rule_problems
from services.chassis.settings_checks import check_fields, refused_by
from services.chassis.settings_tree import setting
from services.chassis.settings_values import Seconds
from services.chassis.sockets import MAX_SOCKET_PATH_BYTES, content_socket
from services.core.errors import SettingsInvalid

MAX_PORT = 65535
SHORTEST = 0.001
"""The least of times that must not be nothing, in seconds."""

SECTIONS = frozenset({"registry_gateway", "resolver", "materializer", "vm_runner", "suite"})
"""Every section that some lns process has beyond the shared ones."""


def state_directory(environment: Mapping[str, str]) -> Path:
    """Returns `$LNS_HOME`, else `$XDG_STATE_HOME/lns`, else `~/.local/state/lns`, absolute."""
    if environment.get("LNS_HOME"):
        return Path(environment["LNS_HOME"]).expanduser().absolute()
    state = environment.get("XDG_STATE_HOME", "")
    # The XDG specification wants relative paths ignored.
    if state.startswith("/"):
        return Path(state) / "lns"
    home = Path(environment["HOME"]) if environment.get("HOME") else Path.home()
    return home / ".local" / "state" / "lns"


def check_address(address: str) -> None:
    """Makes sure that a process can listen at `address`.

    Raises:
        SettingsInvalid: it is neither `unix:/path` nor `host:port`.
    """
    if address.startswith("unix:"):
        check_unix_address(address)
    else:
        split_tcp_address(address)


def check_target(target: str) -> None:
    """Makes sure that a service can be called at `target`; empty stands for the suite's socket.

    Raises:
        SettingsInvalid: it is neither `unix:/path` nor `host:port` nor `dns:///name:port`.
    """
    if target:
        check_address(target.removeprefix("dns:///"))


def metrics_address_problems(listen: str) -> Iterable[str]:
    """Returns what is wrong with the address of metrics; an empty one is right."""
    return refused_by(split_tcp_address)(listen) if listen else ()


def check_unix_address(address: str) -> Path:
    """Returns the path in `unix:/path`.

    Raises:
        SettingsInvalid: it is relative, or longer than a socket's address can be.
    """
    path = address.removeprefix("unix:")
    if not path.startswith("/"):
        raise SettingsInvalid(f"`{address}` must name an absolute path: unix:/run/lns/lns.sock")
    if len(path.encode()) > MAX_SOCKET_PATH_BYTES:
        raise SettingsInvalid(
            f"`{address}` is longer than the {MAX_SOCKET_PATH_BYTES} bytes of a socket's path",
            hint="use a shorter state directory (`LNS_HOME`)",
        )
    return Path(path)


def split_tcp_address(address: str) -> tuple[str, int]:
    """Returns host and port of `host:port`; an IPv6 address stands in brackets.

    Raises:
        SettingsInvalid: it is something else.
    """
    match = re.fullmatch(r"(?:\[([0-9a-fA-F:.]+)\]|([A-Za-z0-9.-]+)):(\d{1,5})", address)
    if match is None or int(match[3]) > MAX_PORT:
        raise SettingsInvalid(f"`{address}` is not host:port")
    return match[1] or match[2], int(match[3])


class LogFormat(enum.StrEnum):
    """How log lines look; `auto` is `console` on a terminal, else `json`."""

    AUTO = "auto"
    JSON = "json"
    CONSOLE = "console"


class LogLevel(enum.StrEnum):
    """The lowest level that is written."""

    DEBUG = "debug"
    INFO = "info"
    WARNING = "warning"
    ERROR = "error"


@dataclass(frozen=True, slots=True, kw_only=True)
class LogSettings:
    """What is logged, to standard error."""

    level: LogLevel = LogLevel.INFO
    """The lowest level that is written."""

    format: LogFormat = LogFormat.AUTO
    """`json`, one object a line; `console`, for eyes; `auto`, by whether it is a terminal."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TlsSettings:
    """Files for mutual TLS, all PEM. Servers read them again when they change."""

    certificate: Path
    """The certificate chain of this process."""

    key: Path
    """Its private key."""

    authority: Path
    """The certificates that the other side's certificate must come from."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerSettings:
    """Where and how a process listens."""

    listen: tuple[str, ...] = field(default=(), metadata=setting(check=refused_by(check_address)))
    """Addresses: `unix:/path` or `host:port`. Empty: a socket in the state directory's `run`."""

    tls: TlsSettings | None = None
    """Mutual TLS for the TCP addresses."""

    revoked: Path | None = None
    """The authority's list of revoked certificates (CRL, PEM), read again when it changes. None:
    no certificate is held against one."""

    plaintext_tcp: bool = False
    """Permits TCP addresses without TLS: whoever reaches the port may do everything."""

    allow: Mapping[str, tuple[str, ...]] = field(
        default_factory=dict, metadata=setting(check=rule_problems)
    )
    """Certificate names (SAN) by method: `/lns.vm.v1.VmService/StartRun`, `/lns.vm.v1.VmService/*`
    or `*`; the most exact entry counts. The name `*` is every certificate that the authority has
    signed. A method that no entry covers nobody may call over TCP."""

    grace: Seconds = 10.0
    """How long calls may go on after SIGTERM."""

    unary_limit: Seconds = field(default=600.0, metadata=setting(least=SHORTEST))
    """The longest that a call with a single answer may take, whatever its caller asks for."""

    concurrent_calls: int = field(default=1024, metadata=setting(least=1))
    """Calls served at a time; further ones are refused with RESOURCE_EXHAUSTED."""

    reflection: bool = True
    """Whether tools such as grpcurl may ask for the service definitions."""

    def __post_init__(self) -> None:
        """Checks what the type hints cannot say.

        Raises:
            SettingsInvalid: an address is malformed, TCP would be open without TLS, a rule names no
                method, or there is no rule by which anybody could call over TCP.
        """
        check_fields(self)
        address = next((one for one in self.listen if not one.startswith("unix:")), "")
        if not address:
            return
        if self.tls is None and not self.plaintext_tcp:
            raise SettingsInvalid(
                f"`{address}` would be open to anyone: give `tls`, or set `plaintext_tcp`"
            )
        if self.tls is None and self.allow:
            raise SettingsInvalid(
                "`allow` names certificates, and callers over plain text have none: give `tls`"
            )
        if self.tls is not None and not self.allow:
            raise SettingsInvalid(
                f'nobody could call at `{address}`: give `allow`, as {{"*": ["*"]}} for every'
                " certificate of the authority"
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class PeerSettings:
    """How another lns service is reached."""

    target: str = field(default="", metadata=setting(check=refused_by(check_target)))
    """`unix:/path`, `host:port` or `dns:///name:port`. Empty: the suite's socket."""

    tls: TlsSettings | None = None
    """Mutual TLS towards it; needed for TCP unless it listens in plain text."""

    timeout: Seconds = field(default=30.0, metadata=setting(least=SHORTEST))
    """The deadline of calls with a single answer that set none themselves."""

    stream_timeout: Seconds = field(default=86400.0, metadata=setting(least=SHORTEST))
    """The deadline of calls with a stream of answers that set none themselves."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MetricsSettings:
    """Where Prometheus finds the metrics of a process."""

    listen: str = field(default="", metadata=setting(check=metrics_address_problems))
    """`host:port` of a plain HTTP endpoint `/metrics`. Empty: none."""

    def __post_init__(self) -> None:
        """Raises SettingsInvalid if the address is malformed."""
        check_fields(self)


@dataclass(frozen=True, slots=True, kw_only=True)
class ProcessSettings:
    """What every process has; the services in it add a section each."""

    home: Path = field(metadata=setting(variable="LNS_HOME", default_from=state_directory))
    """The state directory."""

    server: ServerSettings = field(default_factory=ServerSettings)
    """Where and how it listens."""

    log: LogSettings = field(default_factory=LogSettings)
    """What it logs."""

    metrics: MetricsSettings = field(default_factory=MetricsSettings)
    """Where its metrics are."""


def content_target(home: Path) -> str:
    """Returns where gateway, resolver and materializer are in the suite of `home`."""
    return f"unix:{content_socket(home)}"
