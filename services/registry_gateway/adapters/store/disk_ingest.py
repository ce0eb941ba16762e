"""One blob on its way into the store's files."""

import contextlib
import errno
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

from services.chassis import reserve
from services.core.descriptor import Descriptor
from services.core.errors import ContentCorrupt, LnsError
from services.registry_gateway.adapters.store.write_behind import WriteBehind

_READ_BYTES: Final = 1 << 20


class DiskIngest:
    """One blob on its way into the store; implements `Ingest`."""

    def __init__(
        self,
        descriptor: Descriptor,
        part: Path,
        target: Path,
        *,
        resume: bool,
        ended: Callable[[Path], None],
    ) -> None:
        """Opens the part; with `resume` hashes what it holds already.

        Args:
            descriptor: what it must become.
            part: where it is until then.
            target: where it is afterwards.
            resume: whether bytes of an earlier attempt count.
            ended: called with `part` when nobody works on it any more.
        """
        self.descriptor = descriptor
        self._ended = ended
        self._part = part
        self._target = target
        self._keep = resume
        self._committed = False
        self._hasher = self.descriptor.digest.hasher()
        self.position = 0
        flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
        self._file = os.open(part, flags | (0 if resume else os.O_EXCL), 0o600)
        self._writer = WriteBehind(self._file)
        if resume:
            self._take_up()

    def write(self, chunk: bytes | memoryview) -> None:
        """See `BlobSink`."""
        if self.position + len(chunk) > self.descriptor.size:
            raise self._corrupt(f"is longer than its {self.descriptor.size} bytes")
        ends = self.position + len(chunk) == self.descriptor.size
        with disk_errors(self._part.parent, self.descriptor):
            if ends:
                self._writer.write_last(chunk)
            else:
                self._writer.write(chunk)
        self._hasher.update(chunk)
        self.position += len(chunk)

    def restart(self) -> None:
        """See `BlobSink`."""
        self._writer.discard()
        os.ftruncate(self._file, 0)
        os.lseek(self._file, 0, os.SEEK_SET)
        self._hasher = self.descriptor.digest.hasher()
        self.position = 0

    def commit(self) -> None:
        """See `Ingest`."""
        if self.position != self.descriptor.size:
            raise self._corrupt(f"has {self.position} of its {self.descriptor.size} bytes")
        found = self._hasher.hexdigest()
        if found != self.descriptor.digest.hex:
            raise self._corrupt(f"has the digest {self.descriptor.digest.algorithm}:{found}")
        with disk_errors(self._part.parent, self.descriptor):
            self._writer.flush()
            os.fchmod(self._file, 0o444)
            os.fdatasync(self._file)
            self._part.rename(self._target)
        self._committed = True

    def close(self) -> None:
        """See `Ingest`."""
        if self._file < 0:
            return
        if self._keep and not self._committed:
            with contextlib.suppress(OSError):  # a shorter beginning is one, too
                self._writer.flush()
        self._writer.discard()
        os.close(self._file)
        self._file = -1
        if not self._committed and not (self._keep and self.position):
            self._part.unlink(missing_ok=True)
        self._ended(self._part)

    def _take_up(self) -> None:
        if os.fstat(self._file).st_size > self.descriptor.size:
            self.restart()
            return
        while chunk := os.read(self._file, _READ_BYTES):
            self._hasher.update(chunk)
            self.position += len(chunk)

    def _corrupt(self, what: str) -> ContentCorrupt:
        """Forgets the bytes and returns why."""
        digest = self.descriptor.digest
        self.restart()
        return ContentCorrupt(f"blob {digest} {what}", metadata={"digest": digest})


@contextlib.contextmanager
def disk_errors(directory: Path, descriptor: Descriptor) -> Iterator[None]:
    """Turns a full disk into CapacityExhausted; what else an OSError says is a defect."""
    try:
        yield
    except LnsError:
        raise
    except OSError as error:
        if not reserve.is_full(error) and error.errno != errno.EFBIG:
            raise
        raise reserve.exhausted(
            directory, what=f"blob {descriptor.digest.short}", needed=descriptor.size
        ) from error
