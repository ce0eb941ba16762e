"""Reads the first message of a TLS client: the name that it wants, and the protocols.

RFC 8446, section 4.1.2, and RFC 6066, section 3. Pure. The message may come in several records and
in pieces of any size; what has to be passed on is kept by the caller.
"""

from dataclasses import dataclass
from typing import Final

HELLO_MOST: Final = 64 * 1024
"""Bytes of a ClientHello, records included, that are waited for."""

_HANDSHAKE: Final = 22
_CLIENT_HELLO: Final = 1
_RECORD_HEADER: Final = 5
_RECORD_MOST: Final = 16384
_SERVER_NAME, _ALPN = 0, 16
_HOST_NAME = 0


class NotTls(Exception):
    """The bytes are no ClientHello."""


@dataclass(frozen=True, slots=True)
class ClientHello:
    """What a client says first.

    Attributes:
        server_name: as it stands there; empty without one.
        protocols: by ALPN, in its order.
    """

    server_name: str = ""
    protocols: tuple[bytes, ...] = ()


def may_be_hello(data: bytes) -> bool:
    """Returns whether bytes begin like TLS: a handshake record of any version 3.x."""
    return data[:1] == b"\x16" and data[1:2] in (b"", b"\x03")


def read_client_hello(data: bytes) -> ClientHello | None:
    """Returns the ClientHello that bytes begin with, None while more are needed.

    Raises:
        NotTls: they begin with none.
    """
    message = _first_message(data)
    if message is None:
        if len(data) > HELLO_MOST:
            raise NotTls("a ClientHello without end")
        return None
    return _parse(_Reader(message))


def _first_message(data: bytes) -> bytes | None:
    """Joins records until the first handshake message is whole."""
    joined = b""
    at = 0
    while True:
        if data[at : at + 1] and data[at] != _HANDSHAKE:
            raise NotTls("no handshake record")
        if data[at + 1 : at + 2] and data[at + 1] != 3:  # noqa: PLR2004 - major version of TLS
            raise NotTls("no version of TLS")
        if len(data) - at < _RECORD_HEADER:
            return None
        length = int.from_bytes(data[at + 3 : at + 5], "big")
        if not 0 < length <= _RECORD_MOST:
            raise NotTls("a record of no possible length")
        joined += data[at + _RECORD_HEADER : at + _RECORD_HEADER + length]
        at += _RECORD_HEADER + length
        if joined and joined[0] != _CLIENT_HELLO:
            raise NotTls("another message than a ClientHello comes first")
        whole = 4 + int.from_bytes(joined[1:4], "big") if len(joined) >= 4 else None  # noqa: PLR2004 - header of a message
        if whole is not None and whole > HELLO_MOST:
            raise NotTls("a ClientHello of no possible length")
        if whole is not None and len(joined) >= whole:
            return joined[4:whole]
        if at > len(data):
            return None


def _parse(message: "_Reader") -> ClientHello:
    message.take(2 + 32)  # version, random
    message.vector(1)  # session id
    message.vector(2)  # cipher suites
    message.vector(1)  # compression methods
    if message.is_empty:
        return ClientHello()
    extensions = _Reader(message.vector(2))
    found: dict[int, bytes] = {}
    while not extensions.is_empty:
        kind = extensions.number(2)
        content = extensions.vector(2)
        if kind in found:
            raise NotTls("an extension twice")
        found[kind] = content
    return ClientHello(
        server_name=_server_name(found.get(_SERVER_NAME)), protocols=_protocols(found.get(_ALPN))
    )


def _server_name(content: bytes | None) -> str:
    if content is None:
        return ""
    names = _Reader(_Reader(content).vector(2))
    found = [name for kind, name in iter(lambda: _entry(names), None) if kind == _HOST_NAME]
    if len(found) != 1:
        raise NotTls("not one server name")
    try:
        return found[0].decode("ascii")
    except UnicodeDecodeError:
        raise NotTls("a server name that is no ASCII") from None


def _entry(names: "_Reader") -> tuple[int, bytes] | None:
    return None if names.is_empty else (names.number(1), names.vector(2))


def _protocols(content: bytes | None) -> tuple[bytes, ...]:
    if content is None:
        return ()
    listed = _Reader(_Reader(content).vector(2))
    found = []
    while not listed.is_empty:
        found.append(listed.vector(1))
    return tuple(found)


class _Reader:
    """Takes bytes from the front."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    @property
    def is_empty(self) -> bool:
        return self._at == len(self._data)

    def take(self, size: int) -> bytes:
        if size > len(self._data) - self._at:
            raise NotTls("a ClientHello that ends too early")
        self._at += size
        return self._data[self._at - size : self._at]

    def number(self, size: int) -> int:
        return int.from_bytes(self.take(size), "big")

    def vector(self, size: int) -> bytes:
        return self.take(self.number(size))
