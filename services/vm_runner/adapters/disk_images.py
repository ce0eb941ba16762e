"""Disk images with an empty ext4 file system, made by e2fsprogs.

Sparse: a fresh image of any size takes about 200 KiB. The journal is small, nothing is initialised
ahead, and the guest's kernel does not do so later.
"""

import asyncio
import os
import shutil
from pathlib import Path

from services.chassis import durable, reserve
from services.core.errors import CapacityExhausted, HostUnready, VmFailed

_FORMAT = (
    "mkfs.ext4", "-q", "-F", "-m", "0", "-I", "256", "-J", "size=16",
    "-O", "^resize_inode", "-E", "lazy_itable_init=1,lazy_journal_init=1,nodiscard,root_owner=0:0",
)  # fmt: skip
_SECONDS = 60.0
_EMPTY_BYTES = 256 << 10  # what a fresh image takes, about
_SYSTEM_PATHS = "/usr/sbin:/sbin"


class Ext4Images:
    """Makes disk images."""

    async def ensure(self, path: Path, *, size_bytes: int) -> None:
        """Makes a sparse disk image unless it exists."""
        if await asyncio.to_thread(path.exists):
            return
        program = find_mkfs()
        temporary = path.with_name(f"{durable.TEMPORARY_PREFIX}{path.name}")
        try:
            await asyncio.to_thread(_make_sparse, temporary, size_bytes)
            await self._format(program, temporary)
            await asyncio.to_thread(durable.rename, temporary, path)
        except OSError as error:
            if reserve.is_full(error):
                raise _no_room(path.parent) from error
            raise
        finally:
            await asyncio.to_thread(temporary.unlink, missing_ok=True)

    @staticmethod
    async def _format(program: str, path: Path) -> None:
        process = await asyncio.create_subprocess_exec(
            program,
            *_FORMAT[1:],
            str(path),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.PIPE,
        )
        try:
            async with asyncio.timeout(_SECONDS):
                _, messages = await process.communicate()
        except BaseException:
            process.kill()
            await process.wait()
            raise
        if process.returncode:
            text = messages.decode("utf-8", "replace").strip()
            if "No space" in text:
                raise _no_room(path.parent)
            raise VmFailed(f"a disk could not be formatted: {text[-300:]}")


def _no_room(directory: Path) -> CapacityExhausted:
    return reserve.exhausted(directory, what="an empty disk image", needed=_EMPTY_BYTES)


def find_mkfs() -> str:
    """Returns the path of the formatting tool.

    Raises:
        HostUnready: it does not exist.
    """
    # A user's PATH often lacks the folders where distributions put it.
    program = shutil.which(_FORMAT[0]) or shutil.which(_FORMAT[0], path=_SYSTEM_PATHS)
    if program is None:
        raise HostUnready(
            "mkfs.ext4 is not installed", hint="`lns setup qemu`, or install e2fsprogs"
        )
    return program


def _make_sparse(path: Path, size_bytes: int) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    try:
        os.ftruncate(descriptor, size_bytes)
    finally:
        os.close(descriptor)
