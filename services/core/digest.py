"""Content digests as OCI writes them: `sha256:` and 64 lower-case hexadecimal digits."""

import hashlib
import re
from collections.abc import Iterable
from typing import Self

from services.core.errors import DigestInvalid

_PATTERN = re.compile(r"sha256:[0-9a-f]{64}\Z")


class Digest(str):
    """A valid sha256 digest; compares, sorts and prints as its text.

    Raises:
        DigestInvalid: the text is not `sha256:` and 64 lower-case hexadecimal digits.
    """

    __slots__ = ()

    def __new__(cls, text: str) -> Self:
        """Checks the text; see the class for what is raised."""
        if not _PATTERN.match(text):
            shown = text[:100]
            raise DigestInvalid(
                f"{shown!r} is not a digest",
                hint="write sha256: followed by 64 lower-case hexadecimal digits",
                metadata={"digest": shown},
            )
        return super().__new__(cls, text)

    @classmethod
    def of(cls, data: bytes | bytearray | memoryview) -> Self:
        """Returns the digest of raw bytes."""
        return cls("sha256:" + hashlib.sha256(data).hexdigest())

    @classmethod
    def of_chunks(cls, chunks: Iterable[bytes]) -> Self:
        """Returns the digest of the concatenation of chunks."""
        hasher = hashlib.sha256()
        for chunk in chunks:
            hasher.update(chunk)
        return cls("sha256:" + hasher.hexdigest())

    @classmethod
    def from_hex(cls, hexadecimal: str) -> Self:
        """Returns the digest with these 64 hexadecimal digits."""
        return cls("sha256:" + hexadecimal)

    @property
    def hex(self) -> str:
        """The 64 hexadecimal digits."""
        return self[7:]

    @property
    def short(self) -> str:
        """The first twelve hexadecimal digits, for people."""
        return self[7:19]
