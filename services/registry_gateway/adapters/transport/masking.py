"""Masking what was sent where it comes back: a server may echo a login into its error text."""

import base64
import binascii
import contextlib
import re
import threading
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from typing import Final
from urllib.parse import parse_qsl, quote, quote_plus

from services.core.errors import LnsError, Violation

_MASK: Final = "[masked]"
_KEPT: Final = 512
_SHORTEST: Final = 4
"""Shorter secrets are not looked for: they would mask ordinary words."""
_ANCHOR: Final = 8
"""So much of a secret's beginning is enough: texts are cut, and may be cut inside it. A shorter
secret is masked where it stands as a word: `test` is not masked in `latest`."""
_SECRET_FIELDS: Final = frozenset({"refresh_token", "device_code", "password", "access_token"})


class Secrets:
    """What was sent to servers, and how it looks when it comes back; used by many threads."""

    def __init__(self) -> None:
        self._guard = threading.Lock()
        self._known: OrderedDict[str, None] = OrderedDict()

    def sent(self, headers: Mapping[str, str], body: object) -> None:
        """Remembers what a request shows: its `Authorization`, and secrets of a form."""
        found = list(_of_authorization(headers.get("Authorization", "")))
        if isinstance(body, bytes) and "urlencoded" in headers.get("Content-Type", ""):
            fields = parse_qsl(body.decode("ascii", "replace"))
            found += [value for name, value in fields if name in _SECRET_FIELDS]
        for secret in found:
            self.remember(secret)

    def remember(self, secret: str) -> None:
        """Remembers one secret, in the forms in which it may come back."""
        if len(secret) < _SHORTEST:
            return
        with self._guard:
            for form in _forms(secret):
                self._known.pop(form, None)
                self._known[form] = None
            while len(self._known) > _KEPT:
                self._known.popitem(last=False)

    def masked(self, text: str) -> str:
        """Returns a text without the secrets, whole or cut at their end, in any case."""
        with self._guard:
            known = sorted(self._known, key=len, reverse=True)
        for secret in known:
            text = _without(text, secret)
        return text

    @contextlib.contextmanager
    def masking(self) -> Iterator[None]:
        """Masks the texts of an error that leaves the block."""
        try:
            yield
        except LnsError as error:
            self._mask(error)
            raise

    def _mask(self, error: LnsError) -> None:
        error.message = self.masked(error.message)
        error.hint = self.masked(error.hint)
        error.args = (error.message,)
        error.metadata = {key: self.masked(value) for key, value in error.metadata.items()}
        error.violations = tuple(
            Violation(
                subject=self.masked(one.subject),
                description=self.masked(one.description),
                type=one.type,
            )
            for one in error.violations
        )


def _of_authorization(header: str) -> Iterator[str]:
    """Yields what an `Authorization` header holds: the token, or the login and its parts."""
    scheme, _, value = header.partition(" ")
    if not value:
        return
    yield value
    if scheme.lower() == "basic":
        with contextlib.suppress(binascii.Error, UnicodeDecodeError):
            login = base64.b64decode(value).decode("utf-8")
            yield login
            yield login.partition(":")[2]


def _forms(secret: str) -> set[str]:
    raw = secret.encode("utf-8")
    escaped = secret.encode("unicode_escape").decode("ascii")
    encoded = base64.b64encode(raw).decode("ascii")
    return {
        secret,
        quote(secret, safe=""),
        quote_plus(secret),
        escaped,
        encoded.rstrip("="),
        base64.urlsafe_b64encode(raw).decode("ascii").rstrip("="),
        raw.hex(),
    }


def _folded(text: str) -> str:
    """Returns a text of the same length in lower case, where that has one character."""
    return "".join(c.lower() if len(c.lower()) == 1 else c for c in text)


def _without(text: str, secret: str) -> str:
    folded, wanted = _folded(text), _folded(secret)
    anchor = wanted[:_ANCHOR]
    if len(secret) < _ANCHOR:
        word = rf"(?<![^\W_]){re.escape(wanted)}(?![^\W_])"
        return re.sub(word, _MASK, text, flags=re.IGNORECASE)
    kept: list[str] = []
    at = 0
    while (begin := folded.find(anchor, at)) >= 0:
        end = begin + len(anchor)
        while end < len(text) and end - begin < len(wanted) and folded[end] == wanted[end - begin]:
            end += 1
        kept += [text[at:begin], _MASK]
        at = end
    return "".join([*kept, text[at:]])
