"""One pass over a layer's blob: decompress, hash, take apart, store."""

import hashlib
import queue
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from services.core.errors import ContentCorrupt
from services.materializer.layers.collector import Collector
from services.materializer.layers.decompress import decompressed
from services.materializer.layers.entries import EntryWriter
from services.materializer.layers.limits import LayerLimits, unsafe
from services.materializer.layers.pack import PackWriter
from services.materializer.layers.stream import ByteStream
from services.materializer.layers.tar import TarReader

_CHUNKS_AHEAD = 8
_WRITE_BUFFER_BYTES = 1 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerFacts:
    """What is known of a layer that was taken apart.

    Attributes:
        diff_id: SHA-256 of the uncompressed layer, hexadecimal.
        objects_bytes: size of the object pack; 0 if the layer has no objects and so no pack.
        object_count: number of different objects.
        entries_bytes: size of the entry list.
        entry_count: number of entries.
        layer_bytes: size of the uncompressed layer.
    """

    diff_id: str
    objects_bytes: int
    object_count: int
    entries_bytes: int
    entry_count: int
    layer_bytes: int


def ingest_layer(
    blob: BinaryIO, directory: Path, *, diff_id: str, limits: LayerLimits
) -> LayerFacts:
    """Takes a layer apart into `objects.erofs` and `entries` in an empty directory.

    The files are written and not yet synced. What is left in the directory after an error is the
    caller's to remove.

    Args:
        blob: the layer as it is distributed: gzip, zstd or plain.
        directory: where the files go.
        diff_id: what the uncompressed bytes must hash to, 64 hexadecimal digits; empty accepts any.
        limits: the most that the layer may bring.

    Raises:
        LayerUnsafe: the layer is malformed, hostile or beyond the limits; names the entry.
        ContentCorrupt: the layer does not have the diffID.
        OSError: as the operating system gave it.
    """
    with (
        (directory / "objects.erofs").open("w+b", buffering=_WRITE_BUFFER_BYTES) as objects,
        (directory / "tails").open("w+b", buffering=_WRITE_BUFFER_BYTES) as tails,
        (directory / "entries").open("wb", buffering=_WRITE_BUFFER_BYTES) as entries,
        _HashedAhead(decompressed(blob, limits)) as chunks,
    ):
        pack = PackWriter(objects, tails)
        writer = EntryWriter(entries)
        stream = ByteStream(iter(chunks))
        for entry in Collector(pack, limits).entries(TarReader(stream, limits)):
            writer.add(entry)
            if writer.size > limits.list_bytes:
                raise unsafe(entry.path, f"the entry list has more than {limits.list_bytes} bytes")
        stream.drain()
        if diff_id and chunks.hexdigest() != diff_id:
            raise ContentCorrupt(
                f"the layer's uncompressed bytes hash to sha256:{chunks.hexdigest()}",
                hint="the image's config and its layers do not belong together",
                metadata={"diff_id": f"sha256:{diff_id}"},
            )
        objects_bytes = pack.finish()
        writer.finish()
        facts = LayerFacts(
            diff_id=chunks.hexdigest(),
            objects_bytes=objects_bytes,
            object_count=pack.object_count,
            entries_bytes=writer.size,
            entry_count=writer.count,
            layer_bytes=chunks.size,
        )
    (directory / "tails").unlink()
    if not objects_bytes:
        (directory / "objects.erofs").unlink()
    return facts


class _HashedAhead:
    """Chunks made and hashed in a thread of their own, a few ahead of who takes them.

    Decompression and SHA-256 of large chunks release the interpreter, so a layer keeps two cores
    busy. Attributes are final once the iteration has ended.
    """

    def __init__(self, source: Iterator[bytes]) -> None:
        self.size = 0
        self._digest = hashlib.sha256()
        self._source = source
        self._ready: queue.Queue[bytes | BaseException | None] = queue.Queue(_CHUNKS_AHEAD)
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._work, name="decompress", daemon=True)

    def __enter__(self) -> "_HashedAhead":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopped.set()
        while self._thread.is_alive():
            while not self._ready.empty():
                self._ready.get_nowait()
            self._thread.join(0.01)

    def __iter__(self) -> Iterator[bytes]:
        """The chunks; raises what making them raised."""
        while (item := self._ready.get()) is not None:
            if isinstance(item, BaseException):
                raise item
            yield item

    def hexdigest(self) -> str:
        """SHA-256 of all chunks."""
        return self._digest.hexdigest()

    def _work(self) -> None:
        try:
            for chunk in self._source:
                if self._stopped.is_set():
                    return
                self._digest.update(chunk)
                self.size += len(chunk)
                self._ready.put(chunk)
            self._ready.put(None)
        except BaseException as error:  # noqa: BLE001 - raised again where the chunks are taken
            self._ready.put(error)
