"""The records of images and leases: SQLite, one connection, used by one thread at a time."""

import json
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from services.chassis.databases import Database, open_database
from services.core.digest import Digest
from services.core.errors import ImageUnknown
from services.materializer.images import Image, ImageLayer, Lease, Mount

_FIRST = """
CREATE TABLE images (
    digest TEXT PRIMARY KEY,
    create_time TEXT NOT NULL,
    record TEXT NOT NULL
) STRICT;
CREATE INDEX images_by_time ON images (create_time DESC, digest DESC);
CREATE TABLE requests (
    key TEXT PRIMARY KEY,
    digest TEXT NOT NULL REFERENCES images ON DELETE CASCADE
) STRICT;
CREATE TABLE leases (
    lease_id TEXT PRIMARY KEY,
    holder TEXT NOT NULL,
    digest TEXT NOT NULL REFERENCES images ON DELETE CASCADE,
    expire_time TEXT
) STRICT;
"""
LAYOUTS = (_FIRST,)
"""What was added with each version; one that was released is never changed."""

_IMAGES_OF_PREFIX = "SELECT record FROM images WHERE digest >= ? AND digest < ? LIMIT 2"


class Catalogue:
    """Opens, or makes, the database at `path`; `close` when done."""

    def __init__(self, path: Path) -> None:
        """Opens or makes the file; see `open_database` for what it raises."""
        self._db = open_database(path, what="the catalogue of images", layouts=LAYOUTS)
        self._db.execute("PRAGMA foreign_keys = ON")

    def close(self) -> None:
        """Closes the database."""
        self._db.close()

    def made_by(self, key: str) -> Image | None:
        """Returns the image that a request made, or None."""
        row = self._db.execute(
            "SELECT record FROM requests JOIN images USING (digest) WHERE key = ?", (key,)
        ).fetchone()
        return _parse(row[0]) if row else None

    def get(self, prefix: str) -> Image:
        """Returns the one image whose digest begins so; raises ImageUnknown."""
        low = f"sha256:{prefix}"
        rows = self._db.execute(_IMAGES_OF_PREFIX, (low, low + "g")).fetchall()
        if len(rows) == 1:
            return _parse(rows[0][0])
        problem = "several images begin with" if rows else "no image begins with"
        raise ImageUnknown(
            f"{problem} {low}",
            hint="`lns image ls` shows the images of the store",
            metadata={"image": low},
        )

    def find(self, digest: Digest) -> Image | None:
        """Returns the image with that digest, or None."""
        row = self._db.execute("SELECT record FROM images WHERE digest = ?", (digest,)).fetchone()
        return _parse(row[0]) if row else None

    def put(self, image: Image, key: str) -> None:
        """Records an image, in place of what was recorded of it, and the request that made it."""

        def work(database: Database) -> None:
            database.execute(
                "INSERT INTO images VALUES (?, ?, ?)"
                " ON CONFLICT (digest) DO UPDATE SET record = excluded.record",
                (image.image_digest, image.create_time.isoformat(), _format(image)),
            )
            database.execute(
                "INSERT OR REPLACE INTO requests VALUES (?, ?)", (key, image.image_digest)
            )

        self._db.transaction(work)

    def list(self, before: tuple[datetime, str] | None, limit: int) -> Sequence[Image]:
        """Returns images, newest first."""
        time, digest = (before[0].isoformat(), before[1]) if before else ("9", "")
        rows = self._db.execute(
            "SELECT record FROM images WHERE (create_time, digest) < (?, ?)"
            " ORDER BY create_time DESC, digest DESC LIMIT ?",
            (time, digest, limit),
        )
        return [_parse(record) for (record,) in rows]

    def remove(self, digests: Iterable[Digest]) -> None:
        """Forgets images with their leases."""
        rows = [(digest,) for digest in digests]
        self._db.transaction(
            lambda database: database.executemany("DELETE FROM images WHERE digest = ?", rows)
        )

    def acquire(self, lease: Lease) -> Image:
        """Records a lease; raises ImageUnknown."""
        image = self.get(lease.image_digest.hex)
        expires = lease.expire_time.isoformat() if lease.expire_time else None
        self._db.execute(
            "INSERT OR REPLACE INTO leases VALUES (?, ?, ?, ?)",
            (lease.lease_id, lease.holder, lease.image_digest, expires),
        )
        return image

    def release(self, lease_id: str) -> None:
        """Forgets a lease."""
        self._db.execute("DELETE FROM leases WHERE lease_id = ?", (lease_id,))

    def leased(self, now: datetime) -> frozenset[Digest]:
        """Returns the images that a lease keeps; forgets leases that have run out."""
        self._db.execute("DELETE FROM leases WHERE expire_time <= ?", (now.isoformat(),))
        rows = self._db.execute("SELECT DISTINCT digest FROM leases")
        return frozenset(Digest(digest) for (digest,) in rows)


def _format(image: Image) -> str:
    return json.dumps(
        {
            "digest": image.image_digest,
            "manifest_digest": image.manifest_digest,
            "layers": [
                [layer.diff_id, layer.blob_digest, layer.objects_bytes, layer.entry_count]
                for layer in image.layers
            ],
            "metadata_bytes": image.metadata_bytes,
            "inode_count": image.inode_count,
            "has_acl": image.has_acl,
            "read_only_paths": image.read_only_paths,
            "mounts": [
                [mount.family, mount.manifest_digest, mount.path, mount.read_only]
                for mount in image.mounts
            ],
            "create_time": image.create_time.isoformat(),
        }
    )


def _parse(record: str) -> Image:
    fields: dict[str, Any] = json.loads(record)
    manifest = fields["manifest_digest"]
    return Image(
        image_digest=Digest(fields["digest"]),
        manifest_digest=Digest(manifest) if manifest else None,
        layers=tuple(
            ImageLayer(
                diff_id=Digest(diff_id),
                blob_digest=Digest(blob) if blob else None,
                objects_bytes=objects_bytes,
                entry_count=entry_count,
            )
            for diff_id, blob, objects_bytes, entry_count in fields["layers"]
        ),
        metadata_bytes=fields["metadata_bytes"],
        inode_count=fields["inode_count"],
        has_acl=fields["has_acl"],
        read_only_paths=tuple(fields["read_only_paths"]),
        mounts=tuple(
            Mount(family=family, manifest_digest=Digest(digest), path=path, read_only=read_only)
            for family, digest, path, read_only in fields["mounts"]
        ),
        create_time=datetime.fromisoformat(fields["create_time"]).astimezone(UTC),
    )
