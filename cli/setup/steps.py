"""The order of a step: look, ask, do; and how each ended."""

import subprocess
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

from services.core.errors import HostUnready, LnsError

Consent = Callable[[str], bool]
"""Asks whether something may be done, given as `install this`; raises HostUnready where nobody can
be asked."""


class Result(StrEnum):
    """How a step ended."""

    ALREADY = "already"
    DONE = "done"
    FAILED = "failed"


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """How a step ended, with what there is now, or why not and what to do."""

    step: str
    result: Result
    detail: str
    remedy: str = ""


class Step(Protocol):
    """One thing that runs need."""

    name: str

    def look(self) -> str:
        """Returns what there is already; empty if it is to be done."""

    def plan(self) -> str:
        """Returns what `do` would do, as `install this`.

        Raises:
            HostUnready: it cannot be done here; the hint says how a user does it.
        """

    def do(self) -> str:
        """Does it and returns what there is now.

        Raises:
            LnsError: it could not be done.
            OSError: the same, by what the system said.
        """


def take(
    steps: Iterable[Step], *, consent: Consent, note: Callable[[str], None]
) -> Sequence[Outcome]:
    """Takes steps, one after the other; one that fails does not keep the others from being taken.

    Args:
        steps: which.
        consent: asks before anything is changed.
        note: shows a line about what goes on to the user who waits.
    """
    return [_take_one(step, consent, note) for step in steps]


def _take_one(step: Step, consent: Consent, note: Callable[[str], None]) -> Outcome:
    try:
        if present := step.look():
            return Outcome(step=step.name, result=Result.ALREADY, detail=present)
        plan = step.plan()
        if not consent(plan):
            raise HostUnready(f"you did not want it to {plan}", hint="say yes to that, or `--yes`")
        note(f"lns: {step.name}: {plan}")
        return Outcome(step=step.name, result=Result.DONE, detail=step.do())
    except LnsError as error:
        why, remedy = error.message, error.hint
    except subprocess.TimeoutExpired as error:
        why, remedy = f"it took longer than {error.timeout:g} s", "try again"
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        why, remedy = f"{where}{error.strerror or error}", "mend that, then this step again"
    return Outcome(step=step.name, result=Result.FAILED, detail=why, remedy=remedy)
