"""Names out of a layer: checked and made canonical, and the marks that hide lower layers."""

from typing import NamedTuple

import msgspec

from services.materializer.composefs.tree import NAME_MAX
from services.materializer.layers.limits import LayerLimits, unsafe

_WHITEOUT = b".wh."
_AUFS = b".wh..wh."
"""How the names of AUFS's own files begin."""

_OPAQUE = b".wh..wh..opq"


class Place(NamedTuple):
    """Where an entry belongs.

    Attributes:
        path: `/a/b`; the root is empty.
        parent: the path of its directory; empty for the root too.
    """

    path: bytes
    parent: bytes


class Hide(msgspec.Struct, frozen=True, array_like=True, tag="hide"):
    """A whiteout: whatever lower layers have at `path` is gone."""

    path: bytes


class Opaque(msgspec.Struct, frozen=True, array_like=True, tag="opaque"):
    """Whatever lower layers have in the directory `path` is gone."""

    path: bytes


def check_path(
    name: bytes, limits: LayerLimits, *, entry: bytes = b"", what: str = "path"
) -> Place:
    """The place that a name of an entry, or the target of a hard link, stands for.

    Args:
        name: relative to the root of the layer, also where it begins with a slash, as GNU tar and
            docker read it; `./` before it and slashes behind it mean nothing.
        limits: how long and deep it may be.
        entry: the entry to name in errors, if it is not `name` itself.
        what: what the name is, for errors.

    Raises:
        LayerUnsafe: it holds `..`, or is too long or too deep.
    """
    entry = entry or name
    if b"\0" in name:
        raise unsafe(entry, f"its {what} holds a NUL")
    if len(name) > limits.path_bytes:
        raise unsafe(entry, f"its {what} of {len(name)} bytes is longer than {limits.path_bytes}")
    parts = [part for part in name.split(b"/") if part not in (b"", b".")]
    if b".." in parts:
        raise unsafe(entry, f"its {what} holds ..")
    if len(parts) > limits.depth:
        raise unsafe(entry, f"its {what} has more than {limits.depth} names")
    if parts and max(map(len, parts)) > NAME_MAX:
        raise unsafe(entry, f"a name in its {what} is longer than {NAME_MAX} bytes")
    parent = b"".join([b"/" + part for part in parts[:-1]])
    return Place(parent + b"/" + parts[-1] if parts else b"", parent)


def is_aufs_record(place: Place) -> bool:
    """Whether a path is AUFS's own bookkeeping, `/.wh..wh.plnk/…` and the like.

    Layers of docker's days on AUFS have it. Nothing of it belongs into the tree; but its files may
    be what hard links of the layer lead to: AUFS kept files with several names there.
    """
    return b"/" + _AUFS in place.path and any(
        part.startswith(_AUFS) and part != _OPAQUE for part in place.path.split(b"/")
    )


def whiteout(place: Place, entry: bytes) -> Hide | Opaque | None:
    """What an entry hides if its name is a mark, else None.

    Raises:
        LayerUnsafe: the mark names nothing that could be hidden, or has entries below it.
    """
    if b"/" + _WHITEOUT not in place.path:
        return None
    if b"/" + _WHITEOUT in place.parent:
        raise unsafe(entry, "it lies below a whiteout")
    name = place.path[len(place.parent) + 1 :]
    if name == _OPAQUE:
        return Opaque(place.parent)
    hidden = name[len(_WHITEOUT) :]
    if hidden in (b"", b".", b".."):
        raise unsafe(entry, "it is a whiteout of no name")
    return Hide(place.parent + b"/" + hidden)
