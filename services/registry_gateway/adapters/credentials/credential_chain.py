"""Where credentials are looked for, in order; answers are kept for a moment."""

import threading
import time
from collections.abc import Callable, Sequence
from typing import Final

from services.registry_gateway.login_ports import Credential, CredentialSource

_KEPT_SECONDS: Final = 15.0
_MOST_KEPT: Final = 1024


class CredentialChain:
    """The first of several sources that knows a registry; implements `Credentials`.

    Answers are kept for seconds: every request to a registry with Basic credentials asks, and a
    credential helper is a program. Only the latest are kept.
    """

    def __init__(
        self, sources: Sequence[CredentialSource], *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._sources = sources
        self._clock = clock
        self._guard = threading.Lock()
        self._kept: dict[tuple[str, str], tuple[float, Credential | None]] = {}

    def find(self, host: str, repository: str = "") -> Credential | None:
        """See `Credentials`."""
        now, key = self._clock(), (host, repository)
        with self._guard:
            kept = self._kept.get(key)
        if kept is not None and now - kept[0] < _KEPT_SECONDS:
            return kept[1]
        answers = (source.find(host, repository) for source in self._sources)
        found = next((answer for answer in answers if answer), None)
        with self._guard:
            self._kept.pop(key, None)
            while len(self._kept) >= _MOST_KEPT:
                self._kept.pop(next(iter(self._kept)))
            self._kept[key] = (now, found)
        return found

    def problems(self, host: str, repository: str = "") -> Sequence[str]:
        """See `CredentialSource`; asks every source anew."""
        return [one for source in self._sources for one in source.problems(host, repository)]

    def forget(self, host: str) -> None:
        """See `Credentials`."""
        with self._guard:
            self._kept = {key: kept for key, kept in self._kept.items() if key[0] != host}
