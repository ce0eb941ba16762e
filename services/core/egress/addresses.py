"""Addresses: every spelling of one, and the ranges that no name may lead into by itself.

The ranges are those of the IANA registries of special-purpose addresses, and the places where
clouds keep a machine's metadata. An address that carries another one (NAT64, 6to4, Teredo, ISATAP)
is judged by both; NAT64's well-known prefix has no judgement of its own, since behind it the whole
internet is reached so. An IPv4-mapped address is the IPv4 address.
"""

import ipaddress
import re
from collections.abc import Iterator
from typing import Final, NamedTuple

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network


class SpecialRange(NamedTuple):
    """A range of addresses that is refused unless a rule names it."""

    network: Network
    what: str


def _ranges(what: str, *networks: str) -> list[SpecialRange]:
    return [SpecialRange(ipaddress.ip_network(network), what) for network in networks]


SPECIAL_RANGES: Final = tuple(
    sorted(
        [
            *_ranges(
                "a cloud's metadata",
                "169.254.169.254/32", "169.254.170.2/32", "169.254.170.23/32", "100.100.100.200/32",
                "192.0.0.192/32", "168.63.129.16/32", "fd00:ec2::254/128", "fd00:ec2::23/128",
                "fd20:ce::254/128", "fe80::a9fe:a9fe/128",
            ),
            *_ranges("loopback", "127.0.0.0/8", "::1/128"),
            *_ranges("private", "10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "fc00::/7",
                     "fec0::/10"),
            *_ranges("link-local", "169.254.0.0/16", "fe80::/10"),
            *_ranges("carrier-grade NAT", "100.64.0.0/10"),
            *_ranges("multicast", "224.0.0.0/4", "ff00::/8"),
            *_ranges("unspecified", "0.0.0.0/8", "::/128"),
            *_ranges("reserved", "192.0.0.0/24", "240.0.0.0/4", "255.255.255.255/32", "100::/64",
                     "5f00::/16", "2001::/23"),
            *_ranges("for benchmarks", "198.18.0.0/15", "2001:2::/48"),
            *_ranges("for documentation", "192.0.2.0/24", "198.51.100.0/24", "203.0.113.0/24",
                     "2001:db8::/32", "3fff::/20"),
            *_ranges("a relay to another address", "192.88.99.0/24", "64:ff9b:1::/48", "2001::/32",
                     "2002::/16", "::/96", "::ffff:0:0:0/96"),
        ],
        key=lambda special: -special.network.prefixlen,
    )
)  # fmt: skip
"""Narrow ranges first, so that the first that holds an address is the one that is closest to it."""

_LOW_32: Final = (
    ipaddress.IPv6Network("::/96"),
    ipaddress.IPv6Network("::ffff:0:0:0/96"),
    ipaddress.IPv6Network("64:ff9b::/96"),
)
_TO_4: Final = ipaddress.IPv6Network("2002::/16")
_TEREDO: Final = ipaddress.IPv6Network("2001::/32")
_ISATAP: Final = (0x0000_5EFE, 0x0200_5EFE)
_MASK_32: Final = 0xFFFF_FFFF
_PARTS_MOST: Final = 4
_NUMBER = re.compile(r"(?:0x[0-9a-f]*|[0-9]+)\Z", re.ASCII | re.IGNORECASE)


def parse_address(text: str) -> Address | None:
    """Returns the address that a text spells, in any of the ways that programs take for one.

    Those are the ordinary ones, IPv6 in brackets, and the ways of `inet_aton`: fewer than four
    parts, octal and hexadecimal numbers. IPv4 in a mapped IPv6 address is IPv4. A zone makes it
    none. `None` also for a name.
    """
    if text.startswith("[") and text.endswith("]"):
        text = text[1:-1]
        if ":" not in text:
            return None
    if ":" in text:
        if "%" in text:
            return None
        try:
            return unmapped(ipaddress.IPv6Address(text))
        except ValueError:
            return None
    return _parse_numbers(text)


def looks_like_address(text: str) -> bool:
    """Returns whether a text is an address or a failed one: its last label is a number."""
    return ":" in text or bool(_NUMBER.match(text.rstrip(".").rpartition(".")[2]))


def address_of_bytes(data: bytes) -> Address:
    """Returns the address in 16 bytes; a mapped one is IPv4.

    Raises:
        ValueError: the length is not 16.
    """
    if len(data) != 16:  # noqa: PLR2004 - of IPv6
        raise ValueError("an address has 16 bytes")
    return unmapped(ipaddress.IPv6Address(data))


def unmapped(address: Address) -> Address:
    """Returns the IPv4 address of an IPv4-mapped one, and every other as it is."""
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return mapped or address


def iter_carried(address: Address) -> Iterator[Address]:
    """Yields an address and those that it carries, to which a gateway may send what it gets."""
    yield address
    if not isinstance(address, ipaddress.IPv6Address):
        return
    number = int(address)
    if any(address in network for network in _LOW_32):
        yield ipaddress.IPv4Address(number & _MASK_32)
    if address in _TO_4:
        yield ipaddress.IPv4Address(number >> 80 & _MASK_32)
    if address in _TEREDO:
        yield ipaddress.IPv4Address(number >> 64 & _MASK_32)
        yield ipaddress.IPv4Address(~number & _MASK_32)
    if number >> 32 & _MASK_32 in _ISATAP:
        yield ipaddress.IPv4Address(number & _MASK_32)


def special_range(address: Address) -> SpecialRange | None:
    """Returns the closest special range that an address is in, itself."""
    return next((special for special in SPECIAL_RANGES if address in special.network), None)


def is_named_by(network: Network, special: SpecialRange) -> bool:
    """Returns whether a rule's range names a special one: it lies within it.

    So `0.0.0.0/0` names no private network, and `169.254.0.0/16` not the metadata in it.
    """
    return (
        network.version == special.network.version
        and network.prefixlen >= special.network.prefixlen
        and network.network_address in special.network
    )


def _parse_numbers(text: str) -> Address | None:
    """Reads IPv4 as `inet_aton` does: `127.1`, `0x7f.1`, `017700000001`, `2130706433`."""
    parts = text.removesuffix(".").split(".")
    if not 1 <= len(parts) <= _PARTS_MOST:
        return None
    numbers = [_number(part) for part in parts]
    *firsts, last = numbers
    if last is None or last >= 1 << 8 * (_PARTS_MOST + 1 - len(parts)):
        return None
    value = last
    for place, number in enumerate(firsts):
        if number is None or number > 0xFF:  # noqa: PLR2004 - a byte
            return None
        value |= number << 8 * (_PARTS_MOST - 1 - place)
    return ipaddress.IPv4Address(value)


def _number(text: str) -> int | None:
    if not _NUMBER.match(text) or len(text) > 16:  # noqa: PLR2004 - more is no 32-bit number
        return None
    if text[:2].lower() == "0x":
        return int(text[2:] or "0", 16)
    if text[0] != "0" or text == "0":
        return int(text)
    try:
        return int(text, 8)
    except ValueError:
        return None
