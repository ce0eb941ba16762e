"""The phase line: what lns did for a command, and how long each part took."""

import contextlib
import time
from collections.abc import Callable, Iterator

from cli.render.text import format_seconds


class Phases:
    """Measures the parts of a command, in their order.

    Args:
        clock: seconds that only grow.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._spans: list[tuple[str, float]] = []

    @contextlib.contextmanager
    def measure(self, done: str) -> Iterator[None]:
        """Measures the block as the phase `done`, a participle; a failed block is no phase."""
        begin = self._clock()
        yield
        self.add(done, self._clock() - begin)

    def add(self, done: str, seconds: float) -> None:
        """Adds a phase that was measured elsewhere."""
        self._spans.append((done, seconds))

    @property
    def spans(self) -> tuple[tuple[str, float], ...]:
        """The phases in their order, with the seconds that each took."""
        return tuple(self._spans)

    def line(self) -> str:
        """Returns `resolved 0.1 s · pulled 1.2 s`, empty if there was nothing."""
        return " · ".join(f"{done} {format_seconds(seconds)}" for done, seconds in self._spans)
