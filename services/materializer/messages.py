"""Messages of `lns.materializer.v1` ↔ values."""

import base64
import binascii
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

from google.protobuf import timestamp_pb2
from lns.materializer.v1 import materializer_service_pb2 as pb
from lns.types.v1 import usage_pb2

from services.chassis.messages import absolute_path, invalid, parse_digest
from services.core.digest import Digest
from services.materializer.images import (
    Image,
    Lease,
    Materialized,
    Mount,
    Progress,
    Pruned,
    Stage,
    Usage,
    Verification,
)
from services.materializer.library import ImageFile

_MOUNTS_MAX = 256
_PAGE_DEFAULT = 100
_PAGE_MAX = 1000
_STAGES = {
    Stage.WAITING: usage_pb2.STAGE_WAITING,
    Stage.UNPACKING: usage_pb2.STAGE_UNPACKING,
    Stage.EXISTS: usage_pb2.STAGE_EXISTS,
    Stage.DONE: usage_pb2.STAGE_DONE,
}
_FILES = {
    pb.IMAGE_FILE_METADATA: ImageFile.METADATA,
    pb.IMAGE_FILE_DUMP: ImageFile.DUMP,
    pb.IMAGE_FILE_OBJECTS: ImageFile.OBJECTS,
}


def parse_materialize(
    request: pb.MaterializeRequest,
) -> tuple[Digest | None, Sequence[Mount]]:
    """The manifest and the mounts of a request; raises RequestInvalid, DigestInvalid."""
    digest = None
    if request.manifest_digest:
        digest = parse_digest(request.manifest_digest, "manifest_digest")
    if len(request.mounts) > _MOUNTS_MAX:
        raise invalid("mounts", f"are more than {_MOUNTS_MAX}")
    mounts = []
    for index, mount in enumerate(request.mounts):
        field = f"mounts[{index}]"
        names = [name for name in absolute_path(mount.path, f"{field}.path").split("/") if name]
        if not names or "." in names:
            raise invalid(f"{field}.path", f"{mount.path!r} is not a path below the root")
        mounts.append(
            Mount(
                family=mount.family,
                manifest_digest=parse_digest(mount.manifest_digest, f"{field}.manifest_digest"),
                path="/" + "/".join(names),
                read_only=mount.read_only,
            )
        )
    return digest, mounts


def format_progress(step: Progress) -> pb.MaterializeResponse:
    """One step of a materialization."""
    return pb.MaterializeResponse(
        progress=usage_pb2.Progress(
            digest=step.digest,
            stage=_STAGES[step.stage],
            done_bytes=step.done_bytes,
            total_bytes=step.total_bytes,
        )
    )


def format_result(made: Materialized) -> pb.MaterializeResponse:
    """The result of a materialization."""
    return pb.MaterializeResponse(
        result=pb.MaterializeResult(
            image=format_image(made.image),
            warnings=made.warnings,
            already_existed=made.already_existed,
        )
    )


def format_image(image: Image) -> pb.Image:
    """An image, its files relative to the root of the store."""
    return pb.Image(
        composefs_digest=image.image_digest,
        manifest_digest=image.manifest_digest or "",
        layers=[
            pb.ImageLayer(
                diff_id=layer.diff_id,
                blob_digest=layer.blob_digest or "",
                objects_path=f"layers/{layer.diff_id.hex}/objects.erofs"
                if layer.objects_bytes
                else "",
                objects_bytes=layer.objects_bytes,
                entry_count=layer.entry_count,
            )
            for layer in image.layers
        ],
        metadata_bytes=image.metadata_bytes,
        inode_count=image.inode_count,
        metadata_path=f"images/{image.image_digest.hex}.cfs",
        create_time=_format_time(image.create_time),
        read_only_paths=image.read_only_paths,
        has_acl=image.has_acl,
    )


def parse_page(request: pb.ListImagesRequest) -> tuple[tuple[datetime, str] | None, int]:
    """After which image a page starts, and how many it has; raises RequestInvalid."""
    if request.page_size < 0:
        raise invalid("page_size", f"cannot be {request.page_size}")
    size = min(request.page_size or _PAGE_DEFAULT, _PAGE_MAX)
    if not request.page_token:
        return None, size
    try:
        text = base64.urlsafe_b64decode(request.page_token.encode()).decode()
        time, _, digest = text.partition(" ")
        return (datetime.fromisoformat(time).astimezone(UTC), Digest(digest)), size
    except (ValueError, binascii.Error) as error:
        raise invalid("page_token", "is not one of an earlier response") from error


def format_page(images: Sequence[Image], size: int) -> pb.ListImagesResponse:
    """One page; `images` has one more than `size` where another page follows."""
    token = ""
    if len(images) > size:
        last = images[size - 1]
        text = f"{last.create_time.isoformat()} {last.image_digest}"
        token = base64.urlsafe_b64encode(text.encode()).decode()
    return pb.ListImagesResponse(
        images=[format_image(image) for image in images[:size]], next_page_token=token
    )


def format_verification(found: Verification) -> pb.VerifyImageResponse:
    """What verifying an image found."""
    return pb.VerifyImageResponse(
        object_count=found.object_count,
        checked_bytes=found.checked_bytes,
        damages=[
            pb.Damage(
                path=damage.path,
                object_digest=f"sha256:{damage.object_digest}" if damage.object_digest else "",
                diff_id=damage.diff_id or "",
                repaired=damage.repaired,
                description=damage.description,
            )
            for damage in found.damages
        ],
    )


def format_pruned(pruned: Pruned) -> pb.PruneImagesResponse:
    """What a prune removed."""
    return pb.PruneImagesResponse(
        images=pruned.images, layers=pruned.layers, freed_bytes=pruned.freed_bytes
    )


def format_usage(usage: Usage) -> pb.GetUsageResponse:
    """What the store takes."""
    return pb.GetUsageResponse(
        image_count=usage.image_count,
        layer_count=usage.layer_count,
        metadata_bytes=usage.metadata_bytes,
        layer_bytes=usage.layer_bytes,
        reclaimable_bytes=usage.reclaimable_bytes,
    )


def parse_file(request: pb.ReadImageFileRequest) -> tuple[ImageFile, Digest | None, int]:
    """Which file of an image is read, of which layer, and from where; raises RequestInvalid."""
    file = _FILES.get(request.file)
    if file is None:
        raise invalid("file", "must be given")
    if request.offset_bytes < 0:
        raise invalid("offset_bytes", f"cannot be {request.offset_bytes}")
    diff_id = parse_digest(request.diff_id, "diff_id") if file is ImageFile.OBJECTS else None
    return file, diff_id, request.offset_bytes


def parse_time_to_live(request: pb.AcquireLeaseRequest) -> timedelta | None:
    """How long a lease lasts; raises RequestInvalid."""
    if not request.HasField("time_to_live"):
        return None
    lasts = request.time_to_live.ToTimedelta()
    if lasts <= timedelta(0):
        raise invalid("time_to_live", "must be longer than nothing")
    return lasts


def format_lease(lease: Lease, image: Image) -> pb.AcquireLeaseResponse:
    """A lease with the image that it keeps."""
    return pb.AcquireLeaseResponse(
        lease=usage_pb2.Lease(
            lease_id=lease.lease_id,
            holder=lease.holder,
            digests=[lease.image_digest],
            expire_time=_format_time(lease.expire_time) if lease.expire_time else None,
        ),
        image=format_image(image),
    )


def _format_time(time: datetime) -> timestamp_pb2.Timestamp:
    message = timestamp_pb2.Timestamp()
    message.FromDatetime(time)
    return message
