"""The closed taxonomy of failures: one exception class a reason, each with one canonical kind.

The tree, leaf classes named after their reason in `lns.errors.v1.ErrorReason`:

    LnsError
    ├─ ReferenceInvalid DigestInvalid ArtifactInvalid RequestInvalid DigestMismatch SettingsInvalid
    ├─ ManifestUnknown BlobUnknown RunUnknown ImageUnknown VolumeUnknown LeaseUnknown ExecUnknown
    │  ApprovalUnknown
    ├─ ArtifactTypeUnsupported PlatformUnsupported PlanInvalid LayerUnsafe LayerUnsupported
    │  RunStateConflict BlobsMissing HostUnready InUse RegistryProtocol · NameTaken
    ├─ CapacityExhausted TooManyRequests AttachLagging LimitExceeded
    ├─ RegistryUnavailable ServiceUnavailable GuestUnreachable · DeadlineExceeded
    ├─ RegistryUnauthenticated · RegistryDenied CallerDenied
    └─ ContentCorrupt · Conflict · Unimplemented · Internal VmFailed

`Unclassified` stands for a reason of a newer peer. This module knows names only;
`services.chassis.status` maps them to the wire and back. Exceptions are ordinary classes: a frozen
dataclass would break when a context manager sets `__traceback__`.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any


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


class ReferenceInvalid(LnsError):
    """A reference does not follow the grammar."""

    kind = Kind.INVALID_ARGUMENT
    reason = "REFERENCE_INVALID"


class DigestInvalid(LnsError):
    """A digest is not `sha256:` and 64 lower-case hexadecimal digits."""

    kind = Kind.INVALID_ARGUMENT
    reason = "DIGEST_INVALID"


class ArtifactInvalid(LnsError):
    """A document is not a valid artifact; `violations` has one entry per problem, by JSON path."""

    kind = Kind.INVALID_ARGUMENT
    reason = "ARTIFACT_INVALID"


class RequestInvalid(LnsError):
    """A request misses a field or holds a value outside its range."""

    kind = Kind.INVALID_ARGUMENT
    reason = "REQUEST_INVALID"


class DigestMismatch(LnsError):
    """Uploaded bytes do not have the announced digest or size."""

    kind = Kind.INVALID_ARGUMENT
    reason = "DIGEST_MISMATCH"


class SettingsInvalid(LnsError):
    """A setting, flag or environment variable cannot be used as given."""

    kind = Kind.INVALID_ARGUMENT
    reason = "SETTINGS_INVALID"


class ManifestUnknown(LnsError):
    """The registry has no manifest of that name."""

    kind = Kind.NOT_FOUND
    reason = "MANIFEST_UNKNOWN"


class BlobUnknown(LnsError):
    """Neither the store nor the registry has the blob."""

    kind = Kind.NOT_FOUND
    reason = "BLOB_UNKNOWN"


class RunUnknown(LnsError):
    """There is no run with that id or name."""

    kind = Kind.NOT_FOUND
    reason = "RUN_UNKNOWN"


class ImageUnknown(LnsError):
    """The image store has no such image."""

    kind = Kind.NOT_FOUND
    reason = "IMAGE_UNKNOWN"


class VolumeUnknown(LnsError):
    """There is no such volume."""

    kind = Kind.NOT_FOUND
    reason = "VOLUME_UNKNOWN"


class LeaseUnknown(LnsError):
    """There is no such lease; it was released or ran out."""

    kind = Kind.NOT_FOUND
    reason = "LEASE_UNKNOWN"


class ExecUnknown(LnsError):
    """There is no such exec in the run."""

    kind = Kind.NOT_FOUND
    reason = "EXEC_UNKNOWN"


class ArtifactTypeUnsupported(LnsError):
    """An artifact's family cannot be used where it is named."""

    kind = Kind.FAILED_PRECONDITION
    reason = "ARTIFACT_TYPE_UNSUPPORTED"


class PlatformUnsupported(LnsError):
    """The image has no manifest for the platform."""

    kind = Kind.FAILED_PRECONDITION
    reason = "PLATFORM_UNSUPPORTED"


class PlanInvalid(LnsError):
    """A plan has problems; `violations` has every one of them, by component."""

    kind = Kind.FAILED_PRECONDITION
    reason = "PLAN_INVALID"


class LayerUnsafe(LnsError):
    """A layer holds a hostile entry or exceeds a limit; metadata names the `entry`."""

    kind = Kind.FAILED_PRECONDITION
    reason = "LAYER_UNSAFE"


class LayerUnsupported(LnsError):
    """A layer has a media type or content that lns does not process."""

    kind = Kind.FAILED_PRECONDITION
    reason = "LAYER_UNSUPPORTED"


