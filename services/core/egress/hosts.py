"""Hosts as they are compared: one form for every spelling of a name or an address."""

import re
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

import idna

from services.core.egress.addresses import Address, looks_like_address, parse_address
from services.core.errors import RequestInvalid

PAGE_HOST: Final = "lns.internal"
"""The host that answers with the pages of a run."""
MACHINE_HOST: Final = "host.lns.internal"
"""The host that stands for the loopback of the machine that a run is on."""

_NAME_MOST: Final = 253
_PORT_MOST: Final = 0xFFFF
_NAME = re.compile(r"(?!\.)(?:(?:^|\.)[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?)+\Z", re.ASCII)


class HostKind(StrEnum):
    """What a host is."""

    NAME = "name"
    ADDRESS = "address"
    PAGE = "page"
    MACHINE = "machine"
    INTERNAL = "internal"


@dataclass(frozen=True, slots=True)
class Host:
    """A host in its one form.

    Attributes:
        name: lower case, ASCII (A-labels), without a final dot; empty for an address.
        address: or None for a name.
    """

    name: str = ""
    address: Address | None = None

    @property
    def kind(self) -> HostKind:
        """What it is; names below `lns.internal` but those two are `INTERNAL`."""
        if self.address is not None:
            return HostKind.ADDRESS
        if self.name in (PAGE_HOST, MACHINE_HOST):
            return HostKind.PAGE if self.name == PAGE_HOST else HostKind.MACHINE
        return HostKind.INTERNAL if self.name.endswith(f".{PAGE_HOST}") else HostKind.NAME

    def __str__(self) -> str:
        return self.name if self.address is None else str(self.address)


def parse_host(text: str) -> Host:
    """Returns the host that a text spells.

    Names are mapped as browsers do (UTS 46), so that `BÜCHER.example.` is
    `xn--bcher-kva.example`, and a look-alike of another alphabet is another name.

    Raises:
        RequestInvalid: it is no name of a host, or an address that no program agrees on.
    """
    address = parse_address(text)
    if address is not None:
        return Host(address=address)
    name = ascii_name(text)
    address = parse_address(name)  # fullwidth digits have become ordinary ones
    if address is not None:
        return Host(address=address)
    if looks_like_address(name):
        raise _invalid(text)
    return Host(name=name)


def ascii_name(text: str) -> str:
    """Returns a name in lower case and ASCII, without its final dot.

    Raises:
        RequestInvalid: it is no name of a host.
    """
    name = text
    if not name.isascii():
        try:
            name = idna.encode(text, uts46=True, std3_rules=False).decode("ascii")
        except (idna.IDNAError, UnicodeError, IndexError) as error:
            raise _invalid(text) from error
    name = name.removesuffix(".").lower()
    if len(name) > _NAME_MOST or not _NAME.match(name):
        raise _invalid(text)
    return name


def parse_authority(text: str, *, default_port: int) -> tuple[Host, int]:
    """Returns host and port of an authority, as `Host` and `:authority` have it.

    Raises:
        RequestInvalid: it is no host; also with user information before it.
    """
    if text.startswith("["):
        host, bracket, rest = text.partition("]")
        if not bracket or (rest and not rest.startswith(":")):
            raise _invalid(text)
        host, port = host + "]", rest[1:]
    else:
        host, _, port = text.partition(":")
    if not port:
        return parse_host(host), default_port
    if not (port.isascii() and port.isdigit() and 0 < int(port[:6]) <= _PORT_MOST):
        raise _invalid(text)
    return parse_host(host), int(port)


def is_below(name: str, pattern: str) -> bool:
    """Returns whether a name is `pattern`, or below the host of a pattern `*.host`."""
    if pattern.startswith("*."):
        return name.endswith(pattern[1:]) and len(name) > len(pattern) - 1
    return name == pattern


def _invalid(text: str) -> RequestInvalid:
    return RequestInvalid(
        f"{text[:100]!r} is no host",
        hint="write a name such as api.example.com, or an address such as 192.0.2.1",
    )
