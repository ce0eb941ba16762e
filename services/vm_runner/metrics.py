"""What the runner counts of runs and of what they reach, for Prometheus."""

import contextlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator

import prometheus_client
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from services.vm_runner.records.runs import BootTimes, Run, RunState

BOOT_SECONDS = prometheus_client.Histogram(
    "lns_vm_runner_boot_seconds",
    "Time of each phase of a start, by how the machine was had (cold, snapshot, ahead).",
    ["way", "phase"],
    buckets=(0.01, 0.05, 0.1, 0.25, 0.5, 1, 2, 5, 10, 30, 60),
)
ENDED = prometheus_client.Counter(
    "lns_vm_runner_ended_runs",
    "Runs that ended, by how: exited (its workload), failed (the machine), lost (nobody saw it).",
    ["outcome"],
)
OOM_KILLS = prometheus_client.Counter(
    "lns_vm_runner_oom_kills", "Processes of guests that the memory limit of their run ended."
)
EGRESS_VERDICTS = prometheus_client.Counter(
    "lns_vm_runner_egress_verdicts",
    "Connections and requests of runs, by what was decided: allow, deny.",
    ["kind", "verdict"],
)
EGRESS_BYTES = prometheus_client.Counter(
    "lns_vm_runner_egress_bytes",
    "Bytes that runs sent (out) and received (in) through connections that have ended.",
    ["direction"],
)
APPROVALS = prometheus_client.Gauge(
    "lns_vm_runner_approvals_waiting", "Questions of runs that wait for an answer."
)

_RUNS = "lns_vm_runner_runs"
_ENDINGS = {RunState.EXITED, RunState.FAILED, RunState.LOST}
_PHASES = ("prepare", "boot", "kernel", "devices", "mount", "exec")


def booted(times: BootTimes) -> None:
    """Counts a start; one that was adopted has no phases of its own."""
    if not times.way:
        return
    for phase in _PHASES:
        seconds = getattr(times, phase).total_seconds()
        BOOT_SECONDS.labels(times.way, phase).observe(seconds)
    whole = times.prepare + times.boot + times.mount + times.exec
    BOOT_SECONDS.labels(times.way, "whole").observe(whole.total_seconds())


def changed(before: Run, after: Run) -> None:
    """Counts what a change of a run's record says."""
    if after.state in _ENDINGS and before.state is not after.state:
        ENDED.labels(after.state.value).inc()


class _Runs(Collector):
    """The runs of this process by state, as they are when the page is asked for."""

    def __init__(self) -> None:
        self.sources: list[Callable[[], Iterable[Run]]] = []

    def collect(self) -> Iterator[GaugeMetricFamily]:
        """Yields the one metric."""
        found = Counter(run.state for source in self.sources for run in source())
        family = GaugeMetricFamily(_RUNS, "Runs that are recorded, by state.", labels=["state"])
        for state in RunState:
            family.add_metric([state.value], found[state])
        yield family


_runs = _Runs()
prometheus_client.REGISTRY.register(_runs)


@contextlib.contextmanager
def runs_counted(runs: Callable[[], Iterable[Run]]) -> Iterator[None]:
    """Shows how many runs are in which state while the block runs.

    Args:
        runs: returns a copy; it is called by another thread.
    """
    _runs.sources.append(runs)
    try:
        yield
    finally:
        _runs.sources.remove(runs)
