"""Merged images, dumps and checks, made by worker processes."""

import contextlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from services.core.digest import Digest
from services.materializer.adapters.store_files import StoreFiles
from services.materializer.adapters.workers import Workers
from services.materializer.images import Composed, Damage, Tree, Verification


class WorkerComposer:
    """The port `Composer` on a `StoreFiles`."""

    def __init__(self, files: StoreFiles, workers: Workers) -> None:
        self._files = files
        self._workers = workers

    @contextlib.asynccontextmanager
    async def compose(self, tree: Tree) -> AsyncIterator[tuple[Composed, Path]]:
        """Yields the metadata image of a tree; raises LayerUnsafe, ContentCorrupt."""
        with self._files.scratch() as directory:
            path = directory / "image.cfs"
            result = await self._workers.run("compose", {**self._request(tree), "image": str(path)})
            composed = Composed(
                digest=Digest.from_hex(result["digest"]),
                metadata_bytes=result["metadata_bytes"],
                inode_count=result["inode_count"],
                has_acl=result["has_acl"],
                read_only_paths=tuple(result["read_only_paths"]),
            )
            yield composed, path

    @contextlib.asynccontextmanager
    async def dump(self, tree: Tree) -> AsyncIterator[Path]:
        """Yields a file with the dump of a tree; raises as `compose`."""
        with self._files.scratch() as directory:
            path = directory / "dump"
            await self._workers.run("dump", {**self._request(tree), "output": str(path)})
            yield path

    async def verify(self, tree: Tree, *, metadata: Path, digest: Digest) -> Verification:
        """Hashes every object of a tree's layers again, and the metadata image."""
        request = {**self._request(tree), "image": str(metadata), "digest": digest.hex}
        checks = (await self._workers.run("verify", request))["checks"]
        return Verification(
            object_count=sum(check["object_count"] for check in checks),
            checked_bytes=sum(check["checked_bytes"] for check in checks),
            damages=tuple(
                Damage(
                    diff_id=Digest.from_hex(check["diff_id"]) if check["diff_id"] else None,
                    path=damage["path"],
                    object_digest=damage["object_digest"],
                    description=damage["description"],
                )
                for check in checks
                for damage in check["damages"]
            ),
        )

    def _request(self, tree: Tree) -> dict[str, Any]:
        return {
            "layers": [
                {"diff_id": diff_id.hex, "directory": str(self._files.layer(diff_id))}
                for diff_id in tree.layers
            ],
            "mounts": [{"path": one.path, "read_only": one.read_only} for one in tree.mounts],
        }
