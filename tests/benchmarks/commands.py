"""What the command line itself costs, against the start of the interpreter that runs it."""

import sys
from collections.abc import Callable

from tests.benchmarks.client import PROGRAM, run_suite
from tests.benchmarks.harness import Comparison, Comparisons, Contender, Figure, Sample
from tests.benchmarks.measure import run_command

_REPEATED = 10


def commands() -> Comparisons:
    """`lns version` and `lns ps`."""
    with run_suite() as client:
        yield Comparison(
            title="small commands",
            contenders=[
                Contender(
                    name="python3 -c pass",
                    take=lambda: _mean(lambda: run_command([sys.executable, "-c", "pass"])),
                ),
                Contender(
                    name="lns version",
                    take=lambda: _mean(lambda: run_command([PROGRAM, "version"])),
                ),
                Contender(name="lns ps", take=lambda: _mean(lambda: client.run("ps"))),
            ],
            figures=[
                Figure(contender="lns version", against="python3 -c pass", limit=4),
                Figure(contender="lns ps", against="python3 -c pass", limit=12),
            ],
            notes=[
                "python3 is the interpreter that lns runs on",
                f"a sample is the mean of {_REPEATED} starts",
                "the services run already",
            ],
        )


def _mean(take: Callable[[], Sample]) -> Sample:
    samples = [take() for _ in range(_REPEATED)]
    return Sample(
        wall=sum(one.wall or 0 for one in samples) / _REPEATED,
        cpu=sum(one.cpu or 0 for one in samples) / _REPEATED,
        bytes=max(one.bytes or 0 for one in samples),
    )
