"""Tar archives for tests, block by block, so that every field can be wrong."""

import hashlib
import io
import tarfile
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from services.materializer.layers.entries import Entry, parse_entries
from services.materializer.layers.ingest import ENTRIES, OBJECTS, LayerFacts, ingest_layer
from services.materializer.layers.limits import LayerLimits
from tests.support.erofs_reader import Reader

END = bytes(1024)


def octal(number: int, width: int) -> bytes:
    """A number as tar headers have it."""
    return f"{number:0{width - 1}o}".encode() + b"\0"


def base256(number: int, width: int) -> bytes:
    """A number in GNU's form for large ones."""
    mark = b"\x80" if number >= 0 else b"\xff"
    return mark + number.to_bytes(width - 1, "big", signed=number < 0)


def header(
    name: bytes = b"f",
    *,
    kind: bytes = b"0",
    size: int | bytes = 0,
    mode: int | bytes = 0o644,
    uid: int | bytes = 0,
    gid: int | bytes = 0,
    mtime: int | bytes = 0,
    link: bytes = b"",
    magic: bytes = b"ustar\x0000",
    major: int | bytes = 0,
    minor: int | bytes = 0,
    prefix: bytes = b"",
    checksum: bytes | None = None,
    gnu: bytes = b"",
) -> bytes:
    """One header block; fields may be numbers or raw bytes, the checksum is right if not given."""

    def number(value: int | bytes, width: int) -> bytes:
        return (octal(value, width) if isinstance(value, int) else value).ljust(width, b"\0")

    before = name.ljust(100, b"\0") + number(mode, 8) + number(uid, 8) + number(gid, 8)
    before += number(size, 12) + number(mtime, 12)
    after = kind + link.ljust(100, b"\0") + magic.ljust(8, b"\0") + bytes(64)
    after += number(major, 8) + number(minor, 8) + (gnu or prefix).ljust(167, b"\0")
    if checksum is None:
        checksum = f"{sum(before) + sum(after) + 8 * 32:06o}".encode() + b"\0 "
    block = before + checksum + after
    assert len(block) == 512
    return block


def padded(data: bytes) -> bytes:
    """Data up to the next block boundary."""
    return data + bytes(-len(data) % 512)


def entry(name: bytes = b"f", content: bytes = b"", **fields: object) -> bytes:
    """A header with its content."""
    fields.setdefault("size", len(content))
    return header(name, **fields) + padded(content)  # type: ignore[arg-type]  # names of fields


def record(keyword: bytes, value: bytes) -> bytes:
    """One record of an extended header."""
    body = b" " + keyword + b"=" + value + b"\n"
    size = len(body) + 1
    while len(str(size)) + len(body) != size:
        size += 1
    return str(size).encode() + body


def pax(*records: tuple[bytes, bytes], raw: bytes | None = None, kind: bytes = b"x") -> bytes:
    """An extended header for the entry that follows."""
    data = b"".join(record(*one) for one in records) if raw is None else raw
    return entry(b"pax", data, kind=kind)


def gnu_long(kind: bytes, text: bytes) -> bytes:
    """GNU's header for a long name (`L`) or link (`K`)."""
    return entry(b"././@LongLink", text, kind=kind, magic=b"ustar  \0")


def archive(*parts: bytes) -> bytes:
    """Entries with the end-of-archive mark."""
    return b"".join(parts) + END


def layer(*members: tuple[str, dict[str, object]]) -> bytes:
    """A PAX archive of members given by name: `content`, `link`, `kind`, `mode`, `mtime` …"""
    output = io.BytesIO()
    with tarfile.open(fileobj=output, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for name, fields in members:
            info = tarfile.TarInfo(name)
            info.type = fields.get("kind", tarfile.REGTYPE)  # type: ignore[assignment]  # bytes
            info.linkname = str(fields.get("link", ""))
            info.mode = int(str(fields.get("mode", 0o644)))
            info.uid = int(str(fields.get("uid", 0)))
            info.mtime = int(str(fields.get("mtime", 0)))
            info.devmajor, info.devminor = fields.get("device", (0, 0))  # type: ignore[misc]  # a pair
            info.pax_headers = fields.get("pax", {})  # type: ignore[assignment]  # a dictionary
            content = fields.get("content", b"")
            assert isinstance(content, bytes)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return output.getvalue()


@dataclass(slots=True)
class Ingested:
    """What became of a layer."""

    facts: LayerFacts
    entries: list[Entry]
    diff_id: str
    objects: dict[str, bytes] = field(default_factory=dict)


def ingest(
    data: bytes, directory: Path, *, limits: LayerLimits | None = None, diff_id: str | None = None
) -> Ingested:
    """Takes a plain archive apart; objects are read by a reader that the product does not have."""
    diff_id = diff_id or hashlib.sha256(data).hexdigest()
    facts = ingest_layer(
        io.BytesIO(data),
        directory,
        diff_id=diff_id,
        limits=limits or LayerLimits(),
    )
    entries = list(parse_entries((directory / ENTRIES).read_bytes()))
    objects = {}
    if (directory / OBJECTS).exists():
        root = Reader((directory / OBJECTS).read_bytes()).root
        objects = {
            (prefix + name).decode(): node.data or b""
            for prefix, child in root.children.items()
            for name, node in child.children.items()
        }
    return Ingested(facts=facts, entries=entries, diff_id=diff_id, objects=objects)


def names(entries: Iterable[Entry]) -> list[str]:
    """The paths of entries."""
    return [one.path.decode("utf-8", "backslashreplace") for one in entries]
