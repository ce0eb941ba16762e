"""Single lines of a composefs dump: fields, escapes and numbers.

What the format leaves open is read the way its C tool does: numbers as `strtoull` reads them, paths
and attribute names cut at an escaped NUL.
"""

import re
import stat
from binascii import unhexlify

from services.materializer.composefs.tree import (
    FILE_SIZE_MAX,
    SYMLINK_MAX,
    XATTR_NAME_MAX,
    XATTR_TOTAL_MAX,
    XATTR_VALUE_MAX,
    Inode,
    xattr_weight,
)
from services.materializer.composefs.verity import DIGEST_BYTES

CONTENT_MAX = 5000
"""Bytes of inline content that a dump may give for one file."""

_XATTR_TEXT_MAX = 65535
_FIELDS = 11
_NEEDED_FIELDS = 8  # what is missing behind MTIME is empty
_U32 = 0xFFFFFFFF
_U64_MAX = (1 << 64) - 1
_SHOWN_MAX = 80
_U64_DIGITS_MAX = 22  # as many octal digits as 64 bits need
_KNOWN_TYPES = frozenset(
    (
        stat.S_IFREG,
        stat.S_IFDIR,
        stat.S_IFLNK,
        stat.S_IFCHR,
        stat.S_IFBLK,
        stat.S_IFIFO,
        stat.S_IFSOCK,
    )
)
_ESCAPE = re.compile(rb"\\(?:([\\nrt])|x([0-9a-fA-F]{2})|)")
_PLAIN_ESCAPES = {b"\\": b"\\", b"n": b"\n", b"r": b"\r", b"t": b"\t"}
_DECIMAL = re.compile(rb"[ \t\n\v\f\r]*([+-]?)([0-9]+)")
_OCTAL = re.compile(rb"[ \t\n\v\f\r]*([+-]?)([0-7]+)")


class LineInvalid(ValueError):
    """What is wrong with the line at hand."""


class _Decimals(dict[bytes, int]):
    """Decimal numbers by their text, each parsed once: owners and counts repeat on most lines."""

    def __missing__(self, text: bytes) -> int:
        number = _strtoull(text, _DECIMAL, 10)
        self[text] = number
        return number


class _Modes(dict[bytes, int]):
    """File modes by their octal text, with a known file type."""

    def __missing__(self, text: bytes) -> int:
        mode = _strtoull(text, _OCTAL, 8) & _U32
        if stat.S_IFMT(mode) not in _KNOWN_TYPES:
            raise LineInvalid(f"mode {show(text)} has no known file type")
        self[text] = mode
        return mode


class _Times(dict[bytes, tuple[int, int]]):
    """Times as `(seconds, nanoseconds)` by their text `SECONDS.NANOSECONDS`."""

    def __missing__(self, text: bytes) -> tuple[int, int]:
        seconds_text, _, nanoseconds_text = text.partition(b".")
        seconds = _strtoull(seconds_text, _DECIMAL, 10)
        nanoseconds = _strtoull(nanoseconds_text, _DECIMAL, 10) & _U32
        if seconds >= 1 << 63:
            seconds -= 1 << 64
        self[text] = (seconds, nanoseconds)
        return seconds, nanoseconds


class LineReader:
    """Reads single lines of a dump; remembers numbers it has seen, so keep one for many lines."""

    def __init__(self) -> None:
        self._decimals = _Decimals()
        self._modes = _Modes()
        self._times = _Times()

    def read(self, line: bytes) -> tuple[bytes, Inode | bytes]:
        """The path of a line, with its inode, or with the target of a hard link.

        Raises:
            LineInvalid: the line is malformed.
        """
        if b"\0" in line:
            raise LineInvalid("a NUL byte is not permitted")
        fields = line.split(b" ", _FIELDS)
        escaped = b"\\" in line
        path = fields[0]
        if escaped:
            path = unescape(path).partition(b"\0")[0]
        if not path:
            raise LineInvalid("the path is empty")
        if len(fields) < _FIELDS:
            if len(fields) < _NEEDED_FIELDS:
                raise LineInvalid(f"{len(fields)} fields where there must be {_FIELDS}")
            fields += [b""] * (_FIELDS - len(fields))
        if fields[2].startswith(b"@"):
            return path, self._link_target(path, fields)
        return path, self._inode(fields, escaped=escaped)

    def _link_target(self, path: bytes, fields: list[bytes]) -> bytes:
        if stat.S_ISDIR(self._modes[fields[2][1:]]):
            raise LineInvalid(f"{show(path)}: a directory cannot be a hard link")
        if fields[8] == b"-":
            raise LineInvalid(f"{show(path)}: a hard link needs its target as payload")
        return _cut(unescape(fields[8]))

    def _inode(self, fields: list[bytes], *, escaped: bool) -> Inode:
        _, size, mode, nlink, uid, gid, rdev, mtime, payload, content, digest = fields[:_FIELDS]
        decimals = self._decimals
        seconds, nanoseconds = self._times[mtime]
        device = decimals[rdev] & _U32
        inode = Inode(
            self._modes[mode],
            decimals[uid] & _U32,
            decimals[gid] & _U32,
            seconds,
            nanoseconds,
            decimals[size],
            decimals[nlink] & _U32,
        )
        kind = inode.mode & 0o170000
        if kind in (stat.S_IFCHR, stat.S_IFBLK):
            inode.rdev = device
        if payload != b"-":
            inode.payload = _cut(unescape(payload)) if escaped else payload
            if len(inode.payload) > SYMLINK_MAX:
                raise LineInvalid(f"a payload of more than {SYMLINK_MAX} bytes")
        if content != b"-":
            _set_content(inode, unescape(content))
        if kind == stat.S_IFLNK:
            if not inode.payload:
                raise LineInvalid("a symbolic link needs a target")
            inode.size = len(inode.payload)
        elif kind == stat.S_IFREG and inode.content is None and inode.size > FILE_SIZE_MAX:
            raise LineInvalid(f"a file of {inode.size} bytes is larger than {FILE_SIZE_MAX}")
        if digest != b"-":
            inode.digest = _digest(unescape(digest))
            if inode.digest is None and inode.is_external:
                raise LineInvalid("the digest of an external file is empty")
        if len(fields) > _FIELDS and fields[_FIELDS]:
            inode.xattrs = _parse_xattrs(fields[_FIELDS])
        return inode


