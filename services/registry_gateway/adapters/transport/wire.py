"""Connections that know where they lead, and whose socket another thread can cut."""

import contextlib
import os
import socket
import struct
import threading
from collections.abc import Callable
from typing import Any, ClassVar, Final

import urllib3
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.exceptions import NameResolutionError

_MOST_ADDRESSES: Final = 4
"""Addresses of one name that are tried, each for as long as a connection may take."""
_TCP_INFO_BYTES: Final = 136
_ACKNOWLEDGED_AND_RECEIVED: Final = struct.Struct("=QQ")
_AT: Final = 120
"""Where `tcpi_bytes_acked` and `tcpi_bytes_received` are in Linux's `struct tcp_info`."""


class Wire:
    """The socket that a thread talks through, for judging and cutting it."""

    current: ClassVar[threading.local] = threading.local()

    def __init__(self, judge: Callable[[str], None] = lambda _: None) -> None:
        """Holds no socket yet.

        Args:
            judge: is shown the numeric address before a connection to it is made or used again;
                raises what forbids it.
        """
        self.judge = judge
        self.peer = ""
        """The numeric address at the other end."""
        self._socket: socket.socket | None = None
        self._guard = threading.Lock()
        self._is_cut = False
        self._before = 0

    def hold(self, wire: socket.socket) -> None:
        """Takes the socket that is talked through; the first counts."""
        with self._guard:
            if self._socket is None:
                # A duplicate: shutting a TLS socket's own object down from another thread would
                # pull its session from under the reader.
                self._socket = socket.socket(fileno=os.dup(wire.fileno()))
                self.peer = _peer_of(self._socket)
                self._before = _moved(self._socket)
                if self._is_cut:
                    self._shut(self._socket)

    def cut(self) -> None:
        """Ends the connection: whoever reads or writes fails at once."""
        with self._guard:
            self._is_cut = True
            if self._socket is not None:
                self._shut(self._socket)

    def moved(self) -> int:
        """Returns how many bytes crossed the connection since it was taken, both directions."""
        with self._guard:
            return _moved(self._socket) - self._before if self._socket is not None else 0

    def close(self) -> None:
        """Lets go of the socket, which stays as it is."""
        with self._guard:
            if self._socket is not None:
                self._socket.close()
                self._socket = None

    @staticmethod
    def _shut(wire: socket.socket) -> None:
        with contextlib.suppress(OSError):
            wire.shutdown(socket.SHUT_RDWR)


class _Guided(HTTPConnection):
    """Shows each address to the wire of the thread before it connects, and its socket after."""

    def _new_conn(self) -> socket.socket:
        wire = _current()
        if wire is None:
            return super()._new_conn()
        if self.proxy is not None:  # who looks the name up is the proxy
            made = super()._new_conn()
            wire.hold(made)
            return made
        name = self._dns_host
        addresses = self._addresses(name)
        for number, address in enumerate(addresses):
            wire.judge(address)
            self._dns_host = address
            try:
                made = super()._new_conn()
            except (OSError, urllib3.exceptions.HTTPError):
                if number + 1 == len(addresses):
                    raise
            else:
                wire.hold(made)
                return made
            finally:
                self._dns_host = name
        raise AssertionError("unreachable: a name has at least one address")

    def _addresses(self, name: str) -> list[str]:
        try:
            found = socket.getaddrinfo(name.strip("[]"), self.port, type=socket.SOCK_STREAM)
        except socket.gaierror as error:
            raise NameResolutionError(self.host, self, error) from error
        except UnicodeError as error:
            unknown = socket.gaierror(socket.EAI_NONAME, "it is not a name")
            raise NameResolutionError(self.host, self, unknown) from error
        return list(dict.fromkeys(str(entry[4][0]) for entry in found))[:_MOST_ADDRESSES]


class _PlainConnection(_Guided):
    def send(self, data: Any) -> None:
        _show_socket(self)
        super().send(data)


class _TlsConnection(_Guided, HTTPSConnection):
    def send(self, data: Any) -> None:
        _show_socket(self)
        super().send(data)


class PlainPool(urllib3.HTTPConnectionPool):
    """Connections without TLS."""

    ConnectionCls = _PlainConnection


class TlsPool(urllib3.HTTPSConnectionPool):
    """Connections with TLS."""

    ConnectionCls = _TlsConnection


def _current() -> Wire | None:
    wire: Wire | None = getattr(Wire.current, "wire", None)
    return wire


def _show_socket(connection: HTTPConnection) -> None:
    if connection.sock is None:
        connection.connect()
    wire = _current()
    if wire is not None and connection.sock is not None:
        wire.hold(connection.sock)
        if connection.proxy is None:  # a connection that was kept may lead where we must not go
            wire.judge(wire.peer)


def _peer_of(wire: socket.socket) -> str:
    try:
        return str(wire.getpeername()[0])
    except OSError:  # it is broken already: the next read says so
        return ""


def _moved(wire: socket.socket) -> int:
    """Returns what the kernel has counted, or 0 where it does not."""
    try:
        raw = wire.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _TCP_INFO_BYTES)
    except OSError:
        return 0
    return (
        sum(_ACKNOWLEDGED_AND_RECEIVED.unpack_from(raw, _AT)) if len(raw) >= _TCP_INFO_BYTES else 0
    )
