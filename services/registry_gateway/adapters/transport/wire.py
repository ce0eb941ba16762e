"""Connections whose socket another thread can cut, to stop who waits for the network."""

import contextlib
import os
import socket
import threading
from typing import Any, ClassVar

import urllib3
from urllib3.connection import HTTPConnection, HTTPSConnection


class Wire:
    """The socket that a thread talks through, for cutting it from another thread."""

    current: ClassVar[threading.local] = threading.local()

    def __init__(self) -> None:
        self._socket: socket.socket | None = None
        self._guard = threading.Lock()

    def hold(self, wire: socket.socket) -> None:
        """Takes the socket that is talked through; the first counts."""
        with self._guard:
            if self._socket is None:
                # A duplicate: shutting a TLS socket's own object down from another thread would
                # pull its session from under the reader.
                self._socket = socket.socket(fileno=os.dup(wire.fileno()))

    def cut(self) -> None:
        """Ends the connection: whoever reads or writes fails at once."""
        with self._guard:
            if self._socket is not None:
                with contextlib.suppress(OSError):
                    self._socket.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """Lets go of the socket, which stays as it is."""
        with self._guard:
            if self._socket is not None:
                self._socket.close()
                self._socket = None


class _PlainConnection(HTTPConnection):
    """Shows its socket to the wire of the thread before it sends."""

    def send(self, data: Any) -> None:
        _show_socket(self)
        super().send(data)


class _TlsConnection(HTTPSConnection):
    """Shows its socket to the wire of the thread before it sends."""

    def send(self, data: Any) -> None:
        _show_socket(self)
        super().send(data)


class PlainPool(urllib3.HTTPConnectionPool):
    """Connections without TLS."""

    ConnectionCls = _PlainConnection


class TlsPool(urllib3.HTTPSConnectionPool):
    """Connections with TLS."""

    ConnectionCls = _TlsConnection


def _show_socket(connection: HTTPConnection) -> None:
    if connection.sock is None:
        connection.connect()
    wire: Wire | None = getattr(Wire.current, "wire", None)
    if wire is not None and connection.sock is not None:
        wire.hold(connection.sock)
