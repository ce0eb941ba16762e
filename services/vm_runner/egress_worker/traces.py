"""Finds placeholders where they do not belong, and secrets that a reply echoes. Pure."""

import base64
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final
from urllib.parse import quote, unquote_to_bytes

from services.core.egress.hosts import is_below
from services.vm_runner.egress_worker.heads import Header
from services.vm_runner.egress_worker.orders import Placeholder

_MASK_LEAST: Final = 4
"""Characters of the shortest secret that is masked; shorter ones stand everywhere by accident."""


@dataclass(frozen=True, slots=True)
class Trace:
    """A placeholder in the forms in which it may stand in a request."""

    credential: str
    forms: tuple[bytes, ...]


def traces_elsewhere(placeholders: Iterable[Placeholder], host: str) -> tuple[Trace, ...]:
    """Returns what may not stand in a request to a host; an empty host owns no placeholder."""
    return tuple(
        Trace(placeholder.credential, forms_of(placeholder.text.encode()))
        for placeholder in placeholders
        if not host or not any(is_below(host, domain) for domain in placeholder.domains)
    )


def forms_of(text: bytes) -> tuple[bytes, ...]:
    """Returns a text as it is, and as it stands in base64 at each of the three alignments."""
    forms = {text: None}
    for alphabet in (base64.b64encode, base64.urlsafe_b64encode):
        for before in range(3):
            encoded = alphabet(bytes(before) + text).rstrip(b"=")
            begin = (before * 8 + 5) // 6
            whole = (before + len(text)) * 8 // 6
            if whole - begin >= 6:  # noqa: PLR2004 - shorter ones stand everywhere by accident
                forms[encoded[begin:whole]] = None
    return tuple(forms)


def find_in_head(traces: Sequence[Trace], target: bytes, headers: Iterable[Header]) -> str | None:
    """Returns the credential whose placeholder stands in a head, in any of its forms."""
    if not traces:
        return None
    plain = b"\n".join([target, *(name + b":" + value for name, value in headers)])
    return find(traces, plain + b"\n" + unquote_to_bytes(plain))


def find(traces: Sequence[Trace], data: bytes) -> str | None:
    """Returns the credential whose placeholder stands in some bytes."""
    for trace in traces:
        if any(form in data for form in trace.forms):
            return trace.credential
    return None


class BodyScanner:
    """Looks for placeholders in a body that comes in pieces."""

    def __init__(self, traces: Sequence[Trace]) -> None:
        self.traces = traces
        self._keep = max((len(form) for one in traces for form in one.forms), default=1) - 1
        self._tail = b""

    def feed(self, data: bytes) -> str | None:
        """Returns the credential whose placeholder ends in these bytes."""
        if not self.traces:
            return None
        data = self._tail + data
        self._tail = data[-self._keep :] if self._keep else b""
        return find(self.traces, data)


class Mask:
    """Takes secrets out of the headers of replies; the placeholder stands there instead."""

    def __init__(self) -> None:
        self._pattern: re.Pattern[bytes] | None = None
        self._instead: dict[bytes, bytes] = {}

    def set(self, secrets: Iterable[tuple[str, str]]) -> None:
        """Takes the secrets, each with its placeholder."""
        self._instead = {}
        for secret, placeholder in secrets:
            value = secret.encode()
            if len(value) < _MASK_LEAST:
                continue
            first, *encoded = forms_of(value)
            self._instead[first] = placeholder.encode()
            self._instead[quote(value, safe="").encode()] = placeholder.encode()
            for form in encoded:
                self._instead[form] = b"*" * len(form)
        longest_first = sorted(self._instead, key=len, reverse=True)
        self._pattern = (
            re.compile(b"|".join(map(re.escape, longest_first))) if longest_first else None
        )

    def apply(self, headers: tuple[Header, ...]) -> tuple[Header, ...]:
        """Returns headers without secrets: the same object if they hold none."""
        pattern = self._pattern
        if pattern is None or not any(pattern.search(value) for _, value in headers):
            return headers
        return tuple(
            (name, pattern.sub(lambda match: self._instead[match[0]], value))
            for name, value in headers
        )
