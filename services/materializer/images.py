"""Images and what they are made of, as values."""

import re
from dataclasses import dataclass
from datetime import datetime
from enum import Enum

from services.core.digest import Digest
from services.core.errors import RequestInvalid

PREFIX_DIGITS_MIN = 6
_PREFIX = re.compile(r"(?:sha256:)?([0-9a-f]{6,64})")


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageLayer:
    """A layer of an image.

    Attributes:
        diff_id: digest of the uncompressed layer; of the mounts' layer, of what it is made from.
        blob_digest: the blob it was made from, None for the mounts' layer.
        objects_bytes: size of its object pack; 0 where it has none.
        entry_count: number of entries.
    """

    diff_id: Digest
    blob_digest: Digest | None
    objects_bytes: int
    entry_count: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Image:
    """An image of the store.

    Attributes:
        image_digest: fs-verity digest of the metadata image.
        manifest_digest: the OCI manifest it was made from, None for an imageless one.
        layers: lowest first; the mounts' layer, where there is one, last.
        metadata_bytes: size of the metadata image.
        inode_count: number of inodes.
        has_acl: whether an inode has a POSIX access control list.
        read_only_paths: where in the tree the mounts are that the workload may not change, sorted.
        mounts: the artifacts that the mounts' layer was made from, as they were asked for.
        create_time: when it was made.
    """

    image_digest: Digest
    manifest_digest: Digest | None
    layers: tuple[ImageLayer, ...]
    metadata_bytes: int
    inode_count: int
    has_acl: bool
    read_only_paths: tuple[str, ...]
    mounts: tuple["Mount", ...]
    create_time: datetime

    @property
    def tree(self) -> "Tree":
        """What its tree is merged from."""
        return Tree(layers=tuple(layer.diff_id for layer in self.layers), mounts=self.mounts)


@dataclass(frozen=True, slots=True, kw_only=True)
class Mount:
    """An artifact to mount.

    Attributes:
        family: slug of the artifact's family.
        manifest_digest: digest of the artifact's manifest.
        path: canonical absolute path.
        read_only: whether the workload may change nothing below the path.
    """

    family: str
    manifest_digest: Digest
    path: str
    read_only: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Tree:
    """What the tree of an image is merged from.

    Attributes:
        layers: diffIDs, lowest first; where there are mounts the last layer is theirs.
    """

    layers: tuple[Digest, ...]
    mounts: tuple[Mount, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Lease:
    """Keeps an image from being pruned.

    Attributes:
        lease_id: chosen by who holds it.
        holder: who that is and what for, for users.
        image_digest: the image.
        expire_time: when it ends by itself; None: when it is released.
    """

    lease_id: str
    holder: str
    image_digest: Digest
    expire_time: datetime | None


class Stage(Enum):
    """What happens to a layer."""

    WAITING = "waiting"
    UNPACKING = "unpacking"
    EXISTS = "exists"
    DONE = "done"


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """How far one layer is.

    Attributes:
        digest: the layer's blob, or the mounts' layer.
        done_bytes: bytes of the blob that were read.
        total_bytes: bytes of the blob; 0 where that is not known.
    """

    digest: Digest
    stage: Stage
    done_bytes: int = 0
    total_bytes: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Materialized:
    """What a materialization made.

    Attributes:
        warnings: what is not an error but a person should read.
        already_existed: whether the store had the image already.
    """

    image: Image
    warnings: tuple[str, ...] = ()
    already_existed: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerSource:
    """A layer that an image needs: what its manifest and its config say of it."""

    blob_digest: Digest
    blob_bytes: int
    diff_id: Digest


@dataclass(frozen=True, slots=True, kw_only=True)
class MountSource:
    """A mount with its content at hand: of a file, or of archives.

    Attributes:
        path: canonical absolute path.
        content: content of the file, None where there are archives.
        blobs: the archives, lowest first.
        titles: for each blob the name of the one file that it is, below `path`; empty for an
            archive.
        label: what is mounted, for errors: `fileset sha256:4f1c… at /opt/data`.
    """

    path: str
    content: str | None = None
    blobs: tuple[Digest, ...] = ()
    titles: tuple[str, ...] = ()
    label: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Usage:
    """What the store takes on disk, in bytes."""

    image_count: int
    layer_count: int
    metadata_bytes: int
    layer_bytes: int
    reclaimable_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Pruned:
    """What a prune removed, or would."""

    images: tuple[Digest, ...]
    layers: tuple[Digest, ...]
    freed_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Damage:
    """What is damaged of an image.

    Attributes:
        diff_id: the layer, None for the metadata image.
        path: path in the image, or the store's file where no path is known.
        object_digest: fs-verity digest of the object, hexadecimal, or empty.
    """

    diff_id: Digest | None
    path: str
    object_digest: str
    description: str
    repaired: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Verification:
    """What verifying an image found."""

    object_count: int
    checked_bytes: int
    damages: tuple[Damage, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Composed:
    """A metadata image that was written to a file and is not in the store yet."""

    digest: Digest
    metadata_bytes: int
    inode_count: int
    has_acl: bool
    read_only_paths: tuple[str, ...]


def image_prefix(text: str) -> str:
    """The hexadecimal digits by which a request names an image.

    Raises:
        RequestInvalid: they are not 6 to 64 digits, with or without `sha256:`.
    """
    match = _PREFIX.fullmatch(text)
    if match is None:
        raise RequestInvalid(
            f"{text[:100]!r} does not name an image",
            hint="give its image digest, or at least 6 of its hexadecimal digits",
        )
    return match[1]
