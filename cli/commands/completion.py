"""`lns completion`: a shell's completion script."""

import click
from click.shell_completion import get_completion_class

from cli.catalogue import lns
from cli.context import Context, command
from services.core.errors import RequestInvalid


@command("completion", doing="complete for {shell}")
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def completion(context: Context, shell: str) -> None:
    """Print a completion script: `source <(lns completion bash)`."""
    kind = get_completion_class(shell)
    if kind is None:
        raise RequestInvalid(f"no completion exists for the shell {shell}")
    context.write(kind(lns, {}, "lns", "_LNS_COMPLETE").source())
