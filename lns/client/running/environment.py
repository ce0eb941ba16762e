r"""Variables of the command line and of environment files, in Docker's format of `--env-file`.

A line is `NAME=value`, or `NAME` alone for the client's own value; the value is everything behind
the first `=`, blanks and quotes with it. Blanks before a name, empty lines and lines that begin
with `#` are left out. Lines end with `\n` or `\r\n` and with nothing else; a byte order mark at
the beginning is not part of the text.
"""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from lns.types.v1 import run_plan_pb2

from services.core.errors import RequestInvalid

_MOST_BYTES = 1024 * 1024
_SHOWN_CHARACTERS = 100


def parse_environment(
    entries: Sequence[str], files: Sequence[Path], environment: Mapping[str, str]
) -> list[run_plan_pb2.EnvVar]:
    """Returns the variables of `--env-file` and `-e`, the latter on top, sorted by name.

    `NAME` alone takes the value that the client has, and is left out where it has none.

    Raises:
        RequestInvalid: an entry has no name; of a file the message says which line.
        OSError: a file cannot be read.
    """
    placed = [(line, f"{file}, line {number}: ") for file in files for number, line in _lines(file)]
    values: dict[str, str] = {}
    for entry, place in [*placed, *((entry, "") for entry in entries)]:
        name, equals, value = entry.partition("=")
        if not name or any(character.isspace() for character in name) or "\0" in entry:
            raise RequestInvalid(
                f"{place}{name[:_SHOWN_CHARACTERS]!r} is not the name of a variable"
                if "\0" not in value
                else f"{place}the value of {name[:_SHOWN_CHARACTERS]} has a NUL character",
                hint="write NAME=value, or NAME to pass on your own value",
            )
        if equals:
            values[name] = value
        elif name in environment:
            values[name] = environment[name]
    return [run_plan_pb2.EnvVar(name=name, value=values[name]) for name in sorted(values)]


def _lines(file: Path) -> Iterator[tuple[int, str]]:
    """Yields the lines of a file that have a variable, with their numbers from 1."""
    with file.open("rb") as opened:
        data = opened.read(_MOST_BYTES + 1)
    if len(data) > _MOST_BYTES:
        raise RequestInvalid(f"{file} is larger than 1 MiB", hint="is it an environment file?")
    for number, line in enumerate(data.removeprefix(b"\xef\xbb\xbf").split(b"\n"), start=1):
        try:
            text = line.removesuffix(b"\r").decode().lstrip()
        except UnicodeDecodeError as error:
            raise RequestInvalid(
                f"{file}, line {number}: not UTF-8 text", hint="save the file as UTF-8"
            ) from error
        if text and not text.startswith("#"):
            yield number, text if "=" in text else text.rstrip()
