"""Every command with its path, for what is written from the command line itself."""

from collections.abc import Iterator

import click

from cli.catalogue import ENTRIES, lns


def context_of(command: click.Command, path: str) -> click.Context:
    """Returns a context in which a command describes itself as it does to `--help`."""
    return click.Context(
        command, info_name=path, help_option_names=["-h", "--help"], terminal_width=100
    )


def commands_below(path: str, command: click.Command) -> Iterator[tuple[str, click.Command]]:
    """Yields a command and those below it, each with its path, `image ls` for example."""
    yield path, command
    if isinstance(command, click.Group):
        for name, below in command.commands.items():
            yield from commands_below(f"{path} {name}", below)


def every_command() -> Iterator[tuple[str, click.Command]]:
    """Yields `lns` and every command, each with its whole path."""
    yield "lns", lns
    for name, entry in ENTRIES.items():
        yield from commands_below(f"lns {name}", entry.load())
