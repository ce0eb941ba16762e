"""How many bytes a second pass through a bind, where its run has a rate.

The server answers one request after the other, so that waiting before an answer slows its guest and
no other one.
"""

import time
from collections.abc import Callable

_LONGEST_WAIT = 10.0
"""Seconds: the server notices the end of its microVM between two requests only."""

_PORTION_LEAST = 4096


class Pace:
    """A rate in bytes a second, reads and writes together; a second's worth may come at once."""

    def __init__(
        self,
        rate: int = 0,
        *,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        """Makes a pace; a rate of 0 is no limit."""
        self._rate = rate
        self._clock = clock
        self._sleep = sleep
        self._due = clock()

    def portion(self, length: int) -> int:
        """Returns how many of these bytes one request may move."""
        return min(length, max(self._rate, _PORTION_LEAST)) if self._rate else length

    def pass_on(self, count: int) -> None:
        """Waits until these bytes fit into the rate, but no longer than 10 s."""
        if not self._rate:
            return
        now = self._clock()
        self._due = max(self._due, now - 1.0) + count / self._rate
        if self._due > now:
            self._sleep(min(self._due - now, _LONGEST_WAIT))
