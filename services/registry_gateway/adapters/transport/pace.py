"""Requests that take too long: a least rate over a window, and a total for each.

A timeout of a socket starts anew with every byte, so a server that sends one now and then holds a
thread for ever. One thread looks at the connections of all requests and cuts those that are late.
"""

import contextlib
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final, Protocol

from services.core.errors import RegistryUnavailable

_LOOKS_PER_WINDOW: Final = 4
_LONGEST_PAUSE: Final = 1.0


class Cuttable(Protocol):
    """A connection."""

    def moved(self) -> int:
        """Returns how many bytes crossed it so far, in both directions."""

    def cut(self) -> None:
        """Ends it: whoever reads or writes fails at once."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rate:
    """What a request must keep to.

    Attributes:
        window: seconds over which the rate is measured.
        least: bytes a second, in both directions together.
        total: seconds that a request may take, beside those that its bytes take at the least rate.
    """

    window: float = 30.0
    least: int = 4 << 10
    total: float = 120.0

    def seconds_for(self, size: int) -> float:
        """Returns what a request whose body has up to `size` bytes may take."""
        return self.total + size / self.least


class Pace:
    """The time of one request."""

    def __init__(self, wire: Cuttable, rate: Rate, *, size: int, now: float) -> None:
        self._wire = wire
        self._rate = rate
        self._began = now
        self._ends = now + rate.seconds_for(size)
        self._window_ends = now + rate.window
        self._seen = 0
        self.late = ""
        """Why the connection was cut; empty while it keeps to the rate."""

    def look(self, now: float) -> None:
        """Cuts the connection where it is late."""
        if self.late:
            return
        if now >= self._ends:
            self.late = f"takes longer than {self._ends - self._began:.0f} seconds"
        elif now >= self._window_ends:
            moved = self._wire.moved()
            if moved - self._seen < self._rate.least * self._rate.window:
                self.late = (
                    f"sends less than {self._rate.least} bytes a second"
                    f" over {self._rate.window:.0f} seconds"
                )
            self._seen, self._window_ends = moved, now + self._rate.window
        if self.late:
            self._wire.cut()

    def check(self, host: str) -> None:
        """Raises RegistryUnavailable if the connection was cut for being late."""
        if self.late:
            raise RegistryUnavailable(
                f"{host} {self.late}",
                hint="try again later, or change registry_gateway.least_rate",
                metadata={"host": host},
                retry_after=1.0,
            )


class Pacer:
    """Watches the requests of one client; used by many threads."""

    def __init__(self, rate: Rate, *, clock: Callable[[], float] = time.monotonic) -> None:
        self.rate = rate
        self._clock = clock
        self._pause = min(_LONGEST_PAUSE, rate.window / _LOOKS_PER_WINDOW)
        self._changed = threading.Condition()
        self._watched: set[Pace] = set()
        self._thread: threading.Thread | None = None
        self._closed = False

    def close(self) -> None:
        """Ends the thread; requests that still run are no longer watched."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        if self._thread is not None:
            self._thread.join()

    @contextlib.contextmanager
    def watching(self, wire: Cuttable, *, size: int) -> Iterator[Pace]:
        """Watches a connection while the block runs; `size` bounds what its bodies have in all."""
        pace = Pace(wire, self.rate, size=size, now=self._clock())
        with self._changed:
            self._watched.add(pace)
            if self._thread is None and not self._closed:
                self._thread = threading.Thread(
                    target=self._watch, name="gateway-pace", daemon=True
                )
                self._thread.start()
            self._changed.notify_all()
        try:
            yield pace
        finally:
            with self._changed:
                self._watched.discard(pace)

    def _watch(self) -> None:
        while True:
            with self._changed:
                while not self._watched and not self._closed:
                    self._changed.wait()
                if self._closed:
                    return
                self._changed.wait(self._pause)
                watched = list(self._watched)
            for pace in watched:
                pace.look(self._clock())
