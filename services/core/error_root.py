"""The root of the taxonomy of failures, without its leaves; `errors` has all of them."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum


class Kind(StrEnum):
    """The canonical code names of gRPC that lns uses."""

    INVALID_ARGUMENT = "INVALID_ARGUMENT"
    NOT_FOUND = "NOT_FOUND"
    ALREADY_EXISTS = "ALREADY_EXISTS"
    FAILED_PRECONDITION = "FAILED_PRECONDITION"
    RESOURCE_EXHAUSTED = "RESOURCE_EXHAUSTED"
    UNAVAILABLE = "UNAVAILABLE"
    DEADLINE_EXCEEDED = "DEADLINE_EXCEEDED"
    UNAUTHENTICATED = "UNAUTHENTICATED"
    PERMISSION_DENIED = "PERMISSION_DENIED"
    DATA_LOSS = "DATA_LOSS"
    ABORTED = "ABORTED"
    UNIMPLEMENTED = "UNIMPLEMENTED"
    INTERNAL = "INTERNAL"


@dataclass(frozen=True, slots=True, kw_only=True)
class Violation:
    """One problem of several that an error reports together.

    Attributes:
        subject: what is at fault: a JSON path (`$.spec.command`), a component, a digest.
        description: what is wrong with it and the way out, for a person.
        type: a short upper-case class of the problem for machines (`SCHEMA`, `MISSING`, an error
            reason); may be empty.
    """

    subject: str
    description: str
    type: str = ""


class LnsError(Exception):
    """The root of everything lns raises on purpose.

    A message says what failed and why in one line; `hint` says what to do about it. Neither holds a
    secret: both reach users and logs.

    Attributes:
        kind: the canonical code the error travels with.
        reason: its name in `lns.errors.v1.ErrorReason`, without prefix; the identity of the error.
        message: one line for a person.
        hint: one line with the way out, or empty.
        metadata: names and values for machines (`reference`, `digest`, `entry` …).
        violations: the single problems, where there are several.
        retry_after: seconds after which trying again makes sense, or None.
    """

    kind: Kind = Kind.INTERNAL
    reason: str = "INTERNAL"

    def __init__(
        self,
        message: str,
        *,
        hint: str = "",
        metadata: Mapping[str, str] | None = None,
        violations: Iterable[Violation] = (),
        retry_after: float | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        self.metadata: dict[str, str] = dict(metadata or {})
        self.violations: tuple[Violation, ...] = tuple(violations)
        self.retry_after = retry_after
