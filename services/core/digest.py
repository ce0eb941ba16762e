"""Content digests as OCI writes them: an algorithm, a colon and lower-case hexadecimal digits.

Registered by the OCI image specification, and accepted here: `sha256` (64 digits) and `sha512`
(128). lns makes sha256 digests of its own; a sha512 digest is a name that others gave to content.
"""

import hashlib
import re
from collections.abc import Iterable
from typing import Self

from services.core.errors import DigestInvalid

_PATTERN = re.compile(r"(?:sha256:[0-9a-f]{64}|sha512:[0-9a-f]{128})\Z")
_SHA512_DIGITS = 128


class Digest(str):
    """A valid digest; compares, sorts and prints as its text.

    Raises:
        DigestInvalid: the text is neither `sha256:` and 64 nor `sha512:` and 128 lower-case
            hexadecimal digits.
    """

    __slots__ = ()

    def __new__(cls, text: str) -> Self:
        """Checks the text; see the class for what is raised."""
        if not _PATTERN.match(text):
            shown = text[:100]
            raise DigestInvalid(
                f"{shown!r} is not a digest",
                hint="write sha256: and 64, or sha512: and 128 lower-case hexadecimal digits",
                metadata={"digest": shown},
            )
        return super().__new__(cls, text)

    @classmethod
    def of(cls, data: bytes | bytearray | memoryview, *, algorithm: str = "sha256") -> Self:
        """Returns the digest of raw bytes."""
        return cls(f"{algorithm}:{hashlib.new(algorithm, data).hexdigest()}")

    @classmethod
    def of_chunks(cls, chunks: Iterable[bytes]) -> Self:
        """Returns the sha256 digest of the concatenation of chunks."""
        hasher = hashlib.sha256()
        for chunk in chunks:
            hasher.update(chunk)
        return cls("sha256:" + hasher.hexdigest())

    @classmethod
    def from_hex(cls, hexadecimal: str) -> Self:
        """Returns the digest with these digits: 64 are sha256, 128 are sha512."""
        algorithm = "sha512" if len(hexadecimal) == _SHA512_DIGITS else "sha256"
        return cls(f"{algorithm}:{hexadecimal}")

    @property
    def algorithm(self) -> str:
        """`sha256` or `sha512`; a name that `hashlib.new` takes."""
        return self.partition(":")[0]

    @property
    def hex(self) -> str:
        """The hexadecimal digits; their number tells the algorithm."""
        return self.partition(":")[2]

    @property
    def short(self) -> str:
        """The first twelve hexadecimal digits, for users."""
        return self.hex[:12]

    def is_of(self, data: bytes | bytearray | memoryview) -> bool:
        """Says whether raw bytes have this digest."""
        return hashlib.new(self.algorithm, data).hexdigest() == self.hex

    def hasher(self) -> "hashlib._Hash":
        """Returns a new hash object of the digest's algorithm."""
        return hashlib.new(self.algorithm)
