"""One pass over a layer's blob: decompress, hash, take apart, store."""

import contextlib
import hashlib
import queue
import stat
import tempfile
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, cast

from services.archives.stream import ByteStream
from services.archives.tar import TarReader
from services.chassis.reserve import require
from services.core.digest import Digest
from services.core.errors import ContentCorrupt
from services.materializer.composefs.tree import INLINE_MAX, Inode
from services.materializer.layers.collector import Collector
from services.materializer.layers.decompress import decompressed
from services.materializer.layers.entries import Entry, EntryWriter, Put
from services.materializer.layers.limits import LayerLimits, of_a_layer, unsafe
from services.materializer.layers.pack import PackWriter
from services.materializer.layers.pack_metadata import object_path

OBJECTS = "objects.erofs"
"""Name of the object pack in a layer's directory; absent where there are no objects."""

ENTRIES = "entries"
"""Name of the entry list in a layer's directory."""

_CHUNKS_AHEAD = 8
_WRITE_BUFFER_BYTES = 1 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerFacts:
    """What is known of a layer that was taken apart.

    Attributes:
        objects_bytes: size of the object pack; 0 if the layer has no objects and so no pack.
        object_count: number of different objects.
        entries_bytes: size of the entry list.
        entry_count: number of entries.
        layer_bytes: size of the uncompressed archives.
    """

    objects_bytes: int
    object_count: int
    entries_bytes: int
    entry_count: int
    layer_bytes: int


def ingest_layer(
    blob: BinaryIO, directory: Path, *, diff_id: str, limits: LayerLimits
) -> LayerFacts:
    """Takes a layer of an image apart into `objects.erofs` and `entries` in an empty directory.

    The files are written and not yet synced. What is left in the directory after an error is the
    caller's to remove.

    Args:
        blob: the layer as it is distributed: plain, or compressed as `decompressed` reads it.
        directory: where the files go.
        diff_id: what the uncompressed bytes must hash to: 64 hexadecimal digits of SHA-256, or 128
            of SHA-512.
        limits: the most that the layer may bring.

    Raises:
        LayerUnsafe: the layer is malformed, hostile or beyond the limits; names the entry.
        ContentCorrupt: the layer does not have the diffID.
        OSError: as the operating system gave it.
    """
    expected = Digest.from_hex(diff_id)
    with open_layer(directory, limits) as layer:
        actual = layer.add_archive(blob, algorithm=expected.algorithm)
        if actual != expected:
            raise ContentCorrupt(
                f"the layer's uncompressed bytes hash to {actual}",
                hint="the image's config and its layers do not belong together",
                metadata={"diff_id": expected},
            )
        return layer.finish()


@contextlib.contextmanager
def open_layer(directory: Path, limits: LayerLimits) -> Iterator["LayerBuilder"]:
    """Yields a builder that writes `objects.erofs` and `entries` in an empty directory."""
    with (
        (directory / OBJECTS).open("w+b", buffering=_WRITE_BUFFER_BYTES) as objects,
        (directory / ENTRIES).open("wb", buffering=_WRITE_BUFFER_BYTES) as entries,
        tempfile.TemporaryFile(dir=directory, buffering=_WRITE_BUFFER_BYTES) as tails,
    ):
        yield LayerBuilder(
            PackWriter(objects, cast("BinaryIO", tails)), EntryWriter(entries), limits, directory
        )
    if not (directory / OBJECTS).stat().st_size:
        (directory / OBJECTS).unlink()


