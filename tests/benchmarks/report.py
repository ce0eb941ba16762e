"""Results as a table for readers and as JSON for programs."""

import json
import os
import platform
from collections.abc import Iterable, Sequence

from tests.benchmarks.harness import Figure, Form, Quantity, Reached, Result, Series

_MIB = 1024 * 1024
_BETWEEN = {Form.RATIO: "÷", Form.EXCESS: "less"}


def format_result(result: Result) -> str:
    """Returns the table of one comparison, with a line for each figure and note."""
    rows = [_header(result), *(_row(result, one) for one in result.series)]
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    taken = max((len(one.samples) for one in result.series), default=0)
    lines = [
        "",
        f"{result.benchmark}: {result.comparison.title}",
        f"  medians of {taken}, load {result.load[0]:.1f} → {result.load[1]:.1f}",
    ]
    for row in rows:
        first, *others = (
            cell.ljust(width) if i == 0 else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        lines.append(f"  {first}  {'  '.join(others)}".rstrip())
    lines += [f"  {one.name}: {one.problem}" for one in result.series if one.problem]
    named = {**{one: str(one) for one in Quantity}, Quantity.BYTES: result.comparison.bytes_are}
    lines += [f"  {_figure(one, named[one.figure.quantity])}" for one in result.figures]
    lines += [f"  note: {note}" for note in result.comparison.notes]
    return "\n".join(lines)


def to_json(results: Iterable[Result]) -> str:
    """Returns everything that was measured."""
    document = {
        "machine": {
            "system": platform.platform(),
            "processors": os.cpu_count(),
            "python": platform.python_version(),
        },
        "results": [
            {
                "benchmark": result.benchmark,
                "title": result.comparison.title,
                "load": result.load,
                "contenders": [_series_document(one) for one in result.series],
                "figures": [_figure_document(one) for one in result.figures],
                "notes": list(result.comparison.notes),
            }
            for result in results
        ],
    }
    return json.dumps(document, indent=2) + "\n"


def _figure(reached: Reached, quantity: str) -> str:
    """Returns one line: what the figure is, what it has to be, and whether it is."""
    figure = reached.figure
    what = f"{quantity} of {figure.contender}"
    if figure.against is not None:
        what += f" {_BETWEEN[figure.form]} {figure.against}"
    limit = f"at most {_amount(figure, figure.limit)}"
    if reached.value is None:
        return f"{what}: not measured ({limit})"
    verdict = "reached" if reached.is_reached else "NOT REACHED"
    return f"{what}: {_amount(figure, reached.value)} ({limit}): {verdict}"


def _header(result: Result) -> Sequence[str]:
    cells = ["", "wall s", "cpu s", f"{result.comparison.bytes_are} MiB"]
    if result.comparison.work is not None:
        cells.insert(2, f"{result.comparison.work[1]}/s")
    return cells


def _row(result: Result, series: Series) -> Sequence[str]:
    wall = series.median(Quantity.WALL)
    size = series.median(Quantity.BYTES)
    cells = [
        series.name,
        _number(wall),
        _number(series.median(Quantity.CPU)),
        "-" if size is None else f"{size / _MIB:.1f}",
    ]
    if result.comparison.work is not None:
        cells.insert(2, "-" if not wall else f"{result.comparison.work[0] / wall:,.0f}")
    return cells


def _number(seconds: float | None) -> str:
    if seconds is None:
        return "-"
    return f"{seconds:.2f}" if seconds >= 1 else f"{seconds:.3f}"


def _amount(figure: Figure, value: float) -> str:
    if figure.form is Form.RATIO and figure.against is not None:
        return f"{value:.2f}"
    if figure.quantity is Quantity.BYTES:
        return f"{value / _MIB:.1f} MiB"
    return f"{value * 1000:.0f} ms" if abs(value) < 1 else f"{value:.2f} s"


def _series_document(series: Series) -> dict[str, object]:
    return {
        "name": series.name,
        "problem": series.problem,
        "medians": {str(one): series.median(one) for one in Quantity},
        "samples": [{str(one): sample.get(one) for one in Quantity} for sample in series.samples],
    }


def _figure_document(reached: Reached) -> dict[str, object]:
    figure = reached.figure
    return {
        "contender": figure.contender,
        "against": figure.against,
        "quantity": str(figure.quantity),
        "form": str(figure.form if figure.against is not None else Form.ABSOLUTE),
        "limit": figure.limit,
        "value": reached.value,
        "reached": reached.is_reached,
    }
