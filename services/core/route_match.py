"""What a route of a policy matches: names, wildcards and address ranges, each with a port or any.

    api.example.com         that name
    *.example.com           every name below it, at any depth, not the name itself
    192.0.2.0/24, 192.0.2.1 addresses; IPv6 ranges too: 2001:db8::/32
    name:443, *.name:443    only that port; an IPv6 range with a port is written in brackets:
                            [2001:db8::/32]:443

Names are compared without case and without a final dot, and in ASCII (`bücher.example` is
`xn--bcher-kva.example`); IPv4 in mapped IPv6 is IPv4. A range matches connections to an address,
never a name that happens to have such an address.
"""

import ipaddress
import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Final, Self

from services.core.egress.addresses import looks_like_address
from services.core.egress.hosts import ascii_name
from services.core.errors import RequestInvalid

Network = ipaddress.IPv4Network | ipaddress.IPv6Network

_MAX_PORT: Final = 65535
_MAPPED: Final = ipaddress.IPv6Network("::ffff:0:0/96")
_PORT = re.compile(r"[0-9]{1,5}\Z", re.ASCII)


@dataclass(frozen=True, slots=True, kw_only=True)
class RouteMatch:
    """What one route matches.

    Attributes:
        name: a lower-case name without final dot, or empty where `network` is given.
        is_wildcard: whether `name` stands for every name below it.
        network: a range of addresses, or None.
        port: the port, or None for any.
    """

    name: str = ""
    is_wildcard: bool = False
    network: Network | None = None
    port: int | None = None

    @classmethod
    def parse(cls, text: str) -> Self:
        """Parses the `match` of a route.

        Raises:
            RequestInvalid: it is no pattern; the message says what one looks like.
        """
        host, port = _split_port(text)
        network = _parse_network(host)
        if network is not None:
            return cls(network=network, port=port)
        is_wildcard = host.startswith("*.")
        try:
            name = ascii_name(host[2:] if is_wildcard else host)
        except RequestInvalid:
            raise _invalid(text) from None
        if looks_like_address(name):
            raise _invalid(text)
        return cls(name=name, is_wildcard=is_wildcard, port=port)

    def matches(self, host: str, port: int) -> bool:
        """Says whether a connection to a name or an address in text form is matched."""
        if self.port not in (None, port):
            return False
        address = _parse_address(host)
        if address is not None:
            return self.network is not None and address in self.network
        name = normalize_name(host)
        return self.network is None and (
            name.endswith(f".{self.name}") if self.is_wildcard else name == self.name
        )

    def intersect(self, other: "RouteMatch") -> "RouteMatch | None":
        """Returns what both match, or None if no connection is matched by both."""
        if None not in (self.port, other.port) and self.port != other.port:
            return None
        port = other.port if self.port is None else self.port
        if self.network is not None or other.network is not None:
            network = _narrower(self.network, other.network)
            return RouteMatch(network=network, port=port) if network is not None else None
        for one, two in ((self, other), (other, self)):
            if _is_within(one, two):
                return RouteMatch(name=one.name, is_wildcard=one.is_wildcard, port=port)
        return None

    def __str__(self) -> str:
        if self.network is not None:
            alone = self.network.num_addresses == 1
            host = str(self.network.network_address) if alone else str(self.network)
            if self.port is not None and self.network.version == 6:  # noqa: PLR2004 - IPv6
                host = f"[{host}]"
        else:
            host = f"*.{self.name}" if self.is_wildcard else self.name
        return host if self.port is None else f"{host}:{self.port}"


def normalize_name(name: str) -> str:
    """Returns a host name as it is compared: lower case, without the final dot."""
    return name.removesuffix(".").lower()


def path_matches(pattern: str, path: str) -> bool:
    """Says whether the path of a request fits the pattern of a rule.

    `**` is any number of segments, also none; `*` is one segment or a part of one. The query is not
    part of the path. Takes time in proportion to both lengths multiplied, whatever the pattern.
    """
    return match_segments(pattern, path, _fits)


def match_segments(pattern: str, path: str, fits: Callable[[str, str], bool]) -> bool:
    """Says whether the segments of a path fit those of a pattern, one by one or by `**`.

    Args:
        pattern: segments between slashes; `**` is any number of segments.
        path: likewise.
        fits: says of a segment of the pattern, which is not `**`, and one of the path whether they
            fit.
    """
    segments = path.split("/")
    reachable = {0}
    for part in pattern.split("/"):
        if part == "**":
            reachable = set(range(min(reachable), len(segments) + 1))
        else:
            reachable = {
                index + 1
                for index in reachable
                if index < len(segments) and fits(part, segments[index])
            }
        if not reachable:
            return False
    return len(segments) in reachable


def _fits(part: str, segment: str) -> bool:
    """Matches one segment against a part in which `*` stands for any characters."""
    first, *rest = part.split("*")
    if not rest:
        return part == segment
    *middle, last = rest
    position, end = len(first), len(segment) - len(last)
    if position > end or not segment.startswith(first) or not segment.endswith(last):
        return False
    for piece in middle:
        found = segment.find(piece, position, end)
        if found < 0:
            return False
        position = found + len(piece)
    return True


def _is_within(one: RouteMatch, two: RouteMatch) -> bool:
    """Says whether every name that `one` matches is matched by `two`, ports aside."""
    if not two.is_wildcard:
        return not one.is_wildcard and one.name == two.name
    return one.name.endswith(f".{two.name}") or (one.is_wildcard and one.name == two.name)


def _split_port(text: str) -> tuple[str, int | None]:
    if text.startswith("["):
        host, bracket, rest = text[1:].partition("]")
        if not bracket or (rest and not rest.startswith(":")) or ":" not in host:
            raise _invalid(text)
        port = rest[1:] if rest else None
    elif text.count(":") > 1:
        host, port = text, None
    else:
        host, colon, rest = text.partition(":")
        port = rest if colon else None
    if port is not None and not (_PORT.match(port) and 0 < int(port) <= _MAX_PORT):
        raise _invalid(text)
    return host, int(port) if port is not None else None


def _parse_network(host: str) -> Network | None:
    if "%" in host:
        return None
    try:
        network = ipaddress.ip_network(host)
    except ValueError:
        return None
    if isinstance(network, ipaddress.IPv6Network) and network.subnet_of(_MAPPED):
        address = network.network_address.ipv4_mapped
        return ipaddress.IPv4Network((address, network.prefixlen - _MAPPED.prefixlen))
    return network


@lru_cache(maxsize=4096)
def _parse_address(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        address = ipaddress.ip_address(host.removeprefix("[").removesuffix("]").partition("%")[0])
    except ValueError:
        return None
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return mapped or address


def _narrower(one: Network | None, two: Network | None) -> Network | None:
    """Returns the smaller of two networks if it lies within the other."""
    if one is None or two is None or one.version != two.version:
        return None
    small, large = (one, two) if one.prefixlen >= two.prefixlen else (two, one)
    return small if small.network_address in large else None


def _invalid(text: str) -> RequestInvalid:
    return RequestInvalid(
        f"{text[:100]!r} is no host, *.host or address range, with or without a port",
        hint="write api.example.com, *.example.com, 192.0.2.0/24, or one of them with :443",
    )
