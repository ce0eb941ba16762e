"""What one archive may bring to its reader, and how an entry that brings more is refused."""

from dataclasses import dataclass

_SHOWN_MAX = 300


@dataclass(frozen=True, slots=True, kw_only=True)
class TarLimits:
    """The most that a reader takes in.

    Attributes:
        file_bytes: bytes of one regular file, holes of a sparse one included.
        header_bytes: bytes of one extended (PAX or GNU) header.
        all_header_bytes: bytes of all extended headers of the archive together.
        sparse_segments: data segments of one sparse file.
    """

    file_bytes: int = 64 << 30
    header_bytes: int = 1 << 20
    all_header_bytes: int = 512 << 20
    sparse_segments: int = 100_000


class ArchiveUnsafe(Exception):
    """An archive is malformed, hostile or beyond the limits; its users make their own error of it.

    Attributes:
        entry: name of the entry at fault; empty for the archive itself.
        reason: what is wrong, as a sentence about the entry.
    """

    def __init__(self, entry: bytes, reason: str) -> None:
        shown = show_name(entry)
        super().__init__(f"entry {shown!r}: {reason}" if shown else reason)
        self.entry = entry
        self.reason = reason


def unsafe(entry: bytes, reason: str) -> ArchiveUnsafe:
    """The error that refuses an archive for one entry; an empty name stands for the stream."""
    return ArchiveUnsafe(entry, reason)


def show_name(name: bytes) -> str:
    """A name out of an archive as text that is safe to print, cut where it is very long."""
    text = name[:_SHOWN_MAX].decode("utf-8", "backslashreplace")
    shown = "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
    return shown + ("…" if len(name) > _SHOWN_MAX else "")
