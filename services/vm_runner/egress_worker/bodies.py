"""Bodies of HTTP/1 messages: counted as they pass, never changed.

RFC 9112, sections 6 and 7. Pure.
"""

import re
from typing import Final

from services.vm_runner.egress_worker.heads import Framing, Head, HeadInvalid

_LINE_MOST: Final = 4096
_TRAILERS_MOST: Final = 32 * 1024
_SIZE_LINE = re.compile(rb"([0-9A-Fa-f]{1,15})[ \t]*(?:;[^\r\n\x00]*)?\r\n\Z")
_TRAILER = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+:[^\r\n\x00]*\r\n\Z")


class BodyReader:
    """Finds the end of a body in the bytes that follow a head."""

    def __init__(self, head: Head) -> None:
        self._framing = head.framing
        self._left = head.length
        self._line = b""
        self._state = _SIZE
        self._trailers = 0
        self.done = head.framing is Framing.NONE

    def feed(self, data: bytes) -> int:
        """Returns how many of these bytes belong to the body, and notes whether it is over.

        Raises:
            HeadInvalid: the chunks are malformed.
        """
        if self.done:
            return 0
        match self._framing:
            case Framing.CLOSE:
                return len(data)
            case Framing.LENGTH:
                taken = min(self._left, len(data))
                self._left -= taken
                self.done = not self._left
                return taken
        at = 0
        while at < len(data) and not self.done:
            at = self._chunk(data, at)
        return at

    def end(self) -> None:
        """Takes the end of the connection.

        Raises:
            HeadInvalid: the body is not over.
        """
        if self._framing is Framing.CLOSE:
            self.done = True
        if not self.done:
            raise HeadInvalid("a body that ends too early")

    def _chunk(self, data: bytes, at: int) -> int:
        if self._state == _DATA:
            taken = min(self._left, len(data) - at)
            self._left -= taken
            if not self._left:
                self._state = _DATA_END
            return at + taken
        newline = data.find(b"\n", at)
        end = len(data) if newline < 0 else newline + 1
        self._line += data[at:end]
        if len(self._line) > _LINE_MOST:
            raise HeadInvalid("a line without end between chunks")
        if newline >= 0:
            line, self._line = self._line, b""
            self._end_of_line(line)
        return end

    def _end_of_line(self, line: bytes) -> None:
        if self._state == _DATA_END:
            if line != b"\r\n":
                raise HeadInvalid("a chunk that is longer than it says")
            self._state = _SIZE
        elif self._state == _SIZE:
            match = _SIZE_LINE.match(line)
            if match is None:
                raise HeadInvalid("a chunk without its length")
            self._left = int(match[1], 16)
            self._state = _DATA if self._left else _TRAILERS
        elif line == b"\r\n":
            self.done = True
        else:
            self._trailers += len(line)
            if self._trailers > _TRAILERS_MOST or not _TRAILER.match(line):
                raise HeadInvalid("a trailer is not valid")


_SIZE, _DATA, _DATA_END, _TRAILERS = range(4)
