"""What work under way needs and pruning must therefore leave alone; in memory.

A pin is taken before the store is asked for a blob and held until a tag or lease in the index keeps
it. Removal of blobs and taking of pins exclude each other, and what is unpinned while a prune is
under way stays pinned for that prune: its marks may be older than the tag.
"""

import asyncio
import contextlib
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator

from services.core.digest import Digest


class Pins:
    """Counts who needs which blob; used on the event loop only."""

    def __init__(self) -> None:
        self._counts: Counter[Digest] = Counter()
        self._lately: set[Digest] | None = None
        self._removing = asyncio.Lock()

    def __contains__(self, digest: Digest) -> bool:
        return self._counts[digest] > 0 or (self._lately is not None and digest in self._lately)

    def all(self) -> frozenset[Digest]:
        """Returns every pinned digest."""
        return frozenset(self._counts) | frozenset(self._lately or ())

    @contextlib.asynccontextmanager
    async def session(self) -> AsyncIterator["PinSession"]:
        """Yields pins that are given up together when the block ends."""
        held = PinSession(self)
        try:
            yield held
        finally:
            for digest in held.digests:
                self._counts[digest] -= 1
                if self._counts[digest] <= 0:
                    del self._counts[digest]
                if self._lately is not None:
                    self._lately.add(digest)

    @contextlib.contextmanager
    def pruning(self) -> Iterator[None]:
        """Keeps what is unpinned meanwhile; one prune at a time."""
        self._lately = set()
        try:
            yield
        finally:
            self._lately = None

    async def take(self, digest: Digest) -> None:
        """Counts one more need; waits while blobs are being removed."""
        async with self._removing:
            self._counts[digest] += 1

    async def remove_unpinned(
        self,
        digests: Iterable[Digest],
        remove: Callable[[frozenset[Digest]], Awaitable[None]],
    ) -> None:
        """Calls `remove` with those that nobody needs; nobody can begin to need them meanwhile."""
        async with self._removing:
            await remove(frozenset(digest for digest in digests if digest not in self))


class PinSession:
    """The pins of one piece of work."""

    def __init__(self, pins: Pins) -> None:
        self._pins = pins
        self.digests: set[Digest] = set()

    async def add(self, digests: Iterable[Digest]) -> None:
        """Pins blobs until the session ends."""
        for digest in digests:
            if digest not in self.digests:
                await self._pins.take(digest)
                self.digests.add(digest)
