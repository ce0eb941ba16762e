"""What a benchmark is made of, and how one is run: pairs in turn, medians, figures to reach.

A benchmark is a generator of `Comparison`s: it prepares what they share, yields them one by one to
be run, and cleans up. A comparison has contenders, that take one sample at a time, and the figures
of the contract that its medians are held against.
"""

import gc
import os
import time
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from statistics import median
from typing import Final

DEFAULT_SAMPLES: Final = 5


class Quantity(StrEnum):
    """What of a sample is looked at."""

    WALL = "wall"
    """Seconds that passed."""
    CPU = "cpu"
    """Seconds of processor time, of user and system."""
    BYTES = "bytes"
    """Of memory, unless the comparison says of what."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """One measurement; None where a quantity was not measured."""

    wall: float | None = None
    cpu: float | None = None
    bytes: int | None = None

    def get(self, quantity: Quantity) -> float | None:
        """Returns a quantity."""
        values = {
            Quantity.WALL: self.wall,
            Quantity.CPU: self.cpu,
            Quantity.BYTES: self.bytes,
        }
        return values[quantity]


class Unavailable(Exception):
    """A contender cannot take part on this machine; the message says why."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Contender:
    """A program that does the work of a comparison.

    Attributes:
        name: how the table calls it.
        take: does the work once and returns the sample of it; what it prepares and cleans up is
            not in the sample. Raises Unavailable where it cannot.
    """

    name: str
    take: Callable[[], Sample]


class Form(StrEnum):
    """How a figure is made of two medians, or one."""

    RATIO = "ratio"
    """The contender's over the other's."""
    EXCESS = "excess"
    """The contender's less the other's."""
    ABSOLUTE = "absolute"


@dataclass(frozen=True, slots=True, kw_only=True)
class Figure:
    """A figure to reach: a bound on what a contender takes.

    Attributes:
        contender: whose it is.
        limit: the most it may be: a ratio, or seconds or bytes.
        against: the other contender; None for an absolute figure.
        form: how the two make the figure.
        quantity: which quantity.
    """

    contender: str
    limit: float
    against: str | None = None
    form: Form = Form.RATIO
    quantity: Quantity = Quantity.WALL


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """Contenders that do the same work.

    Attributes:
        title: what the work is.
        contenders: who does it, in the order of the table.
        figures: what is to be reached.
        work: how much it is, for a column of throughput: an amount and its unit.
        bytes_are: which bytes are counted.
        notes: what a reader has to know.
    """

    title: str
    contenders: Sequence[Contender]
    figures: Sequence[Figure] = ()
    work: tuple[float, str] | None = None
    bytes_are: str = "peak"
    notes: Sequence[str] = ()


@dataclass(slots=True, kw_only=True)
class Series:
    """The samples of one contender."""

    name: str
    samples: list[Sample] = field(default_factory=list)
    problem: str = ""
    """Why a sample could not be measured; empty where all could."""

    def median(self, quantity: Quantity) -> float | None:
        """Returns the median of a quantity, or None where it was not measured."""
        values = [value for one in self.samples if (value := one.get(quantity)) is not None]
        return median(values) if values else None


@dataclass(frozen=True, slots=True, kw_only=True)
class Reached:
    """A figure after the run; `value` is None where it could not be measured."""

    figure: Figure
    value: float | None

    @property
    def is_reached(self) -> bool | None:
        """Whether the figure is reached; None where it was not measured."""
        return None if self.value is None else self.value <= self.figure.limit


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """What a comparison brought."""

    benchmark: str
    comparison: Comparison
    series: Sequence[Series]
    load: tuple[float, float]
    """Load average of the machine's last minute, before and after."""

    @property
    def figures(self) -> Sequence[Reached]:
        """The figures with their values."""
        return [
            Reached(figure=figure, value=self._value(figure)) for figure in self.comparison.figures
        ]

    def median(self, name: str, quantity: Quantity) -> float | None:
        """Returns the median of a contender, or None."""
        return next((one.median(quantity) for one in self.series if one.name == name), None)

    def _value(self, figure: Figure) -> float | None:
        ours = self.median(figure.contender, figure.quantity)
        if ours is None or figure.against is None:
            return ours
        theirs = self.median(figure.against, figure.quantity)
        if theirs is None:
            return None
        return ours / theirs if figure.form is Form.RATIO else ours - theirs


Comparisons = Generator[Comparison, None, None]
Benchmark = Callable[[], Comparisons]


def run_comparison(
    benchmark: str,
    comparison: Comparison,
    *,
    samples: int,
    progress: Callable[[str], None] = lambda _: None,
) -> Result:
    """Takes samples of all contenders in turn, each round in the other direction.

    A contender that fails or cannot take part is left out from then on, and its series says why.

    Args:
        benchmark: the name of the benchmark.
        comparison: what is run.
        samples: samples of each contender.
        progress: called with what is measured now.
    """
    series = [Series(name=contender.name) for contender in comparison.contenders]
    pairs = list(zip(comparison.contenders, series, strict=True))
    before = os.getloadavg()[0]
    for number in range(samples):
        for contender, taken in pairs if number % 2 == 0 else reversed(pairs):
            if taken.problem:
                continue
            progress(f"{comparison.title}: {contender.name} {number + 1}/{samples}")
            _settle()
            try:
                taken.samples.append(contender.take())
            except Exception as problem:  # noqa: BLE001 - one contender must not stop the others
                taken.problem = f"{type(problem).__name__}: {problem}"
                if isinstance(problem, Unavailable):
                    taken.problem = str(problem)
    load = (before, os.getloadavg()[0])
    return Result(benchmark=benchmark, comparison=comparison, series=series, load=load)


def timed(work: Callable[[], object]) -> float:
    """Returns how many seconds some work of this process took."""
    begin = time.perf_counter()
    work()
    return time.perf_counter() - begin


def _settle() -> None:
    """Keeps the leftovers of one sample out of the next."""
    gc.collect()
    os.sync()
