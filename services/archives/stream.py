"""A stream of bytes of unknown chunks, read in the pieces that a parser wants."""

from collections.abc import Callable, Iterator
from io import SEEK_END
from typing import BinaryIO

from services.archives.limits import unsafe

_READ_BYTES = 64 << 10


class ByteStream:
    """Reads exact numbers of bytes from an iterator of chunks.

    What is returned as a memoryview is valid until the next read.
    """

    def __init__(self, chunks: Iterator[bytes]) -> None:
        self._chunks = chunks
        self._chunk = memoryview(b"")
        self._at = 0
        self._before = 0

    @property
    def position(self) -> int:
        """How many bytes were read or passed over."""
        return self._before + self._at

    def read(self, size: int, *, within: bytes = b"") -> bytes:
        """The next `size` bytes.

        Raises:
            ArchiveUnsafe: the stream ends before; the message names the entry `within`.
        """
        end = self._at + size
        if end <= len(self._chunk):
            data = bytes(self._chunk[self._at : end])
            self._at = end
            return data
        return b"".join(self.pieces(size, within=within))

    def read_rest(self, size: int) -> bytes:
        """The next `size` bytes, or as many as remain before the end."""
        data = b""
        while len(data) < size and (self._at < len(self._chunk) or self._advance()):
            end = min(self._at + size - len(data), len(self._chunk))
            data += self._chunk[self._at : end]
            self._at = end
        return data

    def pieces(self, size: int, *, within: bytes = b"") -> Iterator[memoryview]:
        """The next `size` bytes in pieces as they come; raises as `read` does."""
        while size > 0:
            if self._at == len(self._chunk) and not self._advance():
                raise unsafe(within, "the archive ends in the middle of it (truncated)")
            end = min(self._at + size, len(self._chunk))
            piece = self._chunk[self._at : end]
            self._at = end
            size -= len(piece)
            yield piece

    def skip(self, size: int, *, within: bytes = b"") -> None:
        """Passes over `size` bytes; raises as `read` does."""
        if self._at + size <= len(self._chunk):
            self._at += size
            return
        for _ in self.pieces(size, within=within):
            pass

    def drain(self) -> None:
        """Reads to the end."""
        while self._advance():
            pass

    def rest(self, most: int) -> bytes:
        """What follows, to the end of the stream or to `most` bytes."""
        rest = b""
        while len(rest) < most and (self._at < len(self._chunk) or self._advance()):
            rest += self.read(min(most - len(rest), len(self._chunk) - self._at))
        return rest

    def _advance(self) -> bool:
        """Takes the next chunk that is not empty; says whether there was one."""
        for chunk in self._chunks:
            if chunk:
                self._take(chunk)
                return True
        self._take(b"")
        return False

    def _take(self, chunk: bytes) -> None:
        self._before += len(self._chunk)
        self._chunk = memoryview(chunk)
        self._at = 0


class FileStream(ByteStream):
    """A stream out of a file, which passes over what is skipped without reading it.

    Args:
        file: open at its beginning; nobody else moves in it meanwhile.
        check: called before each read; what it raises ends the reading.
    """

    def __init__(self, file: BinaryIO, check: Callable[[], None] = lambda: None) -> None:
        def chunks() -> Iterator[bytes]:
            while True:
                check()
                chunk = file.read(_READ_BYTES)
                if not chunk:
                    return
                yield chunk

        super().__init__(chunks())
        self._file = file

    def skip(self, size: int, *, within: bytes = b"") -> None:
        """See `ByteStream`."""
        end = self.position + size
        if self._at + size > len(self._chunk):
            if end > self._file.seek(0, SEEK_END):
                raise unsafe(within, "the archive ends in the middle of it (truncated)")
            self._take(b"")
            self._before = self._file.seek(end)
        else:
            self._at += size