class RunStateConflict(LnsError):
    """The run, exec or volume is not in a state that permits the operation."""

    kind = Kind.FAILED_PRECONDITION
    reason = "RUN_STATE_CONFLICT"


class BlobsMissing(LnsError):
    """Blobs are missing in the store; one `MISSING` violation each."""

    kind = Kind.FAILED_PRECONDITION
    reason = "BLOBS_MISSING"


class HostUnready(LnsError):
    """The machine lacks something that a run needs."""

    kind = Kind.FAILED_PRECONDITION
    reason = "HOST_UNREADY"


class NameTaken(LnsError):
    """A name already belongs to another resource."""

    kind = Kind.ALREADY_EXISTS
    reason = "NAME_TAKEN"


class InUse(LnsError):
    """Something is used by a run and cannot be removed or opened again."""

    kind = Kind.FAILED_PRECONDITION
    reason = "IN_USE"


class CapacityExhausted(LnsError):
    """Disk, memory or a configured limit of the host is exhausted."""

    kind = Kind.RESOURCE_EXHAUSTED
    reason = "CAPACITY_EXHAUSTED"


class TooManyRequests(LnsError):
    """A registry asked to slow down."""

    kind = Kind.RESOURCE_EXHAUSTED
    reason = "TOO_MANY_REQUESTS"


class AttachLagging(LnsError):
    """A reader fell too far behind and was let go."""

    kind = Kind.RESOURCE_EXHAUSTED
    reason = "ATTACH_LAGGING"


class LimitExceeded(LnsError):
    """Something is larger, deeper or longer than lns accepts."""

    kind = Kind.RESOURCE_EXHAUSTED
    reason = "LIMIT_EXCEEDED"


class RegistryUnavailable(LnsError):
    """A registry cannot be reached or fails by itself."""

    kind = Kind.UNAVAILABLE
    reason = "REGISTRY_UNAVAILABLE"


class ServiceUnavailable(LnsError):
    """Another lns service cannot be reached."""

    kind = Kind.UNAVAILABLE
    reason = "SERVICE_UNAVAILABLE"


class GuestUnreachable(LnsError):
    """The guest did not answer in time or its channel broke."""

    kind = Kind.UNAVAILABLE
    reason = "GUEST_UNREACHABLE"


class DeadlineExceeded(LnsError):
    """The call was not finished before its deadline."""

    kind = Kind.DEADLINE_EXCEEDED
    reason = "DEADLINE_EXCEEDED"


class RegistryUnauthenticated(LnsError):
    """The registry wants a login, or refused the one it got."""

    kind = Kind.UNAUTHENTICATED
    reason = "REGISTRY_UNAUTHENTICATED"


class RegistryDenied(LnsError):
    """The registry knows who asks and does not permit it."""

    kind = Kind.PERMISSION_DENIED
    reason = "REGISTRY_DENIED"


class CallerDenied(LnsError):
    """The caller of a service is not permitted to do this."""

    kind = Kind.PERMISSION_DENIED
    reason = "CALLER_DENIED"


class ContentCorrupt(LnsError):
    """Stored or received content does not match its digest."""

    kind = Kind.DATA_LOSS
    reason = "CONTENT_CORRUPT"


class Conflict(LnsError):
    """The operation lost a race and may be tried again."""

    kind = Kind.ABORTED
    reason = "CONFLICT"


class Unimplemented(LnsError):
    """This version of lns does not do that."""

    kind = Kind.UNIMPLEMENTED
    reason = "UNIMPLEMENTED"


class Internal(LnsError):
    """A defect of lns; the log has the details under the error id."""

    kind = Kind.INTERNAL
    reason = "INTERNAL"


class VmFailed(LnsError):
    """A virtual machine could not be started or ended unexpectedly."""

    kind = Kind.INTERNAL
    reason = "VM_FAILED"


class RegistryProtocol(LnsError):
    """A registry's answer breaks the distribution specification."""

    kind = Kind.FAILED_PRECONDITION
    reason = "REGISTRY_PROTOCOL"


class ApprovalUnknown(LnsError):
    """No approval of that id is waited for."""

    kind = Kind.NOT_FOUND
    reason = "APPROVAL_UNKNOWN"


class Unclassified(LnsError):
    """An error of a peer whose reason this version does not know; it keeps the peer's names."""

    def __init__(self, message: str, *, kind: Kind, reason: str, **details: Any) -> None:
        super().__init__(message, **details)
        self.kind = kind
        self.reason = reason


LEAVES: Mapping[str, type[LnsError]] = {
    leaf.reason: leaf for leaf in LnsError.__subclasses__() if leaf is not Unclassified
}
"""Every leaf class by its reason; a test holds it against `lns.errors.v1.ErrorReason`."""
