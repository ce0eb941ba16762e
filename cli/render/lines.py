"""Output of several processes in one place: whole lines, each behind the name of its process."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence

from services.core.text import printable

_LINE_BYTES = 64 * 1024
_COLOURS = (36, 33, 32, 35, 34, 31)
"""Cyan, yellow, green, magenta, blue, red: the foreground colours that are read on any ground."""

Write = Callable[[bytes, bool], Awaitable[None]]
"""Writes bytes to standard output, or with True to standard error; all of them."""


class PrefixedLines:
    """Writes `name | line`, names padded to the longest.

    A line is written when it is whole, or longer than 64 KiB; the last one of a stream with
    `finish`. So lines of several processes never run into each other.

    Args:
        names: of the processes, in the order of their colours.
        write: takes what is to be written.
        coloured: whether standard output, and standard error, show colours.
    """

    def __init__(
        self, names: Sequence[str], *, write: Write, coloured: tuple[bool, bool] = (False, False)
    ) -> None:
        width = max(map(len, names), default=0)
        self._prefixes = {
            name: tuple(
                _coloured(f"{printable(name):<{width}} | ", number if colours else None)
                for colours in coloured
            )
            for number, name in enumerate(names)
        }
        self._write = write
        self._unfinished: dict[tuple[str, bool], bytes] = {}
        self._writing = asyncio.Lock()

    async def add(self, name: str, data: bytes, *, is_error: bool) -> None:
        """Writes the lines that `data` completes."""
        text = self._unfinished.pop((name, is_error), b"") + data
        lines = text.split(b"\n")
        rest = lines.pop()
        while len(rest) > _LINE_BYTES:
            lines.append(rest[:_LINE_BYTES])
            rest = rest[_LINE_BYTES:]
        if rest:
            self._unfinished[name, is_error] = rest
        await self._put(name, lines, is_error=is_error)

    async def finish(self, name: str) -> None:
        """Writes what a process left of a line, as a line."""
        for is_error in (False, True):
            rest = self._unfinished.pop((name, is_error), b"")
            await self._put(name, [rest] if rest else [], is_error=is_error)

    async def _put(self, name: str, lines: Sequence[bytes], *, is_error: bool) -> None:
        if not lines:
            return
        prefix = self._prefixes[name][is_error]
        async with self._writing:
            await self._write(b"".join(prefix + line + b"\n" for line in lines), is_error)


def _coloured(prefix: str, number: int | None) -> bytes:
    if number is None:
        return prefix.encode()
    return f"\x1b[{_COLOURS[number % len(_COLOURS)]}m{prefix}\x1b[0m".encode()
