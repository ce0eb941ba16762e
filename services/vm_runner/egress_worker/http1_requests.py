"""Requests of HTTP/1 as they are judged, as they go on, and as they are answered here. Pure."""

from typing import Final

from services.core.egress.hosts import parse_authority
from services.core.errors import RequestInvalid
from services.vm_runner.egress_worker.heads import RequestHead
from services.vm_runner.egress_worker.judge import Asked, Denied, Permitted
from services.vm_runner.egress_worker.reports import Reason

_PHRASES: Final = {
    400: "Bad Request",
    401: "Unauthorized",
    403: "Forbidden",
    429: "Too Many Requests",
    431: "Request Header Fields Too Large",
    502: "Bad Gateway",
}
_NO_HOST: Final = b"\xff"
"""An authority that agrees with none."""
_NOT_PASSED: Final = (b"http2-settings", b"upgrade")
_H2C: Final = {b"h2c", b"h2", b"tls/1.0", b"tls/1.2"}


def asked_of(request: RequestHead, *, in_clear: bool) -> Asked:
    """Returns a request as it is judged. An absolute target names its host before `Host` does."""
    hosts = request.values(b"host")
    authority = hosts[0] if hosts else b""
    target = request.target
    is_tunnel = request.method.upper() == b"CONNECT"
    if not is_tunnel and not target.startswith(b"/") and target != b"*":
        scheme, separator, rest = target.partition(b"://")
        named, slash, path = rest.partition(b"/")
        target = slash + path or b"/"
        fits = separator and scheme.lower() == (b"http" if in_clear else b"https")
        agrees = not hosts or _same_host(named, authority, in_clear=in_clear)
        authority = named if fits and agrees else _NO_HOST
    return Asked(
        method=request.method,
        target=target,
        authority=authority,
        headers=request.headers,
        is_tunnel=is_tunnel,
        in_clear=in_clear,
    )


def _same_host(one: bytes, other: bytes, *, in_clear: bool) -> bool:
    default = 80 if in_clear else 443
    try:
        first, second = (
            parse_authority(text.decode("latin-1"), default_port=default) for text in (one, other)
        )
    except RequestInvalid:
        return False
    return first == second


def encode_answer(denied: Denied, *, closes: bool) -> bytes:
    """Returns the reply by which a request is refused."""
    lines = [
        f"HTTP/1.1 {denied.status} {_PHRASES.get(denied.status, 'Refused')}",
        "content-type: application/json",
        f"content-length: {len(denied.body)}",
        "cache-control: no-store",
        f"x-lns-reason: {denied.reason}",
    ]
    if denied.reason is Reason.BUDGET:
        lines.append("x-should-retry: false")  # clients of LLMs' APIs would try again at once
    if closes:
        lines.append("connection: close")
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + denied.body


def passed_on(request: RequestHead, permitted: Permitted) -> RequestHead:
    """Returns the head that goes on: the same unless something has to change in it."""
    first = request.first
    if request.target.startswith(b"/") and permitted.target != request.target:
        first = b" ".join((request.method, permitted.target, b"HTTP/" + request.version))
    head = request.changed(permitted.headers, first=first)
    if not request.tokens(b"upgrade") & _H2C:
        return head
    # Not agreed to: what comes behind it would be another protocol without any rules.
    left = request.tokens(b"connection") - {b"upgrade", b"http2-settings"}
    head = head.without((*_NOT_PASSED, b"connection"))
    if left:
        head = head.changed((*head.headers, (b"Connection", b", ".join(sorted(left)))))
    return head
