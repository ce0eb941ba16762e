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
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from services.chassis.settings_tree import setting
from services.chassis.settings_values import Seconds
from services.chassis.sockets import MAX_SOCKET_PATH_BYTES, content_socket
from services.core.errors import SettingsInvalid

MAX_PORT = 65535
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

    listen: tuple[str, ...] = ()
    """Addresses: `unix:/path` or `host:port`. Empty: a socket in the state directory's `run`."""

    tls: TlsSettings | None = None
    """Mutual TLS for the TCP addresses."""

    plaintext_tcp: bool = False
    """Permits TCP addresses without TLS: whoever reaches the port may do everything."""

    allow: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """Certificate names (SAN) by method: `/lns.vm.v1.VmService/StartRun`, `/lns.vm.v1.VmService/*`
    or `*`. A method that no entry covers may be called with every certificate that the authority
    has signed."""

    grace: Seconds = 10.0
    """How long calls may go on after SIGTERM."""

    unary_limit: Seconds = 600.0
    """The longest that a call with a single answer may take, whatever its caller asks for."""

    concurrent_calls: int = 1024
    """Calls served at a time; further ones are refused with RESOURCE_EXHAUSTED."""

    reflection: bool = True
    """Whether tools such as grpcurl may ask for the service definitions."""

    def __post_init__(self) -> None:
        """Checks what the type hints cannot say.

        Raises:
            SettingsInvalid: an address is malformed, or TCP would be open without TLS.
        """
        for address in self.listen:
            if address.startswith("unix:"):
                check_unix_address(address)
                continue
            split_tcp_address(address)
            if self.tls is None and not self.plaintext_tcp:
                raise SettingsInvalid(
                    f"`{address}` would be open to anyone: give `tls`, or set `plaintext_tcp`"
                )
        if self.concurrent_calls < 1:
            raise SettingsInvalid("`concurrent_calls` must be at least 1")


@dataclass(frozen=True, slots=True, kw_only=True)
class PeerSettings:
    """How another lns service is reached."""

    target: str = ""
    """`unix:/path`, `host:port` or `dns:///name:port`. Empty: the suite's socket."""

    tls: TlsSettings | None = None
    """Mutual TLS towards it; needed for TCP unless it listens in plain text."""

    timeout: Seconds = 30.0
    """The deadline of calls with a single answer that set none themselves."""

    stream_timeout: Seconds = 86400.0
    """The deadline of calls with a stream of answers that set none themselves."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MetricsSettings:
    """Where Prometheus finds the metrics of a process."""

    listen: str = ""
    """`host:port` of a plain HTTP endpoint `/metrics`. Empty: none."""

    def __post_init__(self) -> None:
        """Raises SettingsInvalid if the address is malformed."""
        if self.listen:
            split_tcp_address(self.listen)


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
