"""Manual pages and completion scripts: one source with the help, and what their readers accept."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import click
import pytest

from cli.app import dispatch
from cli.reference import every_command

ROOT = Path(__file__).parents[2]
PAGES = ROOT / "share" / "man" / "man1"
COMMANDS = dict(every_command())
_REQUESTS = {".TH", ".SH", ".PP", ".TP", ".BR", ".nf", ".fi"}
_ESCAPES = {r"\e", r"\-", r"\&", r"\fB", r"\fR", r"\(aq", r"\(ga", r"\(ha", r"\(ti"}
_SECTIONS = ["NAME", "SYNOPSIS", "DESCRIPTION", "EXIT STATUS", "SEE ALSO"]


def page(path: str) -> str:
    return (PAGES / f"{path.replace(' ', '-')}.1").read_text()


def shown(text: str) -> str:
    """What a reader sees of a line."""
    for escape, character in {
        r"\fB": "", r"\fR": "", r"\&": "", r"\-": "-", r"\(aq": "'", r"\(ga": "`", r"\(ha": "^",
        r"\(ti": "~", r"\e": "\\",
    }.items():  # fmt: skip
        text = text.replace(escape, character)
    return text


def test_every_command_has_a_page_and_every_page_a_command() -> None:
    assert {path.stem for path in PAGES.iterdir()} == {path.replace(" ", "-") for path in COMMANDS}


@pytest.mark.parametrize("path", COMMANDS)
def test_a_page_is_of_the_form_that_man_reads_and_says_what_help_says(path: str) -> None:
    lines = page(path).splitlines()
    requests = {line.split(" ", 1)[0] for line in lines if line.startswith((".", "'"))}
    sections = [line.removeprefix(".SH ") for line in lines if line.startswith(".SH ")]
    escapes = set(re.findall(r"\\(?:\([a-z]{2}|f.|.)", page(path)))
    terms = [shown(lines[at + 1]) for at, line in enumerate(lines) if line == ".TP"]

    assert lines[0].startswith(f'.TH "{path.replace(" ", "-").upper()}" "1" ')
    assert requests <= _REQUESTS
    assert escapes <= _ESCAPES
    assert [one for one in sections if one in _SECTIONS] == _SECTIONS
    assert all(line for line in lines)
    for option in COMMANDS[path].params:
        if isinstance(option, click.Option) and not option.hidden:
            assert any(all(one in term for one in option.opts) for term in terms), option.opts


def test_the_readers_of_this_machine_accept_every_page() -> None:
    pages = [str(path) for path in sorted(PAGES.iterdir())]
    readers = {"groff": ("-man", "-Kutf8", "-Tutf8", "-ww", "-z"), "mandoc": ("-Tlint", "-Werror")}
    said = [
        subprocess.run(
            [program, *options, *pages], capture_output=True, text=True, check=False, timeout=60
        )
        for program, options in readers.items()
        if shutil.which(program)
    ]

    assert [(one.returncode, one.stderr, one.stdout) for one in said] == [(0, "", "")] * len(said)


def test_bash_completes_with_the_script_that_is_installed() -> None:
    script = (
        'source "$1"; COMP_WORDS=(lns snap); COMP_CWORD=1; _lns_completion lns;'
        ' echo "${COMPREPLY[@]}"; COMP_WORDS=(lns run --memo); COMP_CWORD=2;'
        ' _lns_completion lns; echo "${COMPREPLY[@]}"; complete -p lns'
    )
    file = ROOT / "share" / "bash-completion" / "completions" / "lns"
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    output = subprocess.run(
        ["bash", "-c", script, "bash", file],
        env={**os.environ, "PATH": path},
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    ).stdout.splitlines()

    assert output[0] == "snapshot"
    assert output[1].split()[-1] == "--memory"
    assert output[2].endswith("-F _lns_completion lns")


@pytest.mark.parametrize(
    ("shell", "file", "says"),
    [
        ("bash", "bash-completion/completions/lns", "_LNS_COMPLETE=bash_complete"),
        ("fish", "fish/vendor_completions.d/lns.fish", "_LNS_COMPLETE=fish_complete"),
        ("zsh", "zsh/site-functions/_lns", "#compdef lns"),
    ],
)
def test_the_scripts_that_are_installed_are_those_of_the_command(
    shell: str, file: str, says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert dispatch(["completion", shell], {}) == 0
    printed = capsys.readouterr().out

    assert (ROOT / "share" / file).read_text().strip() == printed.strip()
    assert says in printed
