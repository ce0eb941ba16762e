"""Which proxy a registry is reached through, by settings and the usual variables.

The rules of `NO_PROXY` are those that curl and Go have in common: names match themselves and what
is below them, with or without a leading dot; addresses match themselves and by network (CIDR); a
port may follow; `*` is everything. This machine is never reached through a proxy.
"""

import ipaddress
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final
from urllib.parse import unquote, urlsplit

from services.core.errors import SettingsInvalid
from services.registry_gateway.adapters.transport.origin import Origin

DIRECT: Final = "direct"
_SCHEMES: Final = ("http", "https")


@dataclass(frozen=True, slots=True)
class Proxy:
    """One proxy.

    Attributes:
        url: without a login.
        login: `user:password`, decoded; empty for none.
    """

    url: str
    login: str = field(default="", repr=False)

    @classmethod
    def parse(cls, text: str) -> "Proxy":
        """Parses `http://[user:password@]host:port`; without a scheme it is HTTP.

        Raises:
            SettingsInvalid: it is no such address.
        """
        try:
            parts = urlsplit(text if "://" in text else f"http://{text}")
            port, host = parts.port, parts.hostname
        except ValueError as error:
            raise SettingsInvalid("the address of the proxy cannot be read") from error
        if parts.scheme not in _SCHEMES or not host:
            raise SettingsInvalid(
                f"a proxy cannot be {parts.scheme[:20]}://{(host or '')[:100]}",
                hint="write http://[user:password@]host:port or https://…",
            )
        shown = f"[{host}]" if ":" in host else host
        place = f"{shown}:{port or {'http': 80, 'https': 443}[parts.scheme]}"
        user, password = unquote(parts.username or ""), unquote(parts.password or "")
        return cls(f"{parts.scheme}://{place}", f"{user}:{password}" if user else "")


@dataclass(frozen=True, slots=True, kw_only=True)
class Proxies:
    """Chooses.

    Attributes:
        by_host: a proxy, or `direct`, for single registries (`host` or `host:port`); wins.
        http: for registries without TLS; empty for none.
        https: for registries with TLS.
        exceptions: who is reached directly, as `NO_PROXY` lists them.
    """

    by_host: Mapping[str, str] = field(default_factory=dict)
    http: str = ""
    https: str = ""
    exceptions: Sequence[str] = ()

    def of(self, origin: Origin) -> Proxy | None:
        """Returns the proxy for an origin, or None where it is reached directly.

        Raises:
            SettingsInvalid: the proxy that is named cannot be one.
        """
        chosen = self.by_host.get(origin.authority) or self.by_host.get(origin.host)
        if chosen is None:
            if origin.is_loopback or self._is_excepted(origin):
                return None
            chosen = self.https if origin.scheme == "https" else self.http
        return None if chosen in ("", DIRECT) else Proxy.parse(chosen)

    def _is_excepted(self, origin: Origin) -> bool:
        return any(_matches(entry.strip().lower(), origin) for entry in self.exceptions)


def _matches(entry: str, origin: Origin) -> bool:
    if entry == "*":
        return True
    network = _network(entry)
    host, port = (entry, None) if network is not None else _split(entry)
    if port is not None and port != origin.port:
        return False
    network = network or _network(host)
    if network is not None:
        try:
            return ipaddress.ip_address(origin.host) in network
        except ValueError:
            return False
    name = host.removeprefix("*").strip(".")
    here = origin.host.rstrip(".")
    return bool(name) and (here == name or here.endswith(f".{name}"))


def _split(entry: str) -> tuple[str, int | None]:
    host, colon, port = entry.rpartition(":")
    if colon and port.isascii() and port.isdigit():
        return host.strip("[]"), int(port)
    return entry.strip("[]"), None


def _network(text: str) -> ipaddress.IPv4Network | ipaddress.IPv6Network | None:
    try:
        return ipaddress.ip_network(text, strict=False)
    except ValueError:
        return None
