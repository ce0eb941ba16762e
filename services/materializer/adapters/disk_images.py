"""Images on disk: metadata images as files, records in the catalogue."""

import re
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from pathlib import Path

from services.chassis.blocking import Blocking
from services.core.digest import Digest
from services.materializer.adapters.catalogue import Catalogue
from services.materializer.adapters.store_files import StoreFiles
from services.materializer.images import Image, Lease

_EVERY = 1 << 30
_IMAGE_NAME = re.compile(r"([0-9a-f]{64})\.cfs")


class DiskImages:
    """The port `Images`; `blocking` must have one thread, since that is the catalogue's."""

    def __init__(self, files: StoreFiles, catalogue: Catalogue, blocking: Blocking) -> None:
        self._files = files
        self._catalogue = catalogue
        self._blocking = blocking

    async def recover(self) -> None:
        """Brings records and files together again after a crash."""
        await self._blocking.run(self._recover)

    async def find_made(self, key: str) -> Image | None:
        """Returns the image that a request with this key made, if it is still there whole."""
        return await self._blocking.run(self._find_made, key)

    async def get(self, prefix: str) -> Image:
        """Returns the image with that prefix; raises ImageUnknown."""
        return await self._blocking.run(self._catalogue.get, prefix)

    async def add(self, image: Image, metadata: Path, *, key: str) -> Image:
        """Moves a metadata image into the store and records it."""
        return await self._blocking.run(self._add, image, metadata, key)

    async def is_intact(self, image: Image) -> bool:
        """Says whether an image with its layers exists and was not written to."""
        return await self._blocking.run(self._is_intact, image)

    async def vouch(self, image: Image) -> None:
        """Notes that an image with its layers was checked and is sound."""
        await self._blocking.run(self._files.reseal, image.tree.layers, image.image_digest)

    async def restore(self, digest: Digest, metadata: Path) -> None:
        """Puts a metadata image in the place of one that is damaged."""
        await self._blocking.run(self._files.publish_image, metadata, digest)

    async def list(self, *, before: tuple[datetime, str] | None, limit: int) -> Sequence[Image]:
        """Returns images, newest first."""
        return await self._blocking.run(self._catalogue.list, before, limit)

    async def remove(self, digests: Iterable[Digest]) -> int:
        """Removes images and their leases; returns the bytes that became free."""
        return await self._blocking.run(self._remove, tuple(digests))

    async def acquire(self, lease: Lease) -> Image:
        """Records a lease; raises ImageUnknown."""
        return await self._blocking.run(self._catalogue.acquire, lease)

    async def release(self, lease_id: str) -> None:
        """Forgets a lease."""
        await self._blocking.run(self._catalogue.release, lease_id)

    async def leased(self) -> frozenset[Digest]:
        """Returns the images that a lease keeps now."""
        return await self._blocking.run(self._catalogue.leased, datetime.now(UTC))

    def metadata_file(self, digest: Digest) -> Path:
        """The metadata image of an image."""
        return self._files.image(digest)

    def _find_made(self, key: str) -> Image | None:
        image = self._catalogue.made_by(key)
        if image is None or not self._is_intact(image):
            return None
        return image

    def _add(self, image: Image, metadata: Path, key: str) -> Image:
        before = self._catalogue.find(image.image_digest)
        if before is not None and self._is_intact(before):
            # Its layers may be others that make the same tree; a run may be using them.
            image = before
        else:
            self._files.publish_image(metadata, image.image_digest)
        self._catalogue.put(image, key)
        return image

    def _is_intact(self, image: Image) -> bool:
        return self._files.is_image_sealed(image.image_digest) and all(
            self._files.sealed_layer(layer.diff_id) is not None for layer in image.layers
        )

    def _is_there(self, image: Image) -> bool:
        return self._files.image(image.image_digest).exists() and all(
            self._files.layer(layer.diff_id).is_dir() for layer in image.layers
        )

    def _remove(self, digests: Sequence[Digest]) -> int:
        self._catalogue.remove(digests)
        return sum(self._files.remove_image(digest) for digest in digests)

    def _recover(self) -> None:
        """Forgets images that are not all there, removes files of which there is no record.

        What a lease keeps stays, however damaged: its holder relies on the record.
        """
        recorded = self._catalogue.list(None, _EVERY)
        leased = self._catalogue.leased(datetime.now(UTC))
        lost = [
            image.image_digest
            for image in recorded
            if image.image_digest not in leased and not self._is_there(image)
        ]
        self._remove(lost)
        known = {image.image_digest for image in recorded}.difference(lost)
        for path in self._files.images.iterdir():
            match = _IMAGE_NAME.fullmatch(path.name)
            if match and Digest.from_hex(match[1]) not in known:
                self._files.remove_image(Digest.from_hex(match[1]))
