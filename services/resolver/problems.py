"""The problems of a plan, collected so that all of them are reported in one answer."""

from enum import StrEnum
from typing import Final

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


class Problems:
    """Collects what is wrong with one plan.

    Args:
        what: what is being resolved, for the message.
    """

    def __init__(self, what: str) -> None:
        self._what = what
        self._violations: dict[Violation, None] = {}
        self._transient: LnsError | None = None
        self._is_lasting = False

    def add(self, subject: str, description: str, problem: str) -> None:
        """Notes one problem: which component has it, what it is with the way out, its type."""
        violation = Violation(subject=subject, description=description, type=problem)
        self._violations.setdefault(violation)
        self._is_lasting = True

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
        if isinstance(error, _TRANSIENT):
            self._transient = self._transient or error
            violation = Violation(subject=subject, description=description, type=error.reason)
            self._violations.setdefault(violation)
        else:
            self.add(subject, description, error.reason)

    def raise_if_any(self) -> None:
        """Ends the resolution if there is a problem.

        Raises:
            PlanInvalid: with every problem.
            RegistryUnavailable, TooManyRequests, DeadlineExceeded: nothing is wrong but that a
                registry could not answer now; with every component that it concerns.
        """
        if not self._violations:
            return
        violations = tuple(self._violations)
        first = violations[0]
        more = f" (and {len(violations) - 1} more)" if len(violations) > 1 else ""
        message = f"{self._what} cannot be resolved: {first.subject}: {first.description}{more}"
        if self._transient is not None and not self._is_lasting:
            raise type(self._transient)(
                message,
                hint="try again",
                violations=violations,
                retry_after=self._transient.retry_after or 1.0,
            )
        only_flags = all(one.type == ProblemType.FLAG_INVALID for one in violations)
        hint = "correct the command line" if only_flags else ""
        raise PlanInvalid(message, hint=hint, violations=violations)
