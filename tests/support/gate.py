"""A place where requests to a peer wait until a test lets them pass."""

import threading

from tests.support.http_peer import Exchange


class Gate:
    """Where held requests wait; closed at first."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._arrived = 0
        self._opened = threading.Event()

    @property
    def arrived(self) -> int:
        """How many requests came to it."""
        return self._arrived

    def wait_for(self, arrivals: int = 1, *, within: float = 10.0) -> None:
        """Returns when that many requests have come; fails the test when they do not in time."""
        with self._changed:
            came = self._changed.wait_for(lambda: self._arrived >= arrivals, timeout=within)
        assert came, f"{self._arrived} of {arrivals} requests came within {within} s"

    def open(self) -> None:
        """Lets everybody pass, now and later."""
        self._opened.set()

    def pass_through(self, exchange: Exchange) -> None:
        """Waits until the gate is open."""
        with self._changed:
            self._arrived += 1
            self._changed.notify_all()
        while not self._opened.is_set():
            exchange.wait(0.01)
