"""How fast a guest is listened to, so that none takes the service's time from the others. Pure."""

_SLICE_BYTES = 32768
"""Bytes of a guest that are looked at in one go: a whole frame, or some fifteen hundred tiny ones,
which take a few milliseconds."""

_BULK_SLICE_BYTES = 8 * _SLICE_BYTES
_BULK_SECONDS_A_BYTE = 1e-8
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
        self.slice_bytes = _SLICE_BYTES
        """How many bytes of the guest are looked at next in one go: more while bulk data comes."""

    def spend(self, cost: float, *, now: float) -> float:
        """Notes seconds of work for the guest's last slice; returns for how many it should wait.

        Args:
            cost: processor time of the work.
            now: a clock that only grows, in seconds.
        """
        is_bulk = cost <= _BULK_SECONDS_A_BYTE * self.slice_bytes
        self.slice_bytes = min(_BULK_SLICE_BYTES, 2 * self.slice_bytes) if is_bulk else _SLICE_BYTES
        refilled = self._left + (now - self._at) * _SHARE
        self._left = min(_BURST_SECONDS, refilled) - cost
        self._at = now
        return max(0.0, -self._left / _SHARE)
