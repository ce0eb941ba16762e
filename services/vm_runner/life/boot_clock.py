"""How long the phases of a start take."""

import time
from datetime import timedelta

from services.vm_runner.channel.events import Welcome
from services.vm_runner.records.runs import BootTimes


class BootClock:
    """The moments of one start, which begins with this object."""

    def __init__(self) -> None:
        self._began = self._started = self._greeted = self._mounted = time.monotonic()

    def machine_started(self) -> None:
        """Notes that the VMM runs."""
        self._started = time.monotonic()

    def guest_greeted(self) -> None:
        """Notes that the agent has answered."""
        self._greeted = time.monotonic()

    def root_mounted(self) -> None:
        """Notes that the machine is as the run wants it."""
        self._mounted = time.monotonic()

    def workload_started(self, welcome: Welcome | None) -> BootTimes:
        """Returns how long everything took; what the guest says of itself within what it took."""
        boot = self._greeted - self._started
        kernel, devices = _guest_times(welcome, limit=boot)
        return BootTimes(
            prepare=timedelta(seconds=self._started - self._began),
            boot=timedelta(seconds=boot),
            kernel=kernel,
            devices=devices,
            mount=timedelta(seconds=self._mounted - self._greeted),
            exec=timedelta(seconds=time.monotonic() - self._mounted),
        )


def _guest_times(welcome: Welcome | None, *, limit: float) -> tuple[timedelta, timedelta]:
    """Returns how long kernel and devices took, as the guest tells it: nothing beyond `limit`."""
    if welcome is None or len(welcome.boot_ns) != 3:  # noqa: PLR2004 - `Welcome` names them
        return timedelta(), timedelta()
    entered, _, opened = (min(moment / 1e9, limit) for moment in welcome.boot_ns)
    return timedelta(seconds=entered), timedelta(seconds=max(0.0, opened - entered))
