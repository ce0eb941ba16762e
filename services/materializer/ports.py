"""What the materializer's use cases need from the world.

Every call may raise CapacityExhausted where it writes and the disk is full.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from datetime import datetime
from pathlib import Path
from typing import Protocol

from services.core.digest import Digest
from services.materializer.images import (
    Composed,
    Image,
    ImageLayer,
    LayerSource,
    Lease,
    MountSource,
    Tree,
    Verification,
)

Progressed = Callable[[int], None]
"""Takes the number of bytes done so far."""


class Blobs(Protocol):
    """The blobs that the gateway keeps: manifests, configs, layers."""

    async def read(self, digest: Digest, *, limit: int) -> bytes:
        """Returns a small blob whole, its digest verified.

        Raises:
            BlobsMissing: the gateway does not have it.
            LimitExceeded: it has more than `limit` bytes.
            ContentCorrupt: it does not match its digest.
            ServiceUnavailable: the gateway does not answer.
        """

    def file(self, digest: Digest) -> AbstractAsyncContextManager[Path]:
        """Yields a file with the blob's bytes that stays while the block runs; raises as `read`."""


class Layers(Protocol):
    """The layers of the store: made whole or not at all, each once."""

    async def find(self, diff_id: Digest) -> ImageLayer | None:
        """Returns what the store has of a layer, without its blob's digest.

        None if it has nothing, or something that may be damaged: building it again replaces that.
        """

    async def build(
        self, source: LayerSource, blob: Path, progressed: Progressed, *, replace: bool = False
    ) -> None:
        """Makes a layer of a blob; with `replace` in place of the existing one.

        Raises:
            LayerUnsafe: the layer is malformed, hostile or beyond the limits.
            ContentCorrupt: it does not have its diffID.
        """

    async def build_mounts(
        self,
        diff_id: Digest,
        mounts: Sequence[MountSource],
        blobs: Mapping[Digest, Path],
        *,
        replace: bool = False,
    ) -> None:
        """Makes one layer of mounts; raises LayerUnsafe as `build`."""

    async def remove(self, diff_ids: Iterable[Digest]) -> int:
        """Removes layers; returns the bytes that became free."""

    async def list(self) -> Mapping[Digest, int]:
        """Returns every layer with the bytes it takes."""

    def objects_file(self, diff_id: Digest) -> Path:
        """The object pack of a layer."""


class Composer(Protocol):
    """Work on whole images, all of whose layers are in the store."""

    def compose(self, tree: Tree) -> AbstractAsyncContextManager[tuple[Composed, Path]]:
        """Yields the metadata image of a tree, in a file that goes with the block.

        Raises:
            LayerUnsafe: the layers do not fit together; metadata names layer and entry.
            ContentCorrupt: an entry list is damaged.
        """

    def dump(self, tree: Tree) -> AbstractAsyncContextManager[Path]:
        """Yields a file with the composefs dump of a tree; raises as `compose`."""

    async def verify(self, tree: Tree, *, metadata: Path, digest: Digest) -> Verification:
        """Hashes every object of a tree's layers again, and the metadata image."""


class Images(Protocol):
    """The images of the store: metadata images, their records, and leases on them."""

    async def find_made(self, key: str) -> Image | None:
        """Returns the image that a request with this key made, if it is still there whole."""

    async def get(self, prefix: str) -> Image:
        """Returns the image whose digest begins with these hexadecimal digits.

        Raises:
            ImageUnknown: no image has it, or several do.
        """

    async def add(self, image: Image, metadata: Path, *, key: str) -> Image:
        """Moves a metadata image into the store and records it with the key that made it.

        Returns the image as it is recorded: an equal one may have been there before.
        """

    async def is_intact(self, image: Image) -> bool:
        """Says whether an image with its layers exists and was not written to."""

    async def vouch(self, image: Image) -> None:
        """Notes that an image with its layers was checked and is sound."""

    async def restore(self, digest: Digest, metadata: Path) -> None:
        """Puts a metadata image in the place of one that is damaged."""

    async def list(self, *, before: tuple[datetime, str] | None, limit: int) -> Sequence[Image]:
        """Returns at most `limit` images, newest first, those behind `before` only."""

    async def remove(self, digests: Iterable[Digest]) -> int:
        """Removes images and their leases; returns the bytes that became free."""

    async def acquire(self, lease: Lease) -> Image:
        """Records a lease, in place of one with the same id; returns its image.

        Raises:
            ImageUnknown: the image is not in the store.
        """

    async def release(self, lease_id: str) -> None:
        """Forgets a lease; nothing if it is gone already."""

    async def leased(self) -> frozenset[Digest]:
        """Returns the images that a lease keeps now."""

    def metadata_file(self, digest: Digest) -> Path:
        """The metadata image of an image."""


class Refetch(Protocol):
    """Brings back what is lost or damaged in the gateway's store."""

    async def manifest(self, digest: Digest) -> None:
        """Pulls what is lost or damaged of a manifest with everything it names.

        Raises:
            BlobsMissing: the gateway does not know where it came from.
            LnsError: the registry's, where it cannot be pulled.
        """
