"""Protos ↔ values of the gateway."""

import base64
import binascii
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Final

from google.protobuf import duration_pb2, timestamp_pb2
from lns.registry.v1 import registry_service_pb2 as pb
from lns.types.v1 import usage_pb2

from services.chassis.messages import format_descriptor, parse_digest, parse_platform
from services.core.errors import RequestInvalid
from services.core.manifest import Index
from services.core.platforms import Platform
from services.registry_gateway.artifact_types import ArtifactType
from services.registry_gateway.blobs import Commit, Header
from services.registry_gateway.login_ports import DeviceCode, StoredLogin
from services.registry_gateway.manifests import Resolved
from services.registry_gateway.ports import StoredLease, StoredTag
from services.registry_gateway.progress import Snapshot, Stage
from services.registry_gateway.pull import Pulled, PullMode
from services.registry_gateway.push_image import PushedImage

_STAGES: Final = {
    Stage.WAITING: usage_pb2.STAGE_WAITING,
    Stage.DOWNLOADING: usage_pb2.STAGE_DOWNLOADING,
    Stage.UPLOADING: usage_pb2.STAGE_UPLOADING,
    Stage.RETRYING: usage_pb2.STAGE_RETRYING,
    Stage.EXISTS: usage_pb2.STAGE_EXISTS,
    Stage.MOUNTED: usage_pb2.STAGE_MOUNTED,
    Stage.DONE: usage_pb2.STAGE_DONE,
}
_MODES: Final = {
    pb.PULL_MODE_UNSPECIFIED: PullMode.ALWAYS,
    pb.PULL_MODE_ALWAYS: PullMode.ALWAYS,
    pb.PULL_MODE_MISSING: PullMode.MISSING,
    pb.PULL_MODE_NEVER: PullMode.NEVER,
}


def parse_mode(mode: int) -> PullMode:
    """Returns the pull mode of an enum value.

    Raises:
        RequestInvalid: it is a value that this version does not know.
    """
    if mode not in _MODES:
        raise RequestInvalid(f"the pull mode {mode} does not exist")
    return _MODES[pb.PullMode.ValueType(mode)]


def parse_wanted(
    request: pb.GetManifestRequest
    | pb.PullRequest
    | pb.InspectManifestRequest
    | pb.CopyManifestRequest,
) -> Platform | None:
    """Returns the platform that a request asks for, or None.

    Raises:
        RequestInvalid: it is not complete, or one platform and all are asked for.
    """
    if not request.HasField("platform"):
        return None
    if isinstance(request, pb.PullRequest | pb.CopyManifestRequest) and request.all_platforms:
        raise RequestInvalid(
            "one platform and all platforms cannot both be asked for",
            hint="leave out --platform or --all-platforms",
        )
    asked = parse_platform(request.platform)
    return Platform.of(asked.os, asked.architecture, asked.variant)


def parse_copied(request: pb.CopyManifestRequest) -> Platform | None:
    """Returns the platform whose manifest alone is copied, or None for all of an index.

    Raises:
        RequestInvalid: both are asked for, or the platform is not complete.
    """
    if request.all_platforms and request.HasField("platform"):
        raise RequestInvalid(
            "all platforms and one of them are two wishes", hint="give --platform or leave it out"
        )
    return parse_wanted(request)


async def parse_steps(
    requests: AsyncIterator[pb.WriteBlobRequest],
) -> AsyncIterator[Header | bytes | Commit]:
    """Yields the steps of a write.

    Raises:
        DigestInvalid: the header's digest is not one.
        RequestInvalid: a message says nothing.
    """
    async for request in requests:
        step = request.WhichOneof("step")
        if step == "header":
            yield Header(
                digest=parse_digest(request.header.digest, "header.digest"),
                size=request.header.size_bytes,
            )
        elif step == "chunk":
            yield request.chunk
        elif step == "commit":
            yield Commit()
        else:
            raise RequestInvalid("a step of a write is a header, a chunk or a commit")


def parse_page_size(wanted: int, *, default: int, most: int) -> int:
    """Returns how many entries a page has.

    Raises:
        RequestInvalid: fewer than none are wanted.
    """
    if wanted < 0:
        raise RequestInvalid("page_size is negative")
    return min(wanted or default, most)


def format_token(after: str) -> str:
    """Returns the page token for what comes after a name; none after the last page."""
    return base64.urlsafe_b64encode(after.encode()).decode("ascii") if after else ""


def parse_token(token: str) -> str:
    """Returns the name that a page token of `format_token` stands for.

    Raises:
        RequestInvalid: it is no such token.
    """
    try:
        return base64.b64decode(token, altchars=b"-_", validate=True).decode("utf-8")
    except (binascii.Error, ValueError) as error:
        raise RequestInvalid("page_token is not one of an earlier answer") from error


def format_progress(snapshot: Snapshot) -> usage_pb2.Progress:
    """Returns the message of a blob's progress."""
    return usage_pb2.Progress(
        digest=snapshot.digest,
        stage=_STAGES[snapshot.stage],
        done_bytes=snapshot.done,
        total_bytes=snapshot.total,
    )


def format_pull_event(event: Snapshot | Pulled) -> pb.PullResponse:
    """Returns a message of the stream of a pull."""
    if isinstance(event, Snapshot):
        return pb.PullResponse(progress=format_progress(event))
    return pb.PullResponse(result=format_pulled(event))


