"""Runs that belong together: which reaches which, by what name and address. Pure.

In a guest each peer has an address of 127.77.1.0/24, which `/etc/hosts` has by its name. The agent
takes TCP connections to the whole range over and asks; what an address stands for is decided here,
by the group that the host recorded, never by what a guest says it is.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Address

from services.core.errors import RequestInvalid

PEER_NETWORK = IPv4Network("127.77.0.0/16")
"""What guests' agents take over; the kernel has all of 127.0.0.0/8 for the machine's own."""

MEMBERS_MAX = 64
"""Runs of a group."""

_FIRST_PEER = 257  # 127.77.1.1; the addresses before are the agent's own
_ID = re.compile(r"[0-9a-f]{32}")
_MEMBER = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")


@dataclass(frozen=True, slots=True, kw_only=True)
class Group:
    """A group as each of its runs records it.

    Attributes:
        group_id: of this group and no other.
        name: unique among the runs and groups of the node; empty before the node has chosen one.
        members: names of all of them.
    """

    group_id: str
    name: str = ""
    members: tuple[str, ...]


def check(group: Group, member: str) -> None:
    """Checks a group that a client describes, and that `member` is one of it.

    Raises:
        RequestInvalid: a value cannot be used.
    """
    if not _ID.fullmatch(group.group_id):
        raise RequestInvalid("`group.id` is not 32 hexadecimal digits")
    if not 0 < len(group.members) <= MEMBERS_MAX:
        raise RequestInvalid(f"a group has between 1 and {MEMBERS_MAX} members")
    for name in group.members:
        if not _MEMBER.fullmatch(name):
            raise RequestInvalid(f"{name[:200]!r} cannot be the name of a group's member")
    if len(set(group.members)) < len(group.members):
        raise RequestInvalid("two members of the group have one name")
    if member not in group.members:
        raise RequestInvalid(f"{member[:200]!r} is no member of the group")


def addresses(group: Group) -> Iterator[tuple[str, IPv4Address]]:
    """Yields each member with the address that stands for it in the guests of the group."""
    for number, name in enumerate(group.members):
        yield name, PEER_NETWORK[_FIRST_PEER + number]


def member_at(group: Group, address: IPv4Address | IPv6Address | None) -> str | None:
    """Returns the member that an address stands for, None for one that stands for nobody."""
    return next((name for name, of_it in addresses(group) if of_it == address), None)


def host_lines(group: Group, member: str) -> tuple[str, ...]:
    """Returns the lines of `/etc/hosts` for the peers of a member."""
    return tuple(f"{of_it}\t{name}" for name, of_it in addresses(group) if name != member)
