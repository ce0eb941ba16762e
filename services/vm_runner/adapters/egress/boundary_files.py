"""Files of the boundary: audit logs, policies, answers."""

import os
import stat
from collections.abc import AsyncIterator
from pathlib import Path

from services.chassis import durable
from services.chassis.blocking import Blocking
from services.chassis.edited_files import read_edited_file
from services.core.egress.audit import LINE_MOST
from services.core.errors import CapacityExhausted, RequestInvalid

_NAME = "audit.jsonl"
_PIECE = 256 * 1024
_TAIL = 1 << 20
_ANSWERS_MOST = 1 << 20


class BoundaryFiles:
    """What the boundary keeps on the disk.

    Args:
        blocking: threads that the files are used in.
        audit_bytes: of one file of an audit log.
        audit_files: of one run; the oldest goes when there would be more.
    """

    def __init__(
        self, *, blocking: Blocking, audit_bytes: int = 16 << 20, audit_files: int = 4
    ) -> None:
        self._blocking = blocking
        self._audit_bytes = audit_bytes
        self._audit_files = audit_files

    def audit(self, directory: Path) -> "AuditFile":
        """Returns the audit log of a run."""
        return AuditFile(
            directory, blocking=self._blocking, most=self._audit_bytes, files=self._audit_files
        )

    async def read_policy(self, path: Path) -> tuple[object, bytes] | None:
        """Returns a policy file's text with a stamp that changes when it does."""
        return await self._blocking.run(_read_policy, path)

    async def stamp(self, path: Path) -> object:
        """Returns what changes when a policy file does."""
        return await self._blocking.run(_stamp, path)

    async def write(self, path: Path, data: bytes) -> None:
        """Replaces a file of a run, durably."""
        await self._blocking.run(_write, path, data)

    async def read(self, path: Path) -> bytes:
        """Returns a file of a run; empty if it does not exist."""
        return await self._blocking.run(_read, path)


class AuditFile:
    """The audit log of one run: `audit.jsonl`, and older parts as `audit.1.jsonl` and on."""

    def __init__(self, directory: Path, *, blocking: Blocking, most: int, files: int) -> None:
        self._path = directory / _NAME
        self._blocking = blocking
        self._most = most
        self._files = files

    async def open(self) -> bytes:
        """Cuts off a line that a crash left half written; returns the last whole lines."""
        return await self._blocking.run(self._open)

    async def append(self, data: bytes) -> None:
        """Writes whole lines behind the others."""
        await self._blocking.run(self._append, data)

    async def read(self) -> AsyncIterator[bytes]:
        """Yields the whole log, oldest line first, in pieces."""
        for path in [*reversed(self._older()), self._path]:
            at = 0
            while data := await self._blocking.run(_read_at, path, at):
                at += len(data)
                yield data

    def _older(self) -> list[Path]:
        return [self._path.with_name(f"audit.{number}.jsonl") for number in range(1, self._files)]

    def _open(self) -> bytes:
        try:
            with self._path.open("r+b") as file:
                size = file.seek(0, os.SEEK_END)
                start = max(0, size - _TAIL)
                file.seek(start)
                data = file.read(_TAIL)
                whole = data.rfind(b"\n") + 1
                if whole < len(data):
                    file.truncate(start + whole)
        except FileNotFoundError:
            previous = self._older()[0] if self._files > 1 else self._path
            return _last_lines(previous)
        lines = data[:whole]
        if start:  # the first may be the rest of one
            lines = lines[lines.find(b"\n") + 1 :]
        return lines or _last_lines(self._older()[0])

    def _append(self, data: bytes) -> None:
        try:
            self._rotate(len(data))
            descriptor = os.open(
                self._path,
                os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW,
                0o600,
            )
            try:
                _write_all(descriptor, data)
            finally:
                os.close(descriptor)
        except OSError as error:
            raise CapacityExhausted(f"the audit log cannot be written: {error}") from error

    def _rotate(self, more: int) -> None:
        try:
            size = self._path.stat().st_size
        except FileNotFoundError:
            return
        if not size or size + more <= self._most:
            return
        descriptor = os.open(self._path, os.O_RDONLY | os.O_CLOEXEC)
        os.fsync(descriptor)
        os.close(descriptor)
        parts = [self._path, *self._older()]
        for older, newer in zip(reversed(parts), reversed(parts[:-1]), strict=False):
            if newer.exists():
                newer.rename(older)


def _write_all(descriptor: int, data: bytes) -> None:
    """Writes whole lines, or nothing of them: what is half written is taken back."""
    end = os.fstat(descriptor).st_size
    try:
        view = memoryview(data)
        while view:
            view = view[os.write(descriptor, view) :]
    except OSError:
        os.ftruncate(descriptor, end)
        raise


def _last_lines(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            file.seek(max(0, path.stat().st_size - LINE_MOST))
            data = file.read()
    except FileNotFoundError:
        return b""
    return data


def _read_at(path: Path, at: int) -> bytes:
    try:
        with path.open("rb") as file:
            file.seek(at)
            return file.read(_PIECE)
    except FileNotFoundError:
        return b""


def _stamp(path: Path) -> object:
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns


def _read_policy(path: Path) -> tuple[object, bytes] | None:
    stamp = _stamp(path)
    if stamp is None:
        return None
    if not stat.S_ISREG(path.stat().st_mode):
        raise RequestInvalid(f"{path} is no file")
    return stamp, read_edited_file(path)


def _write(path: Path, data: bytes) -> None:
    try:
        durable.write_bytes(path, data, mode=0o600)
    except OSError as error:
        raise CapacityExhausted(f"{path.name} cannot be written: {error}") from error


def _read(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(_ANSWERS_MOST)
    except FileNotFoundError:
        return b""
