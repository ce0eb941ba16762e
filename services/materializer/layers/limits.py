"""What a layer may ask of the node, and how an entry that asks for more is refused."""

from dataclasses import dataclass

from services.core.errors import LayerUnsafe

_SHOWN_MAX = 300


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerLimits:
    """The most that one layer may bring; beyond it the layer is refused by the entry at fault.

    Attributes:
        entries: tar entries, whiteouts included.
        layer_bytes: bytes of the uncompressed layer.
        file_bytes: bytes of one regular file, holes of a sparse one included.
        total_file_bytes: bytes of all regular files together, holes included.
        path_bytes: bytes of a path in the layer.
        depth: names in a path.
        header_bytes: bytes of one extended (PAX or GNU) header.
        list_bytes: bytes of the entry list, which holds names, attributes and small files.
        sparse_segments: data segments of one sparse file.
        expansion: how many times larger than its blob a layer may be, once it is larger than
            `expansion_free_bytes`. Neither ordinary data nor its compression come near it.
        expansion_free_bytes: up to here any expansion is fine.
    """

    entries: int = 500_000
    layer_bytes: int = 64 << 30
    file_bytes: int = 64 << 30
    total_file_bytes: int = 256 << 30
    path_bytes: int = 4095
    depth: int = 256
    header_bytes: int = 1 << 20
    list_bytes: int = 128 << 20
    sparse_segments: int = 100_000
    expansion: int = 2000
    expansion_free_bytes: int = 1 << 30


def unsafe(entry: bytes, reason: str) -> LayerUnsafe:
    """The error that refuses a layer for one entry; an empty name stands for the stream itself."""
    shown = show_name(entry)
    subject = f"entry {shown!r}" if shown else "layer"
    return LayerUnsafe(f"{subject}: {reason}", metadata={"entry": shown} if shown else {})


def show_name(name: bytes) -> str:
    """A name out of a layer as text that is safe to print, cut where it is very long."""
    text = name[:_SHOWN_MAX].decode("utf-8", "backslashreplace")
    shown = "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
    return shown + ("…" if len(name) > _SHOWN_MAX else "")
