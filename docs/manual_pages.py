"""Manual pages (`man 7 man`) and completion scripts of the command line, from the command line.

Each command has a page of its own, `lns-image-ls.1` for `lns image ls`, with what `--help` says.
"""

import inspect
import re
from collections.abc import Iterator, Mapping
from pathlib import Path

import click
from click.shell_completion import get_completion_class

from cli.catalogue import RUN_LIKE, SECTIONS, lns
from cli.reference import context_of, every_command
from services.core.version import VERSION

_COMPLETIONS = {
    "bash": "share/bash-completion/completions/lns",
    "fish": "share/fish/vendor_completions.d/lns.fish",
    "zsh": "share/zsh/site-functions/_lns",
}
# What would be shown as another character, the backslash first: it begins the others.
_SPECIAL = {
    "\\": "\\e", "-": "\\-", "'": "\\(aq", "`": "\\(ga", "^": "\\(ha", "~": "\\(ti",
}  # fmt: skip
_EXIT = {
    "0": "It is done.",
    "1": "It failed, or the answer is no.",
    "2": "It was not understood.",
    "130": "It was interrupted.",
    "141": "What reads the output has gone.",
}
_RUN_EXIT = {
    "125": "lns failed, or did not understand.",
    "126": "The command cannot be executed.",
    "127": "The command was not found.",
    "128 + n": "Signal n ended the workload.",
    "other": "The workload's own.",
}
_ENVIRONMENT = {
    "LNS_HOME": "The state directory. Default: lns in $XDG_STATE_HOME or ~/.local/state.",
    "LNS_CONFIG": "The file of `lns config`.",
    "LNS_DEBUG": "If it is set, every command is run as with --debug.",
    "NO_COLOR": "If it is set, nothing is coloured.",
}


def shared_files() -> Mapping[str, str]:
    """Returns every file by its path below the folder that lns is installed in."""
    pages = {
        f"share/man/man1/{_page_name(path)}.1": manual_page(path, command)
        for path, command in every_command()
    }
    return {**pages, **{path: _completion(shell) for shell, path in _COMPLETIONS.items()}}


def not_current(root: Path) -> list[str]:
    """Returns the paths of the files that are missing, differ, or are of no command any more."""
    wanted = shared_files()
    present = {
        path.relative_to(root).as_posix() for path in (root / "share").rglob("*") if path.is_file()
    }
    changed = [
        path for path in wanted if path not in present or (root / path).read_text() != wanted[path]
    ]
    return sorted({*changed, *(present - wanted.keys())})


def rewrite(root: Path) -> None:
    """Writes what is not current, and removes pages of commands that do not exist any more."""
    wanted = shared_files()
    for path in not_current(root):
        if path in wanted:
            (root / path).parent.mkdir(parents=True, exist_ok=True)
            (root / path).write_text(wanted[path], encoding="utf-8")
        else:
            (root / path).unlink()


def manual_page(path: str, command: click.Command) -> str:
    """Returns the page of one command.

    Args:
        path: `lns image ls`.
        command: its definition.
    """
    context = context_of(command, path)
    summary = command.get_short_help_str(limit=100).rstrip(".")
    lines = [
        f'.TH "{_page_name(path).upper()}" "1" "" "lns {VERSION}" "lns"',
        ".SH NAME",
        f"{_text(_page_name(path))} \\- {_text(summary)}",
        ".SH SYNOPSIS",
        f"\\fB{_text(path)}\\fR {_text(' '.join(command.collect_usage_pieces(context)))}",
        ".SH DESCRIPTION",
        *_paragraphs(command.help or ""),
        *_options(command, context),
        *_commands(path, command),
        ".SH EXIT STATUS",
        *_terms(_RUN_EXIT if path.removeprefix("lns ") in RUN_LIKE else _EXIT),
    ]
    if path == "lns":
        lines += [".SH ENVIRONMENT", *_terms(_ENVIRONMENT)]
    lines += [".SH SEE ALSO", *_related(path)]
    return "\n".join(lines) + "\n"


def _page_name(path: str) -> str:
    return path.replace(" ", "-")


def _paragraphs(text: str) -> Iterator[str]:
    cleaned = inspect.cleandoc(text).partition("\f")[0]
    for paragraph in re.split(r"\n\s*\n", cleaned.strip()):
        yield ".PP"
        if paragraph.startswith("\b"):  # click's mark of lines that stay as they are
            yield ".nf"
            yield from (_text(line) for line in paragraph.splitlines()[1:])
            yield ".fi"
        else:
            yield _text(" ".join(paragraph.split()))


def _options(command: click.Command, context: click.Context) -> Iterator[str]:
    records = [parameter.get_help_record(context) for parameter in command.get_params(context)]
    known = dict(record for record in records if record is not None and record[1])
    if known:
        yield ".SH OPTIONS"
        yield from _terms(known)


def _commands(path: str, command: click.Command) -> Iterator[str]:
    if path == "lns":
        for section in SECTIONS:
            yield f".SH {_text(section.title.upper())}"
            names = {f"lns-{entry.name}(1)": entry.summary for entry in section.entries}
            yield from _terms(names)
    elif isinstance(command, click.Group):
        yield ".SH COMMANDS"
        yield from _terms(
            {
                f"{_page_name(path)}-{name}(1)": below.get_short_help_str(limit=100)
                for name, below in command.commands.items()
            }
        )


def _related(path: str) -> Iterator[str]:
    above = path.split(" ")[:-1]
    pages = ["-".join(above[:length]) for length in range(1, len(above) + 1)] or ["lns-doctor"]
    for page in pages:
        yield f".BR {_text(page)} (1){'' if page == pages[-1] else ','}"


def _terms(entries: Mapping[str, str]) -> Iterator[str]:
    for term, meaning in entries.items():
        yield ".TP"
        yield f"\\fB{_text(term)}\\fR"
        yield _text(" ".join(meaning.split()))


def _text(text: str) -> str:
    """Returns a line that is no request, whatever it begins with."""
    for plain, special in _SPECIAL.items():
        text = text.replace(plain, special)
    return f"\\&{text}" if text[:1] == "." else text


def _completion(shell: str) -> str:
    kind = get_completion_class(shell)
    if kind is None:
        raise AssertionError(f"click completes for {shell}")
    return kind(lns, {}, "lns", "_LNS_COMPLETE").source().strip("\n") + "\n"
