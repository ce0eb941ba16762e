"""Names and connections of the host, each with a deadline."""

import asyncio
import ipaddress
import socket
from collections.abc import Mapping

from services.chassis.blocking import Blocking
from services.core.egress.addresses import Address, unmapped
from services.vm_runner.boundary.ports import HostUnreachable

_ADDRESSES_MOST = 16


class HostNetwork:
    """The host's resolver and its sockets.

    Args:
        blocking: threads for the resolver, which may hang; a full one makes names wait.
        names: addresses that are answered for names instead of looking them up.
        resolve_seconds: for a name.
        dial_seconds: for a connection.
    """

    def __init__(
        self,
        *,
        blocking: Blocking,
        names: Mapping[str, Address],
        resolve_seconds: float = 10.0,
        dial_seconds: float = 10.0,
    ) -> None:
        self._blocking = blocking
        self._names = names
        self._resolve_seconds = resolve_seconds
        self._dial_seconds = dial_seconds

    async def resolve(self, name: str) -> tuple[Address, ...]:
        """Looks a name up, once; the final dot keeps search domains out."""
        if name in self._names:
            return (self._names[name],)
        looking = asyncio.ensure_future(self._blocking.run(_look_up, name))
        done, _ = await asyncio.wait({looking}, timeout=self._resolve_seconds)
        if not done:
            # Its thread cannot be stopped; the caller goes on without it.
            looking.add_done_callback(lambda late: late.cancelled() or late.exception())
            raise HostUnreachable(f"{name}: no answer about its addresses in time")
        return looking.result()

    async def dial(self, address: Address, port: int) -> socket.socket:
        """Connects."""
        family = socket.AF_INET if address.version == 4 else socket.AF_INET6  # noqa: PLR2004 - IPv4
        connection = socket.socket(family, socket.SOCK_STREAM)
        connection.setblocking(False)
        try:
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            async with asyncio.timeout(self._dial_seconds):
                await asyncio.get_running_loop().sock_connect(connection, (str(address), port))
        except TimeoutError:
            connection.close()
            raise HostUnreachable(f"{address} port {port}: no answer in time") from None
        except OSError as error:
            connection.close()
            raise HostUnreachable(f"{address} port {port}: {error.strerror or error}") from error
        except BaseException:
            connection.close()
            raise
        return connection


def _look_up(name: str) -> tuple[Address, ...]:
    try:
        found = socket.getaddrinfo(f"{name}.", None, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        raise HostUnreachable(f"{name}: {getattr(error, 'strerror', None) or error}") from error
    addresses = [
        unmapped(ipaddress.ip_address(str(entry[4][0]).partition("%")[0])) for entry in found
    ]
    return tuple(dict.fromkeys(addresses))[:_ADDRESSES_MOST]
