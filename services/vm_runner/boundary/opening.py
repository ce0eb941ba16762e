"""From an allowed host to a connection: looked up once, each address judged, then dialled."""

import ipaddress
import socket
from dataclasses import dataclass

from services.core.egress.addresses import Address
from services.core.egress.decisions import Decision, Policies
from services.core.egress.hosts import Host, HostKind
from services.vm_runner.boundary.ports import HostUnreachable, Network

_TRIED_MOST = 4
_MACHINE = (ipaddress.ip_address("127.0.0.1"), ipaddress.ip_address("::1"))


@dataclass(frozen=True, slots=True)
class Dialled:
    """A connection that stands, and the address at its other end."""

    connection: socket.socket
    address: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Refused:
    """A connection that was not made.

    Attributes:
        reason: for a user.
        decision: that refused an address; None if the address did not answer.
        address: that was refused or did not answer.
    """

    reason: str
    decision: Decision | None = None
    address: str = ""


async def open_connection(
    host: Host, port: int, *, policies: Policies, network: Network
) -> Dialled | Refused:
    """Connects to an allowed host, at an address that nothing speaks against."""
    try:
        addresses = await _addresses(host, network)
    except HostUnreachable as error:
        return Refused(reason=str(error))
    refused: Refused | None = None
    for address in addresses[:_TRIED_MOST]:
        refusal = None
        if host.kind is HostKind.NAME:
            refusal = policies.check_address(address, port, name=str(host))
        if refusal is not None:
            refused = Refused(reason=refusal.text, decision=refusal, address=str(address))
            continue
        try:
            return Dialled(await network.dial(address, port), str(address))
        except HostUnreachable as error:
            refused = Refused(reason=str(error), address=str(address))
    return refused or Refused(reason=f"{host} has no address")


async def _addresses(host: Host, network: Network) -> tuple[Address, ...]:
    if host.address is not None:
        return (host.address,)
    if host.kind is HostKind.MACHINE:
        return _MACHINE
    return await network.resolve(str(host))
