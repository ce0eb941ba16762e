"""Where an address is: what a server on the Internet must never send lns to.

Ranges are those of the IANA special-purpose registries (RFC 6890), as `ipaddress` knows them, with
the addresses of cloud metadata services that lie outside of link-local ranges. An IPv4 address
inside an IPv6 one counts: mapped, compatible and translated forms (RFC 4291, RFC 2765), NAT64
(RFC 6052, RFC 8215), 6to4 (RFC 3056) and Teredo (RFC 4380).
"""

import ipaddress
import socket
from collections.abc import Iterator
from enum import Enum
from typing import Final

from services.core.reference import is_loopback_host

_Address = ipaddress.IPv4Address | ipaddress.IPv6Address

_METADATA: Final = frozenset(
    map(
        ipaddress.ip_address,
        ("168.63.129.16", "100.100.100.200", "192.0.0.192", "fd00:ec2::254"),
    )
)
_LAST_32_BITS: Final = tuple(
    map(ipaddress.IPv6Network, ("::/96", "::ffff:0:0/96", "::ffff:0:0:0/96", "64:ff9b::/96"))
)
_LOCAL_NAT64: Final = ipaddress.IPv6Network("64:ff9b:1::/48")
_THIS_NETWORK: Final = ipaddress.IPv4Network("0.0.0.0/8")
_CARRIERS: Final = (
    *_LAST_32_BITS,
    ipaddress.IPv6Network("2002::/16"),
    ipaddress.IPv6Network("2001::/32"),
)
_NOWHERE: Final = frozenset(map(ipaddress.IPv6Address, ("::", "::1")))


class Zone(Enum):
    """How near an address is to this machine."""

    PUBLIC = "public"
    PRIVATE = "private"
    """A network of one's own: RFC 1918, unique local, shared (CGNAT) and the like."""
    LINK = "link-local"
    """The link, where cloud metadata lives; also multicast and reserved addresses."""
    MACHINE = "this machine"
    """Loopback and unspecified addresses."""


_SEVERITY: Final = (Zone.MACHINE, Zone.LINK, Zone.PRIVATE)
_MAY_SEND_TO: Final = {
    Zone.PUBLIC: frozenset({Zone.PUBLIC}),
    Zone.PRIVATE: frozenset({Zone.PUBLIC, Zone.PRIVATE}),
    Zone.LINK: frozenset({Zone.PUBLIC, Zone.PRIVATE, Zone.LINK}),
    Zone.MACHINE: frozenset({Zone.PUBLIC, Zone.PRIVATE, Zone.MACHINE}),
}


def zone_of(address: str) -> Zone:
    """Returns the zone of a numeric address, with or without a scope (`fe80::1%eth0`).

    Raises:
        ValueError: it is no numeric address in its standard form.
    """
    zones = {_zone(one) for one in _forms(ipaddress.ip_address(address.partition("%")[0]))}
    return next((zone for zone in _SEVERITY if zone in zones), Zone.PUBLIC)


def zone_of_name(host: str) -> Zone:
    """Returns what the name of a host says by itself; a name that is looked up says `PUBLIC`.

    For requests through a proxy, which looks names up where lns cannot see it. Every spelling of a
    number that the C library takes counts: `127.1`, `2130706433`, `0x7f.0.0.1`.
    """
    if is_loopback_host(f"[{host}]" if ":" in host else host):
        return Zone.MACHINE
    try:
        return zone_of(host)
    except ValueError:
        pass
    try:
        return zone_of(socket.inet_ntoa(socket.inet_aton(host)))
    except (OSError, ValueError):
        return Zone.PUBLIC


def may_send_to(sender: Zone, target: Zone) -> bool:
    """Says whether a server in one zone may name an address in another.

    None may send us nearer to this machine than it is itself: a public one to public addresses
    only, a private one also to private ones, one of this machine also to this machine. Only one
    that is link-local itself may send us to link-local addresses.
    """
    return target in _MAY_SEND_TO[sender]


def _forms(address: _Address) -> Iterator[_Address]:
    """Yields the address and the IPv4 addresses that it may carry."""
    yield address
    if isinstance(address, ipaddress.IPv4Address) or address in _NOWHERE:
        return
    if any(address in network for network in (*_LAST_32_BITS, _LOCAL_NAT64)):
        yield ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
    if address in _LOCAL_NAT64:  # its prefix may be /48, /56 or /64: byte 8 is left out (RFC 6052)
        for prefix in (48, 56, 64):
            yield _rfc6052(int(address), prefix)
    if address.sixtofour is not None:
        yield address.sixtofour
    if address.teredo is not None:
        yield from address.teredo


def _rfc6052(bits: int, prefix: int) -> ipaddress.IPv4Address:
    """Returns the IPv4 address after a prefix of 48, 56 or 64 bits; bits 64 to 71 are skipped."""
    text = f"{bits:0128b}"
    rest = (text[prefix:64] + text[72:])[:32]
    return ipaddress.IPv4Address(int(rest, 2))


def _zone(address: _Address) -> Zone:
    if address.is_loopback or address.is_unspecified:
        return Zone.MACHINE
    if isinstance(address, ipaddress.IPv4Address) and address in _THIS_NETWORK:
        return Zone.MACHINE
    if address.is_link_local or address in _METADATA or address.is_multicast:
        return Zone.LINK
    if address.is_global and not address.is_private and not _is_site_local(address):
        return Zone.PUBLIC
    carried = isinstance(address, ipaddress.IPv6Address) and _is_carrier(address)
    return Zone.PUBLIC if carried else Zone.PRIVATE


def _is_site_local(address: _Address) -> bool:
    return isinstance(address, ipaddress.IPv6Address) and address.is_site_local


def _is_carrier(address: ipaddress.IPv6Address) -> bool:
    """Whether only the IPv4 address inside says where it is."""
    return any(address in network for network in _CARRIERS)
