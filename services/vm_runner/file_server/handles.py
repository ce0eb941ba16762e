"""What the guest has open: files, and directories that it reads."""

import errno
import os
from collections.abc import Iterator
from dataclasses import dataclass, field

from services.vm_runner.file_server.nodes import Node

_DIRECTORY = 4
_REGULAR = 8
_LINK = 10


@dataclass(frozen=True, slots=True)
class Listed:
    """An entry as it stands in a directory; `kind` is its `d_type`, 0 where that is not known."""

    name: bytes
    ino: int
    kind: int


@dataclass(slots=True)
class OpenFile:
    """A file that is open."""

    node: Node
    descriptor: int


class OpenDirectory:
    """A directory that is read from its beginning on; a position is the number of entries before.

    Whoever goes back reads from the beginning again: no listing is held in memory.
    """

    def __init__(self, node: Node, descriptor: int) -> None:
        self.node = node
        self.descriptor = descriptor
        self._position = 0
        self._entries: Iterator[Listed] | None = None
        self._next: Listed | None = None

    def at(self, position: int) -> Listed | None:
        """Returns the entry at a position; None at the end."""
        if self._entries is None or position < self._position:
            self.rewind()
        while self._position < position:
            if self._peek() is None:
                return None
            self._next = None
            self._position += 1
        return self._peek()

    def _peek(self) -> Listed | None:
        if self._next is None and self._entries is not None:
            self._next = next(self._entries, None)
        return self._next

    def rewind(self) -> None:
        """Begins anew."""
        os.lseek(self.descriptor, 0, os.SEEK_SET)
        self._entries, self._next, self._position = self._list(), None, 0

    def _list(self) -> Iterator[Listed]:
        own = os.fstat(self.descriptor).st_ino
        yield Listed(b".", own, _DIRECTORY)
        yield Listed(b"..", own, _DIRECTORY)
        with os.scandir(self.descriptor) as entries:
            for entry in entries:
                yield Listed(os.fsencode(entry.name), entry.inode(), _kind(entry))

    def close(self) -> None:
        """Closes it."""
        self._entries = None
        os.close(self.descriptor)


def _kind(entry: os.DirEntry[str]) -> int:
    if entry.is_symlink():
        return _LINK
    if entry.is_dir(follow_symlinks=False):
        return _DIRECTORY
    return _REGULAR if entry.is_file(follow_symlinks=False) else 0


@dataclass(slots=True)
class Handles:
    """What is open, by the numbers that the guest has of it."""

    most: int
    _files: dict[int, OpenFile] = field(default_factory=dict)
    _directories: dict[int, OpenDirectory] = field(default_factory=dict)
    _last: int = 0

    def __len__(self) -> int:
        return len(self._files) + len(self._directories)

    def check_room(self) -> None:
        """Raises OSError if there is no room for one more."""
        if len(self) >= self.most:
            raise OSError(errno.ENFILE, os.strerror(errno.ENFILE))

    def add_file(self, node: Node, descriptor: int) -> int:
        """Takes an open file; returns its number."""
        self._last += 1
        self._files[self._last] = OpenFile(node, descriptor)
        return self._last

    def add_directory(self, node: Node, descriptor: int) -> int:
        """Takes an open directory; returns its number."""
        self._last += 1
        self._directories[self._last] = OpenDirectory(node, descriptor)
        return self._last

    def file(self, number: int) -> OpenFile:
        """Returns an open file.

        Raises:
            OSError: no handle has that number.
        """
        if number not in self._files:
            raise OSError(errno.EBADF, os.strerror(errno.EBADF))
        return self._files[number]

    def directory(self, number: int) -> OpenDirectory:
        """Returns an open directory.

        Raises:
            OSError: no handle has that number.
        """
        if number not in self._directories:
            raise OSError(errno.EBADF, os.strerror(errno.EBADF))
        return self._directories[number]

    def close_file(self, number: int) -> None:
        """Closes a file, if it is open."""
        if number in self._files:
            os.close(self._files.pop(number).descriptor)

    def close_directory(self, number: int) -> None:
        """Closes a directory, if it is open."""
        if number in self._directories:
            self._directories.pop(number).close()

    def close(self) -> None:
        """Closes everything."""
        for number in list(self._files):
            self.close_file(number)
        for number in list(self._directories):
            self.close_directory(number)
