"""Layers that work under way needs, and that a prune must leave alone."""

import contextlib
from collections import Counter
from collections.abc import Iterable, Iterator

from services.core.digest import Digest


class Pins:
    """Counts, for each layer, the pieces of work that need it; used in one event loop."""

    def __init__(self) -> None:
        self._counts: Counter[Digest] = Counter()

    @contextlib.contextmanager
    def hold(self, diff_ids: Iterable[Digest]) -> Iterator[None]:
        """Keeps layers while the block runs."""
        held = tuple(diff_ids)
        self._counts.update(held)
        try:
            yield
        finally:
            self._counts.subtract(held)

    def __contains__(self, diff_id: Digest) -> bool:
        return self._counts[diff_id] > 0
