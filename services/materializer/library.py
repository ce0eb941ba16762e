"""What can be done with images that the store has."""

import contextlib
from collections.abc import AsyncIterator, Callable, Sequence
from datetime import UTC, datetime, timedelta
from enum import Enum
from pathlib import Path

from services.core.digest import Digest
from services.core.errors import ContentCorrupt, InUse, RequestInvalid
from services.materializer.images import (
    Image,
    Lease,
    Pruned,
    Usage,
    image_prefix,
)
from services.materializer.pins import Pins
from services.materializer.ports import Composer, Images, Layers

_ALL = 1 << 30
_LEASE_ID_MAX = 200


class ImageFile(Enum):
    """A file of an image."""

    METADATA = "metadata"
    DUMP = "dump"
    OBJECTS = "objects"


class Library:
    """Describes, verifies, exports and prunes images, and keeps leases on them."""

    def __init__(
        self,
        *,
        layers: Layers,
        composer: Composer,
        images: Images,
        pins: Pins,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._layers = layers
        self._composer = composer
        self._images = images
        self._pins = pins
        self._now = now

    async def get(self, name: str) -> Image:
        """Returns an image by its digest or a prefix of it; raises RequestInvalid, ImageUnknown."""
        return await self._images.get(image_prefix(name))

    async def list(self, *, before: tuple[datetime, str] | None, limit: int) -> Sequence[Image]:
        """Returns at most `limit` images behind `before`, newest first."""
        return await self._images.list(before=before, limit=limit)

    async def remove(self, name: str) -> None:
        """Removes an image; its layers go with the next prune. Raises ImageUnknown, InUse."""
        image = await self.get(name)
        if image.image_digest in await self._images.leased():
            raise InUse(
                f"the image {image.image_digest} is used by a run",
                hint="remove the runs that use it first",
                metadata={"image": image.image_digest},
            )
        await self._images.remove([image.image_digest])

    async def prune(self, *, dry_run: bool) -> Pruned:
        """Removes images that no lease keeps, and layers that no image needs then."""
        images = await self._images.list(before=None, limit=_ALL)
        leased = await self._images.leased()
        doomed = [image for image in images if image.image_digest not in leased]
        needed = {
            layer.diff_id
            for image in images
            if image.image_digest in leased
            for layer in image.layers
        }
        stored = await self._layers.list()
        unneeded = sorted(
            diff_id for diff_id in stored if diff_id not in needed and diff_id not in self._pins
        )
        freed = sum(image.metadata_bytes for image in doomed)
        freed += sum(stored[diff_id] for diff_id in unneeded)
        if not dry_run:
            freed = await self._images.remove([image.image_digest for image in doomed])
            freed += await self._layers.remove(unneeded)
        return Pruned(
            images=tuple(sorted(image.image_digest for image in doomed)),
            layers=tuple(unneeded),
            freed_bytes=freed,
        )

    async def usage(self) -> Usage:
        """Says what the store takes on disk."""
        images = await self._images.list(before=None, limit=_ALL)
        stored = await self._layers.list()
        reclaimable = await self.prune(dry_run=True)
        return Usage(
            image_count=len(images),
            layer_count=len(stored),
            metadata_bytes=sum(image.metadata_bytes for image in images),
            layer_bytes=sum(stored.values()),
            reclaimable_bytes=reclaimable.freed_bytes,
        )

    @contextlib.asynccontextmanager
    async def file(self, name: str, what: ImageFile, diff_id: Digest | None) -> AsyncIterator[Path]:
        """Yields a file of an image, to be read while the block runs.

        Raises:
            ImageUnknown: there is no such image.
            RequestInvalid: the image has no such layer, or the layer no objects.
            ContentCorrupt: something of the image is missing, or was written to and not checked.
        """
        image = await self.get(name)
        if not await self._images.is_intact(image):
            raise _damaged(image)
        with self._pins.hold(layer.diff_id for layer in image.layers):
            if what is ImageFile.METADATA:
                yield self._images.metadata_file(image.image_digest)
            elif what is ImageFile.DUMP:
                async with self._composer.dump(image.tree) as path:
                    yield path
            else:
                layer = next((one for one in image.layers if one.diff_id == diff_id), None)
                if layer is None or not layer.objects_bytes:
                    raise RequestInvalid(
                        f"the image {image.image_digest} has no layer {diff_id} with objects"
                    )
                yield self._layers.objects_file(layer.diff_id)

    async def acquire_lease(
        self, *, lease_id: str, holder: str, name: str, lasts: timedelta | None
    ) -> tuple[Lease, Image]:
        """Keeps an image from being pruned; the same id again is the same lease.

        Raises:
            RequestInvalid: the id is empty or too long.
            ImageUnknown: there is no such image.
            ContentCorrupt: something of it is missing, or was written to and not checked since.
        """
        if not 1 <= len(lease_id) <= _LEASE_ID_MAX:
            raise RequestInvalid(f"lease_id must have 1 to {_LEASE_ID_MAX} characters")
        image = await self.get(name)
        lease = Lease(
            lease_id=lease_id,
            holder=holder,
            image_digest=image.image_digest,
            expire_time=self._now() + lasts if lasts is not None else None,
        )
        image = await self._images.acquire(lease)
        if not await self._images.is_intact(image):
            await self._images.release(lease_id)
            raise _damaged(image)
        return lease, image

    async def release_lease(self, lease_id: str) -> None:
        """Gives a lease up."""
        await self._images.release(lease_id)


def _damaged(image: Image) -> ContentCorrupt:
    return ContentCorrupt(
        f"files of the image {image.image_digest} are missing or were written to",
        hint="`lns image verify --repair` checks it and makes it whole",
        metadata={"image": image.image_digest},
    )
