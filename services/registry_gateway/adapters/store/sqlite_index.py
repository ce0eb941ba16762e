"""Tags, leases and origins in SQLite, below `gateway/` of the state directory.

One connection in one thread: the gateway is the file's only user. Write-ahead logging keeps a crash
from losing more than the last transaction and from ever showing half of one.
"""

import json
from collections.abc import Callable, Iterable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final, TypeVar

from services.chassis.blocking import Blocking
from services.chassis.databases import Database, open_database
from services.core.descriptor import Descriptor
from services.core.digest import Digest
from services.core.reference import Reference
from services.registry_gateway.ports import StoredLease, StoredTag

T = TypeVar("T")

_ORIGINS_KEPT: Final = 8
_FIRST: Final = """
CREATE TABLE tags (
    reference TEXT PRIMARY KEY,
    root TEXT NOT NULL,           -- descriptor as JSON
    manifest TEXT,                -- descriptor as JSON, where root is an index
    family TEXT NOT NULL,
    total_bytes INTEGER NOT NULL,
    created TEXT NOT NULL         -- ISO 8601, UTC
) STRICT, WITHOUT ROWID;
CREATE TABLE leases (
    lease_id TEXT PRIMARY KEY,
    holder TEXT NOT NULL,
    digests TEXT NOT NULL,        -- a JSON list
    expires TEXT                  -- ISO 8601, UTC
) STRICT, WITHOUT ROWID;
CREATE TABLE origins (
    digest TEXT NOT NULL,
    host TEXT NOT NULL,
    path TEXT NOT NULL,
    seen TEXT NOT NULL,
    PRIMARY KEY (digest, host, path)
) STRICT, WITHOUT ROWID;
"""

LAYOUTS: Final = (_FIRST,)
"""What was added with each version; one that was released is never changed."""


class SqliteIndex:
    """The store's index in one file; implements `StoreIndex`. A context manager."""

    def __init__(self, path: Path) -> None:
        """Opens or makes the file.

        Raises:
            SettingsInvalid: it was written by a newer lns, or cannot be opened.
            CapacityExhausted: the disk is full.
            ContentCorrupt: it is damaged.
        """
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._db = open_database(path, what="the index of the store", layouts=LAYOUTS)
        self._blocking = Blocking(1, name="gateway-index")

    def close(self) -> None:
        """Closes the file; nothing may be asked afterwards."""
        self._blocking.close()
        self._db.close()

    async def put_tag(self, tag: StoredTag) -> None:
        """See `StoreIndex`."""
        row = (
            tag.reference,
            _descriptor_to_text(tag.root),
            _descriptor_to_text(tag.manifest) if tag.manifest else None,
            tag.family,
            tag.total_bytes,
            _moment(tag.created),
        )
        await self._run(
            lambda db: db.execute("INSERT OR REPLACE INTO tags VALUES (?, ?, ?, ?, ?, ?)", row)
        )

    async def get_tag(self, reference: str) -> StoredTag | None:
        """See `StoreIndex`."""
        rows = await self._rows("SELECT * FROM tags WHERE reference = ?", reference)
        return _tag_of(rows[0]) if rows else None

    async def list_tags(self) -> Sequence[StoredTag]:
        """See `StoreIndex`."""
        return [_tag_of(row) for row in await self._rows("SELECT * FROM tags ORDER BY reference")]

    async def remove_tags(self, references: Iterable[str]) -> None:
        """See `StoreIndex`."""
        rows = [(reference,) for reference in references]
        await self._run(lambda db: db.executemany("DELETE FROM tags WHERE reference = ?", rows))

    async def put_lease(self, lease: StoredLease) -> None:
        """See `StoreIndex`."""
        expires = _moment(lease.expires) if lease.expires else None
        row = (lease.lease_id, lease.holder, json.dumps(lease.digests), expires)
        await self._run(
            lambda db: db.execute("INSERT OR REPLACE INTO leases VALUES (?, ?, ?, ?)", row)
        )

    async def remove_lease(self, lease_id: str) -> None:
        """See `StoreIndex`."""
        await self._run(lambda db: db.execute("DELETE FROM leases WHERE lease_id = ?", (lease_id,)))

    async def list_leases(self, now: datetime) -> Sequence[StoredLease]:
        """See `StoreIndex`."""
        moment = _moment(now)

        def look(db: Database) -> list[Any]:
            db.execute("DELETE FROM leases WHERE expires <= ?", (moment,))
            return db.execute("SELECT * FROM leases ORDER BY lease_id").fetchall()

        return [
            StoredLease(
                lease_id=lease_id,
                holder=holder,
                digests=tuple(Digest(text) for text in json.loads(digests)),
                expires=datetime.fromisoformat(expires) if expires else None,
            )
            for lease_id, holder, digests, expires in await self._run(look)
        ]

    async def add_origin(self, digests: Iterable[Digest], repository: Reference) -> None:
        """See `StoreIndex`; keeps the latest eight of a blob and host."""
        now = _moment(datetime.now(UTC))
        rows = [(str(digest), repository.host, repository.path, now) for digest in digests]

        def add(db: Database) -> None:
            db.executemany("INSERT OR REPLACE INTO origins VALUES (?, ?, ?, ?)", rows)
            db.executemany(
                "DELETE FROM origins WHERE digest = ? AND host = ? AND path NOT IN (SELECT path"
                " FROM origins WHERE digest = ? AND host = ? ORDER BY seen DESC, path LIMIT ?)",
                [(row[0], row[1], row[0], row[1], _ORIGINS_KEPT) for row in rows],
            )

        await self._run(add)

    async def origins(self, digest: Digest, host: str) -> Sequence[str]:
        """See `StoreIndex`."""
        rows = await self._rows(
            "SELECT path FROM origins WHERE digest = ? AND host = ? ORDER BY seen DESC, path",
            str(digest),
            host,
        )
        return [row[0] for row in rows]

    async def _rows(self, query: str, *arguments: str) -> list[Any]:
        return await self._run(lambda db: db.execute(query, arguments).fetchall())

    async def _run(self, work: Callable[[Database], T]) -> T:
        return await self._blocking.run(lambda: self._db.transaction(work))


def _moment(time: datetime) -> str:
    """Returns a text that sorts as the time does."""
    return time.astimezone(UTC).isoformat(timespec="microseconds")


def _descriptor_to_text(descriptor: Descriptor) -> str:
    return json.dumps(
        {
            "mediaType": descriptor.media_type,
            "digest": descriptor.digest,
            "size": descriptor.size,
            "artifactType": descriptor.artifact_type,
        }
    )


def _descriptor_of(text: str) -> Descriptor:
    value = json.loads(text)
    return Descriptor(
        media_type=value["mediaType"],
        digest=Digest(value["digest"]),
        size=value["size"],
        artifact_type=value["artifactType"],
    )


def _tag_of(row: Any) -> StoredTag:
    reference, root, manifest, family, total_bytes, created = row
    return StoredTag(
        reference=reference,
        root=_descriptor_of(root),
        manifest=_descriptor_of(manifest) if manifest else None,
        family=family,
        total_bytes=total_bytes,
        created=datetime.fromisoformat(created),
    )
