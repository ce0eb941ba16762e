"""Where credentials are looked for, in order; answers are kept for a moment."""

import threading
import time
from collections.abc import Callable, Sequence
from typing import Final

from services.registry_gateway.login_ports import Credential, CredentialSource

_KEPT_SECONDS: Final = 15.0


class CredentialChain:
    """The first of several sources that knows a registry; implements `Credentials`.

    Answers are kept for seconds: every request to a registry with Basic credentials asks, and a
    credential helper is a program.
    """

    def __init__(
        self, sources: Sequence[CredentialSource], *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._sources = sources
        self._clock = clock
        self._guard = threading.Lock()
        self._kept: dict[str, tuple[float, Credential | None]] = {}

    def find(self, host: str) -> Credential | None:
        """See `Credentials`."""
        now = self._clock()
        with self._guard:
            kept = self._kept.get(host)
        if kept is not None and now - kept[0] < _KEPT_SECONDS:
            return kept[1]
        found = next((one for one in (s.find(host) for s in self._sources) if one), None)
        with self._guard:
            self._kept[host] = (now, found)
        return found

    def forget(self, host: str) -> None:
        """See `Credentials`."""
        with self._guard:
            self._kept.pop(host, None)