class LayerBuilder:
    """A layer that grows from archives and single entries; see `open_layer`."""

    def __init__(
        self, pack: PackWriter, writer: EntryWriter, limits: LayerLimits, directory: Path
    ) -> None:
        self._directory = directory
        self._pack = pack
        self._writer = writer
        self._limits = limits
        self._layer_bytes = 0

    def add_archive(
        self,
        blob: BinaryIO,
        *,
        prefix: bytes = b"",
        mounted: bool = False,
        algorithm: str = "sha256",
    ) -> Digest:
        """Adds what an archive holds; returns the digest of its uncompressed bytes.

        Args:
            blob: plain or compressed.
            prefix: canonical path that the archive's root becomes.
            mounted: whether every file is taken as it is, names of whiteouts included.
            algorithm: that of the digest.

        Raises:
            LayerUnsafe: it is malformed, hostile or beyond the limits; names the entry.
            OSError: as the operating system gave it.
        """
        fitting = self._fitting(decompressed(blob, self._limits))
        with of_a_layer(), _HashedAhead(fitting, algorithm) as chunks:
            stream = ByteStream(iter(chunks))
            collector = Collector(
                self._pack, self._limits, prefix=prefix, has_whiteouts=not mounted
            )
            for entry in collector.entries(TarReader(stream, self._limits, end_is_proved=True)):
                self.add_entry(entry)
            stream.drain()
            self._layer_bytes += chunks.size
            return chunks.digest()

    def _fitting(self, chunks: Iterator[bytes]) -> Iterator[bytes]:
        """The same chunks, as long as the disk has room for what they hold."""
        for chunk in chunks:
            require(self._directory.parent, len(chunk), what="a layer")
            yield chunk

    def add_entry(self, entry: Entry) -> None:
        """Adds one entry.

        Raises:
            LayerUnsafe: the entry list becomes too long.
        """
        self._writer.add(entry)
        if self._writer.size > self._limits.list_bytes:
            raise unsafe(
                entry.path, f"the entry list has more than {self._limits.list_bytes} bytes"
            )

    def add_file(self, path: bytes, content: bytes) -> None:
        """Adds a file, mode 0644, owned by root, of time 0."""
        inode = Inode(stat.S_IFREG | 0o644, size=len(content))
        if len(content) <= INLINE_MAX:
            inode.content = content or None
        else:
            inode.digest = self._pack.add([memoryview(content)])
            inode.payload = object_path(inode.digest)
        self.add_entry(Put(path, inode))

    def add_whole_file(self, path: bytes, blob: BinaryIO) -> None:
        """Adds a blob as the file that it is, mode 0644, owned by root, of time 0.

        Raises:
            LayerUnsafe: it is larger than a file may be.
        """
        head = blob.read(INLINE_MAX + 1)
        if len(head) <= INLINE_MAX:
            self.add_file(path, head)
            return
        size = 0

        def pieces() -> Iterator[memoryview]:
            nonlocal size
            piece = head
            while piece:
                size += len(piece)
                if size > self._limits.file_bytes:
                    raise unsafe(path, f"it has more than {self._limits.file_bytes} bytes")
                yield memoryview(piece)
                piece = blob.read(_WRITE_BUFFER_BYTES)

        inode = Inode(stat.S_IFREG | 0o644)
        inode.digest = self._pack.add(pieces())
        inode.payload = object_path(inode.digest)
        inode.size = size
        self.add_entry(Put(path, inode))

    def finish(self) -> LayerFacts:
        """Completes both files; returns what is known of the layer."""
        pack = self._pack.finish()
        self._writer.finish(pack)
        return LayerFacts(
            objects_bytes=pack.size,
            object_count=self._pack.object_count,
            entries_bytes=self._writer.size,
            entry_count=self._writer.count,
            layer_bytes=self._layer_bytes,
        )


class _HashedAhead:
    """Chunks made and hashed in a thread of their own, a few ahead of who takes them.

    Decompression and SHA-256 of large chunks release the interpreter, so a layer keeps two cores
    busy. Attributes are final once the iteration has ended.
    """

    def __init__(self, source: Iterator[bytes], algorithm: str) -> None:
        self.size = 0
        self._digest = hashlib.new(algorithm)
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

    def digest(self) -> Digest:
        """The digest of all chunks."""
        return Digest.from_hex(self._digest.hexdigest())

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
