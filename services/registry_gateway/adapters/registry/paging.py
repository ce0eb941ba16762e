"""Lists that come in pages: bounded in pages, bytes and time, and never the same page twice."""

import time
from collections.abc import Callable
from typing import Final

from services.core.errors import LimitExceeded, RegistryProtocol

MAX_PAGES: Final = 2000
MAX_LIST_BYTES: Final = 32 * 1024 * 1024
MAX_LIST_SECONDS: Final = 300.0
_MAX_EMPTY: Final = 3


class Paging:
    """What one list of a registry has taken so far."""

    def __init__(self, what: str, *, clock: Callable[[], float] = time.monotonic) -> None:
        """Begins a list; `what` names it in messages."""
        self._what = what
        self._clock = clock
        self._began = clock()
        self._seen: set[str] = set()
        self._empty = 0
        self._room = MAX_LIST_BYTES

    @property
    def room(self) -> int:
        """How many bytes the next page may have."""
        return self._room

    def turn(self, url: str) -> None:
        """Counts a page before it is asked for.

        Raises:
            RegistryProtocol: it was asked for before.
            LimitExceeded: the pages are too many, or take too long.
        """
        if url in self._seen:
            raise RegistryProtocol(f"{self._what}: a page of the list names itself as the next")
        self._seen.add(url)
        if len(self._seen) > MAX_PAGES:
            raise LimitExceeded(f"{self._what}: a list of more than {MAX_PAGES} pages")
        if self._clock() - self._began > MAX_LIST_SECONDS:
            raise LimitExceeded(
                f"{self._what}: the list takes longer than {MAX_LIST_SECONDS:.0f} s"
            )

    def took(self, size: int, *, entries: int) -> None:
        """Counts what a page had: bytes, and entries of the list.

        Raises:
            RegistryProtocol: page after page has no entry.
        """
        self._room -= size
        self._empty = 0 if entries else self._empty + 1
        if self._empty > _MAX_EMPTY:
            raise RegistryProtocol(f"{self._what}: page after page of the list is empty")
