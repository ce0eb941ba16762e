"""How an image was made, by the history in its configuration."""

import json
import platform
from typing import Any

from lns.types.v1 import descriptor_pb2

from cli.render.text import format_size, shorten
from services.core.errors import RequestInvalid
from services.core.platforms import Platform

_CUT = 60


def own_platform() -> descriptor_pb2.Platform:
    """Returns the platform of this machine."""
    own = Platform.of("linux", platform.machine())
    return descriptor_pb2.Platform(os=own.os, architecture=own.architecture)


def history_rows(manifest: bytes, config: bytes, *, whole: bool) -> list[dict[str, Any]]:
    """Returns a row for each step that made an image, the latest first.

    Raises:
        RequestInvalid: it is no image.
    """
    layers = [_member(layer, "size", 0) for layer in _list(json.loads(manifest), "layers")]
    document = json.loads(config or b"null")
    if not isinstance(document, dict):
        raise RequestInvalid("this is no image", hint="`lns inspect` describes artifacts")
    steps = _list(document, "history") or [{} for _ in layers]
    rows = []
    for step in steps:
        size = 0 if _member(step, "empty_layer", False) else layers.pop(0) if layers else 0
        made_by = str(_member(step, "created_by", ""))
        rows.append(
            {
                "created": str(_member(step, "created", "")),
                "created_by": made_by if whole else shorten(" ".join(made_by.split()), _CUT),
                "size": format_size(size),
                "size_bytes": size,
                "comment": str(_member(step, "comment", "")),
            }
        )
    return rows[::-1]


def _list(document: Any, name: str) -> list[Any]:
    value = document.get(name) if isinstance(document, dict) else None
    return value if isinstance(value, list) else []


def _member(step: Any, name: str, default: Any) -> Any:
    value = step.get(name) if isinstance(step, dict) else None
    return value if isinstance(value, type(default)) else default
