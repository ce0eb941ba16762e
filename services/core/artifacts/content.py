"""Content of an artifact as one layer: the same tree gives the same bytes on every machine.

A layer is a POSIX tar (pax) inside gzip. What would make two machines differ is left out or fixed:

    order         by the bytes of the whole path; a directory comes before what is in it
    mode          directories 0755, symbolic links 0777, files 0755 if their owner may execute them,
                  else 0644; set-user-id and the like do not survive, nor does the umask
    owners        0 and 0, without names
    times         0
    kept          names, bytes, symbolic links as they are, hard links between files of the tree
    left out      extended attributes, access control lists, holes of sparse files
    gzip          no name, no time, and *stored* blocks: how a compressor chooses its matches
                  differs between zlib, zlib-ng and their versions, so nothing is compressed

`lns.client.content.packing` walks a real tree; this module does no I/O of its own.
"""

import hashlib
import struct
import tarfile
import zlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Final

from services.core.descriptor import OCI_LAYER_GZIP, Descriptor
from services.core.digest import Digest
from services.core.errors import RequestInvalid

_MAX_PATH: Final = 4096
_BLOCK: Final = 512
_STORED: Final = 65535
_GZIP_HEADER: Final = b"\x1f\x8b\x08\x00\x00\x00\x00\x00\x00\xff"


@dataclass(frozen=True, slots=True, kw_only=True)
class PackedLayer:
    """A layer that was packed.

    Attributes:
        descriptor: media type, digest and size of the gzip file.
        diff_id: digest of the tar inside it.
        entries: number of its entries.
        content_bytes: sum of the sizes of its files.
    """

    descriptor: Descriptor
    diff_id: Digest
    entries: int
    content_bytes: int


class LayerPacker:
    """Packs entries, given in order, into a layer, holding no more than one piece of a file.

    Args:
        write: takes the next bytes of the layer.
    """

    def __init__(self, write: Callable[[bytes], object]) -> None:
        self._gzip = _StoredGzip(write)
        self._tar_digest = hashlib.sha256()
        self._last = b""
        self._entries = 0
        self._content_bytes = 0

    def add_directory(self, path: str) -> None:
        """Adds a directory.

        Raises:
            RequestInvalid: the path is not relative and plain, or is not after the one before.
        """
        self._header(path, tarfile.DIRTYPE, mode=0o755)

    def add_file(
        self, path: str, *, size: int, is_executable: bool, chunks: Iterable[bytes]
    ) -> None:
        """Adds a regular file of `size` bytes.

        Raises:
            RequestInvalid: as `add_directory`, or the chunks do not add up to the size: the file
                changed while it was read.
        """
        self._header(path, tarfile.REGTYPE, mode=_file_mode(is_executable), size=size)
        written = 0
        for chunk in chunks:
            written += len(chunk)
            if written > size:
                break
            self._write(chunk)
        if written != size:
            raise RequestInvalid(
                f"{path!r} changed while it was packed", hint="try again", metadata={"entry": path}
            )
        self._write(bytes(-size % _BLOCK))
        self._content_bytes += size

    def add_symbolic_link(self, path: str, target: str) -> None:
        """Adds a symbolic link, its target verbatim.

        Raises:
            RequestInvalid: as `add_directory`, or the target cannot be written down.
        """
        self._header(path, tarfile.SYMTYPE, mode=0o777, target=target)

    def add_hard_link(self, path: str, target: str, *, is_executable: bool) -> None:
        """Adds another name for the file that was added as `target`.

        Raises:
            RequestInvalid: as `add_directory`.
        """
        self._header(path, tarfile.LNKTYPE, mode=_file_mode(is_executable), target=target)

    def finish(self) -> PackedLayer:
        """Ends the layer and returns what was packed."""
        self._write(bytes(2 * _BLOCK))
        digest, size = self._gzip.finish()
        return PackedLayer(
            descriptor=Descriptor(media_type=OCI_LAYER_GZIP, digest=digest, size=size),
            diff_id=Digest.from_hex(self._tar_digest.hexdigest()),
            entries=self._entries,
            content_bytes=self._content_bytes,
        )

    def _header(
        self, path: str, kind: bytes, *, mode: int, size: int = 0, target: str = ""
    ) -> None:
        raw = _check(path)
        if raw <= self._last:
            raise RequestInvalid(f"{path!r} is out of order", metadata={"entry": path})
        self._last = raw
        _encode(target, path)
        info = tarfile.TarInfo(path)
        info.type, info.mode, info.size, info.linkname = kind, mode, size, target
        self._write(info.tobuf(tarfile.PAX_FORMAT, "utf-8", "strict"))
        self._entries += 1

    def _write(self, data: bytes) -> None:
        self._tar_digest.update(data)
        self._gzip.write(data)


class _StoredGzip:
    """Writes gzip (RFC 1952) with stored blocks (RFC 1951, 3.2.4) of 65,535 bytes."""

    def __init__(self, write: Callable[[bytes], object]) -> None:
        self._sink = write
        self._digest = hashlib.sha256()
        self._size = 0
        self._crc = 0
        self._length = 0
        self._pending = bytearray()
        self._emit(_GZIP_HEADER)

    def write(self, data: bytes) -> None:
        self._crc = zlib.crc32(data, self._crc)
        self._length += len(data)
        self._pending += data
        whole = len(self._pending) - len(self._pending) % _STORED
        if whole:
            view = bytes(self._pending[:whole])
            del self._pending[:whole]
            for start in range(0, whole, _STORED):
                self._block(view[start : start + _STORED], is_last=False)

    def finish(self) -> tuple[Digest, int]:
        self._block(bytes(self._pending), is_last=True)
        self._emit(struct.pack("<II", self._crc, self._length & 0xFFFFFFFF))
        return Digest.from_hex(self._digest.hexdigest()), self._size

    def _block(self, data: bytes, *, is_last: bool) -> None:
        self._emit(struct.pack("<BHH", is_last, len(data), len(data) ^ 0xFFFF) + data)

    def _emit(self, data: bytes) -> None:
        self._digest.update(data)
        self._size += len(data)
        self._sink(data)


def _file_mode(is_executable: bool) -> int:
    return 0o755 if is_executable else 0o644


def _check(path: str) -> bytes:
    raw = _encode(path, path)
    segments = path.split("/")
    if len(raw) > _MAX_PATH or any(segment in ("", ".", "..") for segment in segments):
        raise RequestInvalid(
            f"{path[:200]!r} cannot be packed: its path is not relative and plain",
            metadata={"entry": path[:200]},
        )
    return raw


def _encode(text: str, entry: str) -> bytes:
    try:
        raw = text.encode()
    except UnicodeEncodeError as error:
        shown = ascii(entry[:200])
        raise RequestInvalid(
            f"{shown} cannot be packed: its name or target is not UTF-8",
            hint="rename it, or leave it out with .lnsignore",
            metadata={"entry": shown},
        ) from error
    if b"\0" in raw:
        raise RequestInvalid(f"{entry[:200]!a} cannot be packed: it holds a NUL character")
    return raw
