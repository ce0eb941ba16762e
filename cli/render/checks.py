"""A verdict on one thing a line, with what to do about it below."""

from cli.context import Context
from cli.render.text import printable

_COLORS = {
    "ok": "green", "already": "green", "done": "green", "warning": "yellow", "failed": "red",
}  # fmt: skip


def write_check(context: Context, *, verdict: str, name: str, detail: str, remedy: str) -> None:
    """Writes verdict, name and detail in columns, and the remedy, if any, below the detail."""
    # click leaves colours out where standard output is no terminal.
    color = None if context.is_set("NO_COLOR") else _COLORS[verdict]
    line = f" {printable(name):<16} {printable(detail)}"
    context.write(line, mark=f"{verdict:<8}", colour=color)
    if remedy:
        context.write(f"{'':<8} {'':<16} → {printable(remedy)}")
