"""Errors about blobs that cannot be used."""

from services.core.digest import Digest
from services.core.errors import BlobsMissing, ContentCorrupt, Violation


def missing(digest: Digest) -> BlobsMissing:
    """The error for a blob that the gateway does not have."""
    return BlobsMissing(
        f"the blob {digest} is not in the store",
        hint="pull the image first (`lns pull`)",
        violations=[
            Violation(subject=digest, description="is not in the blob store", type="MISSING")
        ],
        metadata={"digest": digest},
    )


def damaged(digest: Digest) -> ContentCorrupt:
    """The error for a blob whose bytes are not those of its digest; `metadata` has that."""
    return ContentCorrupt(
        f"the blob {digest} is damaged in the store",
        hint="pull the image when its registry can be reached",
        metadata={"digest": digest},
    )
