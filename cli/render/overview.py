"""The screen of `lns top`: what runs use, what they wait for, what was refused."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from cli.render.text import shorten
from services.core.text import printable

_GAP = "  "
_TITLES = {
    "name": "NAME",
    "state": "STATE",
    "cpu": "CPU %",
    "memory": "MEMORY",
    "disk": "DISK",
    "channel": "IN / OUT",
    "pids": "PIDS",
    "command": "COMMAND",
}
_WIDEST = 32
HELP = "q quits · a allows the first request, d denies it"


@dataclass(frozen=True, slots=True, kw_only=True)
class Overview:
    """What the screen shows.

    Attributes:
        runs: rows with the fields of `_TITLES`, and `cpu_percent`.
        requests: what is waited for, a line each, the oldest first.
        message: what the last key did.
    """

    runs: Sequence[Mapping[str, Any]]
    requests: Sequence[str] = ()
    message: str = ""
    summary: Mapping[str, int] = field(default_factory=dict)


def screen_lines(shown: Overview, *, rows: int, width: int, keys: bool) -> list[str]:
    """Returns the lines of a screen, as many as fit and as wide.

    Args:
        shown: what is on it; the busiest run is first.
        rows: of the screen.
        width: of the screen.
        keys: whether keys do something.
    """
    states = ", ".join(f"{count} {state}" for state, count in sorted(shown.summary.items()))
    lines = [f"lns top: {states or 'no runs'}", ""]
    foot = ["", shown.message or HELP] if keys else []
    waiting = [f"  {one}" for one in shown.requests]
    if waiting:
        waiting = ["", "WAITING FOR AN ANSWER", *waiting]
    ordered = sorted(shown.runs, key=lambda row: (-row["cpu_percent"], row["name"]))
    room = max(1, rows - len(lines) - len(foot) - len(waiting) - 1)
    lines += _table(ordered[:room])
    if len(ordered) > room:
        lines[-1] = f"… and {len(ordered) - room + 1} more"
    return [shorten(printable(line), width) for line in [*lines, *waiting][: rows - len(foot)]] + [
        shorten(printable(line), width) for line in foot
    ]


def _table(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    if not rows:
        return []
    cells = [[shorten(str(row[name]), _WIDEST) for name in _TITLES] for row in rows]
    table = [list(_TITLES.values()), *cells]
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    return [
        _GAP.join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
        for line in table
    ]
