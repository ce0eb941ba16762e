"""Content codings of replies: a copy is decoded to be read; what passes is never changed."""

import zlib
from collections.abc import Sequence
from typing import Final

from services.vm_runner.egress_worker.heads import Header

DECODED_MOST: Final = 64 << 20
"""Bytes of one reply that are decoded; of a longer one nothing more is read."""

_READ: Final = frozenset((b"gzip", b"deflate", b"identity"))
_PIECE: Final = 256 * 1024
_GZIP_OR_ZLIB: Final = 32 + zlib.MAX_WBITS


def ask_for_readable(headers: Sequence[Header]) -> tuple[Header, ...]:
    """Returns the headers of a request whose reply has to be read: other codings are left out."""
    return tuple(
        (name, _narrowed(value) if name.lower() == b"accept-encoding" else value)
        for name, value in headers
    )


def _narrowed(value: bytes) -> bytes:
    kept = [
        one.strip(b" \t")
        for one in value.split(b",")
        if one.partition(b";")[0].strip(b" \t").lower() in _READ
    ]
    return b", ".join(kept) or b"identity"


class Decoded:
    """Decodes the copy of a body as it passes.

    Args:
        coding: the value of `Content-Encoding`, in lower case.
    """

    def __init__(self, coding: bytes) -> None:
        self.readable = coding in _READ
        is_coded = self.readable and coding != b"identity"
        self._decoder = zlib.decompressobj(_GZIP_OR_ZLIB) if is_coded else None
        self._total = 0

    def feed(self, data: bytes) -> bytes:
        """Returns the content of a piece; empty from where it cannot be decoded."""
        if self._decoder is None or not self.readable:
            return data if self.readable else b""
        out: list[bytes] = []
        try:
            while data and not self._decoder.eof:
                out.append(self._decoder.decompress(data, _PIECE))
                self._total += len(out[-1])
                data = self._decoder.unconsumed_tail
                if self._total > DECODED_MOST:
                    self.readable = False
                    break
        except zlib.error:
            self.readable = False
        return b"".join(out)
