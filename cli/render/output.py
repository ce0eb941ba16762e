"""Results on standard output: a table, JSON, or what a template makes of each row."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from cli.render.template import Row, plain, render_template, template_fields
from services.core.text import printable, to_json

Write = Callable[[str], None]
_GAP = "   "


@dataclass(frozen=True, slots=True, kw_only=True)
class Column:
    """A column of a table: its heading, and the field of a row that it shows."""

    heading: str
    field: str


def columns(**headings: str) -> tuple[Column, ...]:
    """Returns columns in order, given as `field="HEADING"`."""
    return tuple(Column(heading=heading, field=field) for field, heading in headings.items())


def write_rows(
    rows: Sequence[Row],
    table: Sequence[Column],
    *,
    form: str | None,
    write: Write,
    quiet_field: str | None = None,
) -> None:
    """Writes a list of things.

    Args:
        rows: what there is, in its final order.
        table: the columns of the default form.
        form: `table` (or None), `json` (an object a line), a template, or `table TEMPLATE`.
        write: takes whole lines without their end.
        quiet_field: only this field of each row, whatever the form; None for the form.

    Raises:
        RequestInvalid: the template is not one.
    """
    if quiet_field is not None:
        for row in rows:
            write(printable(plain(row[quiet_field])))
    elif form in (None, "", "table"):
        write_table(rows, table, write=write)
    elif form == "json":
        for row in rows:
            write(to_json(row))
    elif form and form.startswith("table "):
        _write_template_table(rows, form.removeprefix("table "), write=write)
    else:
        for row in rows:
            write(printable(render_template(str(form), row), keep="\n\t"))


def write_table(rows: Iterable[Row], table: Sequence[Column], *, write: Write) -> None:
    """Writes headings and rows in columns as wide as their widest cell."""
    write_cells(
        [column.heading for column in table],
        [[plain(row[column.field]) for column in table] for row in rows],
        write=write,
    )


def write_cells(headings: Sequence[str], lines: Sequence[Sequence[str]], *, write: Write) -> None:
    """Writes ready cells below `headings`; harmful characters are escaped."""
    cells = [list(headings), *([printable(cell) for cell in line] for line in lines)]
    widths = [max(len(line[i]) for line in cells) for i in range(len(headings))]
    for line in cells:
        write(
            _GAP.join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
        )


def write_document(document: Any, *, form: str | None, write: Write) -> None:
    """Writes one thing: indented JSON, or what a template makes of it."""
    if form in (None, "", "json", "table"):
        write(to_json(document, indent=2))
    else:
        write(printable(render_template(str(form), document), keep="\n\t"))


def _write_template_table(rows: Sequence[Row], template: str, *, write: Write) -> None:
    headings = [path.replace(".", " ").strip().upper() for path in template_fields(template)]
    lines = [render_template(template, row).split("\t") for row in rows]
    width = max((len(line) for line in lines), default=len(headings))
    headings = (headings + [""] * width)[:width]
    write_cells(headings, [(line + [""] * width)[:width] for line in lines], write=write)
