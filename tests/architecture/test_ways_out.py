"""Every way out that is known has a test that tries it."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
_ROW = re.compile(r"\| (\d+) \| [^|]+ \| `([^`:]+)::(\w+)` \|")
_KNOWN = 51


def test_each_of_the_ways_out_is_tried_by_a_test_that_exists() -> None:
    rows = _ROW.findall((ROOT / "docs" / "ways-out.md").read_text())

    assert [int(number) for number, _, _ in rows] == list(range(1, _KNOWN + 1))
    absent = [
        f"{file}::{name}"
        for _, file, name in rows
        if not (ROOT / file).is_file() or f"def {name}(" not in (ROOT / file).read_text()
    ]
    assert absent == []
