"""Events for whoever watches: nothing is kept for those who come later, nobody holds others up."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterator
from typing import Generic, TypeVar

from services.core.errors import AttachLagging

_WAITING_MOST = 4096

T = TypeVar("T")


class Broadcast(Generic[T]):
    """Passes events on to every watcher there is."""

    def __init__(self) -> None:
        self._watchers: set[asyncio.Queue[T | None]] = set()

    def publish(self, event: T) -> None:
        """Passes an event on; a watcher with too many unread ones is let go."""
        for watcher in list(self._watchers):
            if watcher.qsize() >= _WAITING_MOST:
                self._watchers.discard(watcher)
                watcher.put_nowait(None)
            else:
                watcher.put_nowait(event)

    @contextlib.contextmanager
    def watching(self) -> Iterator[AsyncIterator[T]]:
        """Yields what is published while the block runs, without end.

        The iterator raises AttachLagging when its reader is too far behind.
        """
        watcher: asyncio.Queue[T | None] = asyncio.Queue()
        self._watchers.add(watcher)
        try:
            yield _read(watcher)
        finally:
            self._watchers.discard(watcher)


async def _read(watcher: "asyncio.Queue[T | None]") -> AsyncIterator[T]:
    while (event := await watcher.get()) is not None:
        yield event
    raise AttachLagging(
        f"more than {_WAITING_MOST} events were not read", hint="read faster, or watch again"
    )
