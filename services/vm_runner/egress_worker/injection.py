"""Puts secrets in the places of their placeholders, in exactly the places that injections name.

Pure. A header that carries something else than the placeholder is left as it is.
"""

import base64
import binascii
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final
from urllib.parse import quote

from services.core.integrations.definitions import InjectionKind
from services.vm_runner.egress_worker.heads import Header
from services.vm_runner.egress_worker.orders import Injection

_SCHEME = re.compile(rb"([!#$%&'*+.^_`|~0-9A-Za-z-]+)([ \t]+)(.*)\Z", re.DOTALL)
_USABLE = re.compile(r"[\x20-\x7e\x80-\U0010ffff]+\Z")
_AUTHORIZATION: Final = b"authorization"


@dataclass(frozen=True, slots=True, kw_only=True)
class Injected:
    """A request with its secrets in place.

    Attributes:
        target: with what `uri_placeholder` replaced.
        headers: in their order.
        credentials: that were put in, each once.
    """

    target: bytes
    headers: tuple[Header, ...]
    credentials: tuple[str, ...]


def is_usable(secret: str) -> bool:
    """Returns whether a secret can stand in a header: it is one line, and not empty."""
    return bool(_USABLE.match(secret))


def wanted(injections: Sequence[Injection], target: bytes, headers: Sequence[Header]) -> list[str]:
    """Returns the credentials whose placeholders stand in their places."""
    found: dict[str, None] = {}

    def note(injection: Injection) -> bytes:
        found[injection.credential] = None
        return injection.placeholder.encode()

    _apply(injections, target, headers, note)
    return list(found)


def inject(
    injections: Sequence[Injection],
    target: bytes,
    headers: Sequence[Header],
    secrets: Mapping[str, str],
) -> Injected:
    """Returns a request with the secrets that are known in their places."""
    used: dict[str, None] = {}

    def secret(injection: Injection) -> bytes:
        value = secrets.get(injection.credential)
        if value is None:
            return injection.placeholder.encode()
        used[injection.credential] = None
        return value.encode()

    new_target, new_headers = _apply(injections, target, headers, secret)
    return Injected(target=new_target, headers=new_headers, credentials=tuple(used))


def _apply(
    injections: Sequence[Injection],
    target: bytes,
    headers: Sequence[Header],
    value_of: Callable[[Injection], bytes],
) -> tuple[bytes, tuple[Header, ...]]:
    changed = []
    for name, value in headers:
        new = value
        for injection in injections:
            new = _in_header(injection, name.lower(), new, value_of)
            if new is not value:
                break
        changed.append((name, new))
    for injection in injections:
        placeholder = injection.placeholder.encode()
        if injection.kind is InjectionKind.URI and placeholder in target:
            target = target.replace(placeholder, quote(value_of(injection), safe="").encode())
    return target, tuple(changed)


def _in_header(
    injection: Injection, name: bytes, value: bytes, value_of: Callable[[Injection], bytes]
) -> bytes:
    """Returns the header's value, the same object if nothing is to be replaced in it."""
    placeholder = injection.placeholder.encode()
    match injection.kind:
        case InjectionKind.API_KEY:
            if name != injection.header.lower().encode():
                return value
            if value == placeholder:
                return value_of(injection)
            return _behind_scheme(value, None, placeholder, lambda: value_of(injection))
        case InjectionKind.BEARER | InjectionKind.TOKEN if name == _AUTHORIZATION:
            scheme = b"bearer" if injection.kind is InjectionKind.BEARER else b"token"
            return _behind_scheme(value, scheme, placeholder, lambda: value_of(injection))
        case InjectionKind.BASIC if name == _AUTHORIZATION:
            return _in_basic(value, placeholder, lambda: value_of(injection))
    return value


def _behind_scheme(
    value: bytes, scheme: bytes | None, placeholder: bytes, secret: Callable[[], bytes]
) -> bytes:
    match = _SCHEME.match(value)
    if match is None or match[3] != placeholder:
        return value
    if scheme is not None and match[1].lower() != scheme:
        return value
    return match[1] + match[2] + secret()


def _in_basic(value: bytes, placeholder: bytes, secret: Callable[[], bytes]) -> bytes:
    """Replaces user name or password of Basic authentication (RFC 7617)."""
    match = _SCHEME.match(value)
    if match is None or match[1].lower() != b"basic":
        return value
    try:
        decoded = base64.b64decode(match[3].strip(), validate=True)
    except binascii.Error:
        return value
    user, colon, password = decoded.partition(b":")
    if placeholder not in (user, password):
        return value
    user = secret() if user == placeholder else user
    password = secret() if password == placeholder else password
    return match[1] + match[2] + base64.b64encode(user + colon + password)
