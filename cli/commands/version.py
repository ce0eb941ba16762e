"""`lns version`; `cli.main` answers the plain form before click is imported."""

from cli.context import Context, command
from services.core.version import VERSION


@command("version", doing="print the version")
def version(context: Context) -> None:
    """Print the version."""
    context.write(f"lns {VERSION}")
