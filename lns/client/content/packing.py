"""Walks a tree of the machine and packs it as the content of an artifact."""

import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Final

from services.core.artifacts.content import LayerPacker, PackedLayer
from services.core.artifacts.ignore import IGNORE_FILE, IgnoreRules
from services.core.errors import RequestInvalid

_CHUNK: Final = 1024 * 1024
_MAX_IGNORE_BYTES: Final = 1024 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class _Entry:
    path: str
    source: Path
    status: os.stat_result


def pack_content(source: Path, output: BinaryIO) -> PackedLayer:
    """Packs a directory, or one file under its own name, into a layer written to `output`.

    The format, and what it keeps of a tree, is that of `services.core.artifacts.content`. A
    `.lnsignore` at the root of a directory says what is left out, itself included. Symbolic links
    are never followed, except `source` itself. Blocks; memory is bounded but for the list of names.

    Raises:
        RequestInvalid: the source is missing or unreadable, holds a device, socket or FIFO or a
            name that is not UTF-8, or changed while it was read; metadata names the `entry`.
    """
    packer = LayerPacker(output.write)
    first_names: dict[tuple[int, int], str] = {}
    try:
        for entry in _entries(source.resolve(strict=True)):
            _pack(packer, entry, first_names)
    except OSError as error:
        raise RequestInvalid(
            f"cannot read {error.filename or source}: {error.strerror}",
            hint="--content takes a directory or a file that you can read",
        ) from error
    return packer.finish()


def _entries(root: Path) -> list[_Entry]:
    """Returns what is to be packed, sorted as the layer wants it."""
    status = root.lstat()
    if not stat.S_ISDIR(status.st_mode):
        return [_Entry(path=root.name, source=root, status=status)]
    entries = list(_walk(root, "", _ignore_rules(root)))
    entries.sort(key=lambda entry: os.fsencode(entry.path))
    return entries


def _walk(directory: Path, prefix: str, rules: IgnoreRules) -> Iterator[_Entry]:
    pending = [(directory, prefix)]
    while pending:
        directory, prefix = pending.pop()
        with os.scandir(directory) as children:
            for child in children:
                path = prefix + child.name
                is_directory = child.is_dir(follow_symlinks=False)
                if rules.ignores(path, is_directory=is_directory):
                    continue
                status = child.stat(follow_symlinks=False)
                yield _Entry(path=path, source=Path(child.path), status=status)
                if is_directory:
                    pending.append((Path(child.path), f"{path}/"))


def _ignore_rules(root: Path) -> IgnoreRules:
    file = root / IGNORE_FILE
    if not file.is_file():
        return IgnoreRules()
    with file.open("rb") as opened:
        raw = opened.read(_MAX_IGNORE_BYTES + 1)
    if len(raw) > _MAX_IGNORE_BYTES:
        raise RequestInvalid(f"{file} is larger than 1 MiB")
    return IgnoreRules.parse(raw.decode("utf-8", "surrogateescape"))


def _pack(packer: LayerPacker, entry: _Entry, first_names: dict[tuple[int, int], str]) -> None:
    mode = entry.status.st_mode
    if stat.S_ISDIR(mode):
        packer.add_directory(entry.path)
    elif stat.S_ISLNK(mode):
        packer.add_symbolic_link(entry.path, str(entry.source.readlink()))
    elif stat.S_ISREG(mode):
        inode = (entry.status.st_dev, entry.status.st_ino)
        first = first_names.setdefault(inode, entry.path)
        if first != entry.path:
            packer.add_hard_link(entry.path, first, is_executable=bool(mode & stat.S_IXUSR))
        else:
            _pack_file(packer, entry)
    else:
        raise RequestInvalid(
            f"{entry.path!a} cannot be packed: it is a device, socket or FIFO",
            hint=f"leave it out with a line in {IGNORE_FILE}",
            metadata={"entry": ascii(entry.path)},
        )


def _pack_file(packer: LayerPacker, entry: _Entry) -> None:
    descriptor = os.open(entry.source, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    with os.fdopen(descriptor, "rb", buffering=0) as file:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode) or not os.path.samestat(status, entry.status):
            raise RequestInvalid(
                f"{entry.path!a} changed while it was packed",
                hint="try again",
                metadata={"entry": ascii(entry.path)},
            )
        packer.add_file(
            entry.path,
            size=status.st_size,
            is_executable=bool(status.st_mode & stat.S_IXUSR),
            chunks=iter(lambda: file.read(_CHUNK), b""),
        )
