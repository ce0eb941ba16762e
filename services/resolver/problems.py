"""The problems of a plan, collected so that all of them are reported in one answer."""

from collections.abc import Iterator
from enum import StrEnum
from typing import Final, NamedTuple

from services.core.errors import (
    ArtifactInvalid,
    CallerDenied,
    DeadlineExceeded,
    Internal,
    LnsError,
    PlanInvalid,
    RegistryUnavailable,
    ServiceUnavailable,
    TooManyRequests,
    Unclassified,
    Unimplemented,
    Violation,
)

_TRANSIENT: Final = (RegistryUnavailable, TooManyRequests, DeadlineExceeded)
_FATAL: Final = (ServiceUnavailable, Internal, CallerDenied, Unimplemented, Unclassified)


class ProblemType(StrEnum):
    """Types of problems for which there is no error reason."""

    NO_COMMAND = "NO_COMMAND"
    NO_IMAGE = "NO_IMAGE"
    MOUNT_CONFLICT = "MOUNT_CONFLICT"
    PORT_CONFLICT = "PORT_CONFLICT"
    DUPLICATE = "DUPLICATE"
    UNSUPPORTED = "UNSUPPORTED"
    FLAG_INVALID = "FLAG_INVALID"
    DEPENDENCY_CYCLE = "DEPENDENCY_CYCLE"


class Problem(NamedTuple):
    """What is wrong with one part of a plan.

    Attributes:
        violation: which part, and what.
        transient: the error, where nothing is wrong but that a registry could not answer now.
    """

    violation: Violation
    transient: LnsError | None = None


class Problems:
    """Collects what is wrong with one plan."""

    def __init__(self) -> None:
        self._noted: list[Problem | Problems] = []

    def __iter__(self) -> Iterator[Problem]:
        """Every problem, those of parts where the part was asked for."""
        for noted in self._noted:
            if isinstance(noted, Problems):
                yield from noted
            else:
                yield noted

    def part(self) -> "Problems":
        """Returns a collector whose problems stand where it was asked for, whenever they are noted.

        What is looked at side by side asks for one each, first of all: then the order of an answer
        is that of the questions, not of a registry's replies.
        """
        part = Problems()
        self._noted.append(part)
        return part

    def add(self, subject: str, description: str, problem: str) -> None:
        """Notes one problem: which component has it, what it is with the way out, its type."""
        violation = Violation(subject=subject, description=description, type=problem)
        self._noted.append(Problem(violation))

    def add_error(self, subject: str, error: LnsError) -> None:
        """Notes why a component could not be had or used.

        Raises:
            LnsError: the error itself, where it says nothing about the component but that the
                resolver cannot work: its gateway is gone.
        """
        if isinstance(error, _FATAL):
            raise error
        if isinstance(error, ArtifactInvalid) and error.violations:
            for one in error.violations:
                self.add(subject, f"{one.subject} {one.description}", error.reason)
            return
        description = f"{error.message} ({error.hint})" if error.hint else error.message
        violation = Violation(subject=subject, description=description, type=error.reason)
        self._noted.append(Problem(violation, error if isinstance(error, _TRANSIENT) else None))

    def raise_if_any(self) -> None:
        """Ends the resolution if there is a problem.

        Raises:
            PlanInvalid: with every problem.
            RegistryUnavailable, TooManyRequests, DeadlineExceeded: nothing is wrong but that a
                registry could not answer now; with every component that it concerns.
        """
        problems = [*self]
        if not problems:
            return
        violations = tuple(dict.fromkeys(problem.violation for problem in problems))
        first = violations[0]
        more = f" (and {len(violations) - 1} more)" if len(violations) > 1 else ""
        message = f"{first.subject}: {first.description}{more}"
        transient = [problem.transient for problem in problems if problem.transient is not None]
        if len(transient) == len(problems):
            raise type(transient[0])(
                message,
                hint="try again",
                violations=violations,
                retry_after=transient[0].retry_after or 1.0,
            )
        only_flags = all(one.type == ProblemType.FLAG_INVALID for one in violations)
        hint = "correct the command line" if only_flags else ""
        raise PlanInvalid(message, hint=hint, violations=violations)
