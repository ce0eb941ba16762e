"""What a layer may ask of the node, and how an entry that asks for more is refused."""

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass

from services.archives.limits import ArchiveUnsafe, TarLimits, show_name
from services.core.errors import LayerUnsafe


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerLimits(TarLimits):
    """The most that one layer may bring; beyond it the layer is refused by the entry at fault.

    Attributes:
        entries: tar entries, whiteouts included.
        layer_bytes: bytes of the uncompressed layer.
        total_file_bytes: bytes of all regular files together, holes included.
        path_bytes: bytes of a path in the layer.
        depth: names in a path.
        list_bytes: bytes of the entry list, which holds names, attributes and small files.
        expansion: how many times larger than its blob a layer may be, once it is larger than
            `expansion_free_bytes`. Neither ordinary data nor its compression come near it.
        expansion_free_bytes: up to here any expansion is fine.
    """

    entries: int = 500_000
    layer_bytes: int = 64 << 30
    total_file_bytes: int = 256 << 30
    path_bytes: int = 4095
    depth: int = 256
    list_bytes: int = 128 << 20
    expansion: int = 2000
    expansion_free_bytes: int = 1 << 30


def unsafe(entry: bytes, reason: str) -> LayerUnsafe:
    """The error that refuses a layer for one entry; an empty name stands for the stream itself."""
    shown = show_name(entry)
    subject = f"entry {shown!r}" if shown else "layer"
    return LayerUnsafe(f"{subject}: {reason}", metadata={"entry": shown} if shown else {})


@contextlib.contextmanager
def of_a_layer() -> Iterator[None]:
    """Makes what the archive reader refuses the error of a layer."""
    try:
        yield
    except ArchiveUnsafe as error:
        raise unsafe(error.entry, error.reason) from error
