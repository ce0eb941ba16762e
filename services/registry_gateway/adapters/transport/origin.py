"""Origins: what a credential, a connection and a token belong to (RFC 6454)."""

from dataclasses import dataclass
from typing import Final, Self
from urllib.parse import SplitResult, urljoin, urlsplit

from services.core.errors import RegistryProtocol
from services.core.reference import DEFAULT_REGISTRY, is_loopback_host

_PORTS: Final = {"http": 80, "https": 443}
_HUB_API: Final = "registry-1.docker.io"
_MAX_URL_CHARACTERS: Final = 16 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class Origin:
    """Scheme, host and port; `host` of an IPv6 address is without brackets."""

    scheme: str
    host: str
    port: int

    @classmethod
    def of_url(cls, url: str) -> Self:
        """Returns the origin of an absolute URL that a server named.

        Raises:
            RegistryProtocol: it is not an http or https URL, or holds a user name.
        """
        parts, port = _split(url)
        if parts.scheme not in _PORTS or not parts.hostname or "@" in parts.netloc:
            raise RegistryProtocol(f"{url[:200]!r} is not a web address")
        return cls(scheme=parts.scheme, host=parts.hostname, port=port or _PORTS[parts.scheme])

    @property
    def is_loopback(self) -> bool:
        """Whether it is this machine."""
        return is_loopback_host(f"[{self.host}]" if ":" in self.host else self.host)

    @property
    def authority(self) -> str:
        """`host` or `host:port`, as references and credential stores write it."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == _PORTS[self.scheme] else f"{host}:{self.port}"

    def __str__(self) -> str:
        return f"{self.scheme}://{self.authority}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Locator:
    """Says where the registry of a reference's host is spoken to.

    Loopback hosts but those of `loopback_tls`, and hosts of `plain_http`, speak HTTP, all others
    HTTPS. Docker Hub's API is at a host of another name.
    """

    plain_http: frozenset[str] = frozenset()
    loopback_tls: frozenset[str] = frozenset()

    def origin(self, host: str) -> Origin:
        """Returns the origin of a registry host, `host` or `host:port`."""
        plain = host in self.plain_http or (
            is_loopback_host(host) and host not in self.loopback_tls
        )
        name = _HUB_API if host == DEFAULT_REGISTRY else host
        return Origin.of_url(f"{'http' if plain else 'https'}://{name}")

    def host(self, origin: Origin) -> str:
        """Returns the registry host of an origin: the inverse of `origin`."""
        return DEFAULT_REGISTRY if origin.host == _HUB_API else origin.authority


def check_target(origin: Origin, url: str) -> str:
    """Returns a URL that `origin` sends us to, if it may; its address is judged on connecting.

    Raises:
        RegistryProtocol: it is no web address, or is less protected than `origin`.
    """
    target = Origin.of_url(url)
    if target.scheme != "https" and origin.scheme == "https":
        raise RegistryProtocol(f"{origin} sends us to an unprotected address, {target}")
    return url


def resolve_url(base: str, target: str) -> str:
    """Returns what a server at `base` means by `target`, absolute or relative.

    Raises:
        RegistryProtocol: it is no web address.
    """
    try:
        return urljoin(base, target)
    except ValueError as error:
        raise RegistryProtocol(f"{target[:200]!r} is not a web address: {error}") from error


def _split(url: str) -> tuple[SplitResult, int | None]:
    if len(url) > _MAX_URL_CHARACTERS or any(ord(c) <= ord(" ") or c == "\x7f" for c in url):
        raise RegistryProtocol(f"{url[:200]!r} is not a web address")
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as error:
        raise RegistryProtocol(f"{url[:200]!r} is not a web address: {error}") from error
    return parts, port
