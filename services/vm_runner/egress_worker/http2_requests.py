"""Header blocks of HTTP/2 requests, read strictly and judged like any other request.

RFC 9113, section 8.3, and RFC 8441 for WebSockets. Pure.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from hpack import HeaderTuple, NeverIndexedHeaderTuple

from services.vm_runner.egress_worker.heads import HEADERS_MOST, Header, HeadInvalid
from services.vm_runner.egress_worker.judge import Asked, Denied, Permitted
from services.vm_runner.egress_worker.reports import Reason

_PSEUDO: Final = (b":method", b":scheme", b":authority", b":path", b":protocol")
_FORBIDDEN: Final = (
    b"connection", b"proxy-connection", b"keep-alive", b"transfer-encoding", b"upgrade",
)  # fmt: skip
_NAME_BYTES: Final = frozenset(b"!#$%&'*+-.^_`|~0123456789abcdefghijklmnopqrstuvwxyz")
_WEBSOCKET: Final = b"websocket"


@dataclass(frozen=True, slots=True)
class Block:
    """A header block of a request.

    Attributes:
        pseudo: its pseudo headers.
        headers: the others.
    """

    pseudo: dict[bytes, bytes]
    headers: tuple[Header, ...]


def read_block(decoded: Iterable[Sequence[bytes]], *, trailers: bool = False) -> Block:
    """Reads the headers of a request, or its trailers.

    Raises:
        HeadInvalid: they are malformed.
    """
    pseudo: dict[bytes, bytes] = {}
    headers: list[Header] = []
    for one in decoded:
        name, value = bytes(one[0]), bytes(one[1])
        if name.startswith(b":"):
            if trailers or headers or name in pseudo or name not in _PSEUDO:
                raise HeadInvalid("a pseudo header where none may be")
            pseudo[name] = value
        elif not name or not _NAME_BYTES.issuperset(name) or name in _FORBIDDEN:
            raise HeadInvalid("a header that HTTP/2 does not have")
        else:
            headers.append((name, value))
        if any(byte in value for byte in b"\r\n\0") or value != value.strip(b" \t"):
            raise HeadInvalid("the value of a header is not valid")
    if len(headers) > HEADERS_MOST:
        raise HeadInvalid(f"more than {HEADERS_MOST} headers")
    return Block(pseudo, tuple(headers))


def asked_of(block: Block, *, in_clear: bool) -> Asked:
    """Returns a request as it is judged.

    Raises:
        HeadInvalid: it lacks what every request has.
    """
    pseudo = block.pseudo
    method = pseudo.get(b":method", b"")
    target = pseudo.get(b":path", b"")
    hosts = [value for name, value in block.headers if name == b"host"]
    authority = pseudo.get(b":authority") or (hosts[0] if hosts else b"")
    if not method or any(host.lower() != authority.lower() for host in hosts):
        raise HeadInvalid("no method, or two hosts")
    protocol = pseudo.get(b":protocol")
    is_tunnel = method.upper() == b"CONNECT"
    if is_tunnel and protocol == _WEBSOCKET:
        is_tunnel, method = False, b"GET"
    if not is_tunnel:
        scheme = pseudo.get(b":scheme", b"").lower()
        if scheme not in ((b"http", b"ws") if in_clear else (b"https", b"wss")):
            raise HeadInvalid("another scheme than the connection's")
        if not (target.startswith(b"/") or (target == b"*" and method == b"OPTIONS")):
            raise HeadInvalid("no path")
    return Asked(
        method=method,
        target=target,
        authority=authority,
        headers=block.headers,
        is_tunnel=is_tunnel,
        is_socket=protocol == _WEBSOCKET,
        in_clear=in_clear,
    )


def encoded_request(block: Block, permitted: Permitted) -> list[HeaderTuple]:
    """Returns the headers that go on; what holds a secret enters no table."""
    pseudo = dict(block.pseudo)
    changed = pseudo.get(b":path") != permitted.target
    if b":path" in pseudo:
        pseudo[b":path"] = permitted.target
    out = [
        (NeverIndexedHeaderTuple if changed and name == b":path" else HeaderTuple)(name, value)
        for name, value in pseudo.items()
    ]
    for before, (name, value) in zip(block.headers, permitted.headers, strict=True):
        kind = HeaderTuple if before[1] == value else NeverIndexedHeaderTuple
        out.append(kind(name, value))
    return out


def answer_headers(denied: Denied) -> list[Header]:
    """Returns the headers of the reply by which a request is refused."""
    return [
        (b":status", str(denied.status).encode()),
        (b"content-type", b"application/json"),
        (b"content-length", str(len(denied.body)).encode()),
        (b"cache-control", b"no-store"),
        (b"x-lns-reason", denied.reason.encode()),
        *([(b"x-should-retry", b"false")] if denied.reason is Reason.BUDGET else []),
    ]
