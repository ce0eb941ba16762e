"""Generates what is written from the command line itself.

That is the help texts in `docs/cli.md` and `README.md`, and in `share/` the manual pages and
completion scripts, which are installed with the package.

    python docs/generate_cli.py            rewrite what lies between the marks
    python docs/generate_cli.py --check    write nothing; exit 1 and name what is not current

What stands around the marks is written by hand.
"""

import argparse
import re
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "protos" / "gen")]

import click  # noqa: E402  # the path is set above
import manual_pages  # noqa: E402  # beside this file

from cli.catalogue import SECTIONS, lns  # noqa: E402  # see above
from cli.reference import commands_below, context_of  # noqa: E402  # see above

_MARKED = "<!-- generated: {name} -->\n{text}\n<!-- end -->"


def overview() -> str:
    """Returns `lns --help` as a block."""
    return _block(_help(lns, "lns"))


def reference() -> str:
    """Returns the help of every command, by section."""
    parts = []
    for section in SECTIONS:
        parts.append(f"## {section.title}")
        for entry in section.entries:
            parts += [
                f"### lns {path}\n\n{_block(_help(command, f'lns {path}'))}"
                for path, command in commands_below(entry.name, entry.load())
            ]
    return "\n\n".join(parts)


def _help(command: click.Command, path: str) -> str:
    with context_of(command, path) as context:
        return command.get_help(context)


def _block(text: str) -> str:
    lines = (line.rstrip() for line in text.splitlines())
    return "```text\n" + "\n".join(lines) + "\n```"


def _replaced(document: str, name: str, text: str) -> str:
    marked = _MARKED.format(name=name, text=text)
    pattern = rf"<!-- generated: {name} -->.*?<!-- end -->"
    result, count = re.subn(pattern, lambda _: marked, document, flags=re.DOTALL)
    if count != 1:
        raise SystemExit(f"there must be one place for {name}, not {count}")
    return result


def main() -> int:
    """Rewrites or checks the documents; returns the exit code."""
    parser = argparse.ArgumentParser(description="Generates the help texts in the documents.")
    parser.add_argument("--check", action="store_true", help="write nothing, report differences")
    check = parser.parse_args().check
    code = 0
    for path, name, text in (
        (ROOT / "README.md", "overview", overview()),
        (ROOT / "docs" / "cli.md", "reference", reference()),
    ):
        before = path.read_text(encoding="utf-8")
        after = _replaced(before, name, text)
        if after == before:
            continue
        print(f"{'not current' if check else 'changed'}: {path.relative_to(ROOT)}")
        if check:
            code = 1
        else:
            path.write_text(after, encoding="utf-8")
    for name in manual_pages.not_current(ROOT):
        print(f"{'not current' if check else 'changed'}: {name}")
        code = 1 if check else code
    if not check:
        manual_pages.rewrite(ROOT)
    return code


if __name__ == "__main__":
    sys.exit(main())
