"""Examples of the documentation, read so that tests can hold them true."""

import re
from pathlib import Path

DOCS = Path(__file__).resolve().parents[2] / "docs"

_BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.DOTALL | re.MULTILINE)


def blocks(page: str, language: str) -> list[str]:
    """Returns the fenced blocks of a page in one language."""
    text = (DOCS / page).read_text()
    return [body for kind, body in _BLOCK.findall(text) if kind == language]


def files(page: str) -> dict[str, str]:
    """Returns the YAML examples of a page that begin with their file name, by that name."""
    found = {}
    for body in blocks(page, "yaml"):
        match = re.match(r"# (\S+)\.yaml\n", body)
        if match:
            found[match[1]] = body
    return found
