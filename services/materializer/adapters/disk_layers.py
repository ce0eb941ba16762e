"""Layers on disk, made by worker processes."""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

from services.chassis.blocking import Blocking
from services.core.digest import Digest
from services.materializer.adapters.store_files import StoreFiles, size_on_disk, translated
from services.materializer.adapters.workers import Workers
from services.materializer.images import ImageLayer, LayerSource, MountSource
from services.materializer.layers.ingest import OBJECTS
from services.materializer.layers.limits import LayerLimits
from services.materializer.ports import Progressed

_HEX = re.compile(r"[0-9a-f]{64}(?:[0-9a-f]{64})?")


class DiskLayers:
    """The port `Layers` on a `StoreFiles`."""

    def __init__(
        self, files: StoreFiles, workers: Workers, blocking: Blocking, limits: LayerLimits
    ) -> None:
        self._files = files
        self._workers = workers
        self._blocking = blocking
        self._limits = asdict(limits)

    async def find(self, diff_id: Digest) -> ImageLayer | None:
        """Returns a layer that exists and is sealed, without its blob's digest; else None."""
        return await self._blocking.run(self._find, diff_id)

    async def build(
        self, source: LayerSource, blob: Path, progressed: Progressed, *, replace: bool = False
    ) -> None:
        """Makes a layer of a blob; raises LayerUnsafe, ContentCorrupt."""
        with self._files.scratch() as directory:
            await self._workers.run(
                "layer",
                {
                    "blob": {"digest": source.blob_digest.hex, "path": str(blob)},
                    "directory": str(directory),
                    "diff_id": source.diff_id.hex,
                    "limits": self._limits,
                },
                progressed,
            )
            await self._publish(directory, source.diff_id, replace=replace)

    async def build_mounts(
        self,
        diff_id: Digest,
        mounts: Sequence[MountSource],
        blobs: Mapping[Digest, Path],
        *,
        replace: bool = False,
    ) -> None:
        """Makes one layer of mounts; raises LayerUnsafe."""
        with self._files.scratch() as directory:
            await self._workers.run(
                "mounts",
                {
                    "directory": str(directory),
                    "limits": self._limits,
                    "mounts": [
                        {
                            "path": mount.path,
                            "content": mount.content,
                            "label": mount.label,
                            "blobs": [
                                {"digest": digest.hex, "path": str(blobs[digest]), "title": title}
                                for digest, title in zip(mount.blobs, mount.titles, strict=True)
                            ],
                        }
                        for mount in mounts
                    ],
                },
            )
            await self._publish(directory, diff_id, replace=replace)

    async def _publish(self, directory: Path, diff_id: Digest, *, replace: bool) -> None:
        if replace:
            await self.remove([diff_id])
        await self._blocking.run(self._files.publish_layer, directory, diff_id)

    async def remove(self, diff_ids: Iterable[Digest]) -> int:
        """Removes layers; returns the bytes that became free."""
        freed = [await self._blocking.run(self._files.remove_layer, one) for one in diff_ids]
        return sum(freed)

    async def list(self) -> Mapping[Digest, int]:
        """Returns every layer with the bytes it takes."""
        return await self._blocking.run(self._list)

    def objects_file(self, diff_id: Digest) -> Path:
        """The object pack of a layer."""
        return self._files.layer(diff_id) / OBJECTS

    def _find(self, diff_id: Digest) -> ImageLayer | None:
        found = self._files.sealed_layer(diff_id)
        if found is None:
            return None
        return ImageLayer(
            diff_id=diff_id,
            blob_digest=None,
            objects_bytes=found.pack.size,
            entry_count=found.entry_count,
        )

    def _list(self) -> Mapping[Digest, int]:
        with translated():
            return {
                Digest.from_hex(directory.name): size_on_disk(directory)
                for directory in self._files.layers.iterdir()
                if _HEX.fullmatch(directory.name) and directory.is_dir()
            }
