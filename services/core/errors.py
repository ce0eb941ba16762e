"""The closed taxonomy of failures: one exception class a reason, each with one canonical kind.

The tree, leaf classes named after their reason in `lns.errors.v1.ErrorReason`:

    LnsError
    ├─ ReferenceInvalid DigestInvalid ArtifactInvalid RequestInvalid DigestMismatch SettingsInvalid
    ├─ ManifestUnknown BlobUnknown RunUnknown ImageUnknown VolumeUnknown LeaseUnknown ExecUnknown
    │  ApprovalUnknown SnapshotUnknown
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

from collections.abc import Mapping
from typing import Any

from services.core.error_root import Kind as Kind  # noqa: PLC0414 - passed on
from services.core.error_root import LnsError as LnsError  # noqa: PLC0414 - passed on
from services.core.error_root import Violation as Violation  # noqa: PLC0414 - passed on


class ReferenceInvalid(LnsError):
    """A reference does not follow the grammar."""

    kind = Kind.INVALID_ARGUMENT
    reason = "REFERENCE_INVALID"


class DigestInvalid(LnsError):
    """A digest is not `sha256:` and 64, nor `sha512:` and 128 lower-case hexadecimal digits."""

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


class SnapshotUnknown(LnsError):
    """No snapshot has that name or key."""

    kind = Kind.NOT_FOUND
    reason = "SNAPSHOT_UNKNOWN"


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
    """No run has that id or name."""

    kind = Kind.NOT_FOUND
    reason = "RUN_UNKNOWN"


class ImageUnknown(LnsError):
    """The image store has no such image."""

    kind = Kind.NOT_FOUND
    reason = "IMAGE_UNKNOWN"


class VolumeUnknown(LnsError):
    """The volume does not exist."""

    kind = Kind.NOT_FOUND
    reason = "VOLUME_UNKNOWN"


class LeaseUnknown(LnsError):
    """The lease does not exist; it was released or ran out."""

    kind = Kind.NOT_FOUND
    reason = "LEASE_UNKNOWN"


class ExecUnknown(LnsError):
    """The run has no such exec."""

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


class CredentialUnusable(LnsError):
    """A credential cannot be had: its command fails, its keyring is locked, its issuer refuses."""

    kind = Kind.FAILED_PRECONDITION
    reason = "CREDENTIAL_UNUSABLE"


class RunNotSuspendable(LnsError):
    """A run has something that cannot be saved with it."""

    kind = Kind.FAILED_PRECONDITION
    reason = "RUN_NOT_SUSPENDABLE"


class SavedMachineUnusable(LnsError):
    """What was saved of a machine cannot be resumed on this host any more."""

    kind = Kind.FAILED_PRECONDITION
    reason = "SAVED_MACHINE_UNUSABLE"


class RunNotSnapshottable(LnsError):
    """A run has something that a run which goes on from a snapshot of it cannot have, too."""

    kind = Kind.FAILED_PRECONDITION
    reason = "RUN_NOT_SNAPSHOTTABLE"


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
