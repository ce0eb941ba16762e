import subprocess
import sys

import click
import pytest
from click.testing import CliRunner

from cli.catalogue import ENTRIES, SECTIONS, Entry, lns
from cli.context import Context


@pytest.mark.parametrize("entry", list(ENTRIES.values()), ids=list(ENTRIES))
def test_every_command_loads_under_its_name_and_helps(entry: Entry) -> None:
    command = entry.load()
    result = CliRunner().invoke(lns, [entry.name, "--help"], obj=Context(environment={}))

    assert command.name == entry.name
    assert result.exit_code == 0
    assert "Usage: lns" in result.output


@pytest.mark.parametrize("entry", list(ENTRIES.values()), ids=list(ENTRIES))
def test_every_option_says_what_it_is_for(entry: Entry) -> None:
    commands = [entry.load()]
    while commands:
        command = commands.pop()
        assert command.help
        if isinstance(command, click.Group):
            commands += command.commands.values()
        for parameter in command.params:
            if isinstance(parameter, click.Option):
                assert parameter.help, f"{command.name} {parameter.opts}"


def test_no_name_is_taken_twice() -> None:
    names = [entry.name for section in SECTIONS for entry in section.entries]

    assert len(names) == len(set(names))


def test_the_help_lists_every_command_without_importing_one() -> None:
    code = (
        "import sys\n"
        "from cli.main import run\n"
        "run(['--help'], {})\n"
        "loaded = [name for name in sys.modules if name.startswith(('grpc', 'cli.commands.'))]\n"
        "print('loaded', loaded)\n"
    )
    output = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    ).stdout

    assert "loaded []" in output
    assert all(f"  {name} " in output for name in ENTRIES)


def test_the_version_is_printed_without_click() -> None:
    code = (
        "import sys\n"
        "from cli.main import run\n"
        "code = run(['version'], {})\n"
        "print(code, [name for name in sys.modules if name in ('click', 'grpc', 'asyncio')])\n"
    )
    output = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    ).stdout

    assert output.startswith("lns ")
    assert output.endswith("0 []\n")