def format_push_event(event: Snapshot | PushedImage) -> pb.PushImageResponse:
    """Returns a message of the stream of a push."""
    if isinstance(event, Snapshot):
        return pb.PushImageResponse(progress=format_progress(event))
    return pb.PushImageResponse(result=format_pushed(event))


def format_copy_event(event: Snapshot | PushedImage) -> pb.CopyManifestResponse:
    """Returns a message of the stream of a copy."""
    if isinstance(event, Snapshot):
        return pb.CopyManifestResponse(progress=format_progress(event))
    return pb.CopyManifestResponse(result=format_pushed(event))


def format_manifest(resolved: Resolved, config: bytes) -> pb.GetManifestResponse:
    """Returns the answer of GetManifest."""
    return pb.GetManifestResponse(
        root=format_descriptor(resolved.root.descriptor),
        descriptor=format_descriptor(resolved.shown.descriptor),
        manifest=resolved.shown.raw,
        config=config,
        reference=str(resolved.reference),
        repository=resolved.reference.repository,
    )


def format_pulled(pulled: Pulled) -> pb.PullResult:
    """Returns the result of a pull."""
    return pb.PullResult(
        reference=str(pulled.resolved.reference),
        root=format_descriptor(pulled.resolved.root.descriptor),
        descriptor=format_descriptor(pulled.resolved.shown.descriptor),
        manifest=pulled.resolved.shown.raw,
        family=pulled.family,
        document=pulled.document,
        transferred_bytes=pulled.transferred_bytes,
        existing_blobs=pulled.existing_blobs,
    )


def format_inspected(
    resolved: Resolved, *, config: bytes, family: str
) -> pb.InspectManifestResponse:
    """Returns the answer of InspectManifest."""
    shown = resolved.shown
    platforms = shown.manifests if isinstance(shown, Index) else ()
    return pb.InspectManifestResponse(
        reference=str(resolved.reference),
        descriptor=format_descriptor(shown.descriptor),
        manifest=shown.raw,
        config=config,
        family=family,
        total_bytes=0 if isinstance(shown, Index) else shown.total_bytes,
        platforms=[format_descriptor(entry) for entry in platforms],
    )


def format_pushed(pushed: PushedImage) -> pb.PushImageResult:
    """Returns the result of a push or copy."""
    return pb.PushImageResult(
        reference=str(pushed.reference),
        descriptor=format_descriptor(pushed.descriptor),
        transferred_bytes=pushed.transferred_bytes,
        warnings=pushed.warnings,
    )


def format_type(one: ArtifactType) -> pb.ArtifactType:
    """Returns the message of an artifact family."""
    family = one.family
    return pb.ArtifactType(
        slug=family.slug,
        kind=family.kind,
        path_segment=family.path_segment,
        application_layer=family.is_mountable,
        default_mount_path=family.default_mount,
        artifact_type=family.artifact_type,
        config_media_type=family.config_media_type,
        schema_json=one.schema,
    )


def format_lease(lease: StoredLease) -> usage_pb2.Lease:
    """Returns the message of a lease."""
    return usage_pb2.Lease(
        lease_id=lease.lease_id,
        holder=lease.holder,
        digests=list(lease.digests),
        expire_time=_time(lease.expires) if lease.expires else None,
    )


def parse_life(request: pb.AcquireLeaseRequest) -> timedelta | None:
    """Returns how long a lease lasts, or None.

    Raises:
        RequestInvalid: it is not positive, or longer than a year.
    """
    if not request.HasField("time_to_live"):
        return None
    seconds = request.time_to_live.seconds
    if not 0 <= seconds <= _LONGEST_LEASE_SECONDS or request.time_to_live.nanos < 0:
        raise RequestInvalid("time_to_live is negative or longer than a year")
    life = timedelta(seconds=seconds, microseconds=request.time_to_live.nanos // 1000)
    if not life:
        raise RequestInvalid("time_to_live is nothing")
    return life


def format_login(login: StoredLogin) -> pb.StoredLogin:
    """Returns the message of a login, which has no secret."""
    return pb.StoredLogin(
        registry=login.registry, username=login.username, stored_in=login.stored_in
    )


def format_device_code(login_id: str, code: DeviceCode) -> pb.StartDeviceLoginResponse:
    """Returns what a person must be shown of a device login, and its id."""
    life = duration_pb2.Duration()
    life.FromNanoseconds(round(code.expires_in * 1e9))
    return pb.StartDeviceLoginResponse(
        login_id=login_id,
        user_code=code.user_code,
        verification_uri=code.verification_uri,
        expires_in=life,
    )


def format_stored(tag: StoredTag) -> pb.StoredImage:
    """Returns the message of an image of the store."""
    return pb.StoredImage(
        reference=tag.reference,
        descriptor=format_descriptor(tag.root),
        family=tag.family,
        total_bytes=tag.total_bytes,
        create_time=_time(tag.created),
        platform_manifest=format_descriptor(tag.manifest) if tag.manifest else None,
    )


def _time(moment: datetime) -> timestamp_pb2.Timestamp:
    stamp = timestamp_pb2.Timestamp()
    stamp.FromDatetime(moment.astimezone(UTC).replace(tzinfo=None))
    return stamp


_LONGEST_LEASE_SECONDS = 366 * 24 * 3600