def _set_content(inode: Inode, content: bytes) -> None:
    """Gives an inode inline content; that of a symbolic link must fit its size and is ignored."""
    if len(content) != inode.size:
        raise LineInvalid(
            f"the content has {len(content)} bytes and the size field says {inode.size}"
        )
    if stat.S_ISLNK(inode.mode):
        return
    if len(content) > CONTENT_MAX:
        raise LineInvalid(f"inline content of {len(content)} bytes is more than {CONTENT_MAX}")
    inode.content = content or None


def _cut(value: bytes) -> bytes:
    return value.partition(b"\0")[0]


def _digest(text: bytes) -> bytes | None:
    if not _cut(text):
        return None
    try:
        digest = unhexlify(_cut(text))
    except ValueError:
        digest = b""
    if len(digest) != DIGEST_BYTES:
        raise LineInvalid(f"{show(text)} is not a digest of 64 hexadecimal digits")
    return digest


def _parse_xattrs(text: bytes) -> dict[bytes, bytes]:
    if len(text) > _XATTR_TEXT_MAX:
        raise LineInvalid(
            f"{len(text)} bytes of extended attributes are more than {_XATTR_TEXT_MAX}"
        )
    xattrs: dict[bytes, bytes] = {}
    weight = 12
    escaped = b"\\" in text
    for field in text.removesuffix(b" ").split(b" "):
        key, separator, value = field.partition(b"=")
        if not separator:
            raise LineInvalid(f"the extended attribute {show(field)} has no =")
        if escaped:
            key = unescape(key).partition(b"\0")[0]
            value = unescape(value)
        if not 1 <= len(key) <= XATTR_NAME_MAX or len(value) > XATTR_VALUE_MAX:
            raise LineInvalid(f"the extended attribute {show(key)} is empty or too long")
        xattrs.pop(key, None)
        xattrs[key] = value
        weight += 7 + len(key) + len(value)
        if weight > XATTR_TOTAL_MAX:
            weight = xattr_weight(xattrs)
            if weight > XATTR_TOTAL_MAX:
                raise LineInvalid(f"extended attributes take more than {XATTR_TOTAL_MAX} bytes")
    return xattrs


def _strtoull(text: bytes, pattern: re.Pattern[bytes], base: int) -> int:
    """A number as C reads it: leading white space, a sign (minus wraps), at most 64 bits."""
    match = pattern.fullmatch(text)
    if match is None:
        raise LineInvalid(f"{show(text)} is not a number")
    digits = match[2].lstrip(b"0") or b"0"
    number = int(digits, base) if len(digits) <= _U64_DIGITS_MAX else _U64_MAX + 1
    if number > _U64_MAX:
        return _U64_MAX
    return -number & _U64_MAX if match[1] == b"-" else number


def unescape(text: bytes) -> bytes:
    """What an escaped field stands for; raises LineInvalid."""
    if b"\\" not in text:
        return text
    return _ESCAPE.sub(_replace_escape, text)


def _replace_escape(match: re.Match[bytes]) -> bytes:
    plain, hexadecimal = match.groups()
    if plain is not None:
        return _PLAIN_ESCAPES[plain]
    if hexadecimal is None:
        raise LineInvalid("a backslash is followed by no known escape")
    return unhexlify(hexadecimal)


def show(text: bytes) -> str:
    """Text of a dump, as short and harmless as an error message needs it."""
    shown = text[:_SHOWN_MAX].decode("ascii", "backslashreplace")
    printable = "".join(c if c.isprintable() else f"\\x{ord(c):02x}" for c in shown)
    return f"`{printable}`" + ("…" if len(text) > _SHOWN_MAX else "")
