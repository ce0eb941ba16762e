"""How fast a guest is listened to, so that none takes the service's time from the others. Pure."""

SLICE_BYTES = 32768
"""Bytes of a guest that are looked at in one go: a whole frame, or some fifteen hundred tiny ones,
which take a few milliseconds."""

_SHARE = 0.25
_BURST_SECONDS = 0.02


class Pace:
    """A guest's share of the time of the one thread that listens to all guests.

    Bulk data costs little and is never held up. A guest that floods the host with small frames has
    spent its share soon; what it sends further waits in its own channel, which fills up.
    """

    def __init__(self, now: float) -> None:
        self._left = _BURST_SECONDS
        self._at = now

    def spend(self, cost: float, *, now: float) -> float:
        """Notes seconds of work for the guest; returns for how many it should wait.

        Args:
            cost: processor time of the work.
            now: a clock that only grows, in seconds.
        """
        refilled = self._left + (now - self._at) * _SHARE
        self._left = min(_BURST_SECONDS, refilled) - cost
        self._at = now
        return max(0.0, -self._left / _SHARE)
