"""The commands there are, without importing any of them.

Importing gRPC and the generated code takes longer than most commands run. So the group knows name
and summary of each command, and imports its module only when it is called or completed.
"""

import importlib
from dataclasses import dataclass

import click

from cli.context import Context, pass_context


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One command: its name, the module and attribute that has it, and its one-line summary."""

    name: str
    module: str
    summary: str
    attribute: str = ""

    def load(self) -> click.Command:
        """Imports the module and returns its command."""
        module = importlib.import_module(f"cli.commands.{self.module}")
        command: click.Command = getattr(module, self.attribute or self.name)
        return command


@dataclass(frozen=True, slots=True, kw_only=True)
class Section:
    """Commands that belong together in the help."""

    title: str
    entries: tuple[Entry, ...]


def _entry(name: str, module: str, summary: str, attribute: str = "") -> Entry:
    return Entry(name=name, module=module, summary=summary, attribute=attribute)


SECTIONS = (
    Section(
        title="Run agents and images",
        entries=(
            _entry("run", "run", "Run an agent, a bundle or an image in a microVM"),
            _entry("create", "create", "Record a run that is started later"),
            _entry("resolve", "resolve", "Show the plan of a run with the origin of each value"),
            _entry("lock", "resolve", "Pin everything that a run uses in a lock file"),
            _entry("render", "render", "Write a run as a manifest of another system"),
            _entry("ps", "ps", "List runs"),
            _entry("logs", "logs", "Show the output of a run"),
            _entry("attach", "attach", "Connect this terminal to a run"),
            _entry("exec", "attach", "Run a command in a run", "exec_command"),
            _entry("cp", "cp", "Copy files into or out of a run"),
            _entry("start", "life", "Start runs that were created or have ended"),
            _entry("stop", "life", "Stop runs: the stop signal, then KILL"),
            _entry("kill", "life", "Send runs a signal"),
            _entry("restart", "life", "Stop and start runs"),
            _entry("pause", "life", "Stop the CPUs of runs"),
            _entry("suspend", "life", "Save runs on the disk and free their memory"),
            _entry("resume", "life", "Continue paused and suspended runs"),
            _entry("wait", "life", "Wait until runs end and print their exit codes"),
            _entry("rename", "life", "Give a run another name"),
            _entry("rm", "life", "Remove runs with what they wrote"),
            _entry("prune", "life", "Remove every run that does not run"),
            _entry("stats", "stats", "Show what runs use"),
            _entry("top", "top", "Keep a screen of what runs do, and answer what they ask for"),
            _entry("events", "events", "Show what happens to runs, as it happens"),
            _entry("port", "port", "List, publish and unpublish the ports of a run"),
        ),
    ),
    Section(
        title="Artifacts and images",
        entries=(
            _entry("push", "push", "Push an artifact from a file, or an image"),
            _entry("pull", "pull", "Pull an artifact into a file, or an image into the store"),
            _entry("inspect", "inspect", "Describe a run, or what a reference names"),
            _entry("tag", "references", "Add a tag to a manifest in a registry"),
            _entry("copy", "references", "Copy a manifest with its content to another reference"),
            _entry("tags", "repository", "List the tags of a repository"),
            _entry("referrers", "repository", "List what refers to a manifest: signatures, SBOMs"),
            _entry("delete", "repository", "Delete a manifest from its registry"),
            _entry("types", "types", "List the artifact families, or print a schema"),
            _entry("validate", "types", "Check an artifact's file without pushing it"),
            _entry("init", "types", "Write a commented starter file"),
            _entry("image", "image", "Manage the images in the store"),
            _entry("volume", "volume", "Manage named volumes"),
            _entry("snapshot", "snapshot", "Save a live run, and manage snapshots"),
            _entry("warm", "warm", "Make a reference start fast: fetch it and snapshot it"),
            _entry("registry", "registry", "Start and stop a registry of your own"),
            _entry("login", "login", "Store verified credentials for a registry"),
            _entry("logout", "login", "Forget the credentials for a registry"),
            _entry("auth", "login", "List the registries with stored credentials"),
        ),
    ),
    Section(
        title="What runs may reach",
        entries=(
            _entry("policy", "policy", "Edit and test what runs may reach"),
            _entry("approvals", "approvals", "Answer what runs ask for"),
            _entry("egress", "egress", "Show what a run reached and what was refused"),
            _entry("audit", "egress", "Verify the audit log of a run"),
            _entry("connect", "integration", "Store the key of a service"),
            _entry("integration", "integration", "Manage services that agents use by their keys"),
            _entry("credentials", "integration", "List and forget stored keys"),
        ),
    ),
    Section(
        title="This machine",
        entries=(
            _entry("setup", "setup", "Install what runs need on this machine"),
            _entry("service", "service", "Manage the background processes with the services"),
            _entry("doctor", "doctor", "Check this machine and say how to fix what is missing"),
            _entry("config", "config", "Get and set defaults"),
            _entry("context", "context", "Manage named places of the services", "context_group"),
            _entry("version", "version", "Print the version"),
            _entry("completion", "completion", "Print a shell's completion script"),
        ),
    ),
)
"""Every command, in the order of the help."""

ENTRIES = {entry.name: entry for section in SECTIONS for entry in section.entries}

RUN_LIKE = frozenset({"run", "exec", "attach"})
"""Commands whose exit code is a workload's, so that their own failures need one above it."""


class LazyGroup(click.Group):
    """The top command: knows its commands by the catalogue."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Returns every name, in the order of the help."""
        del ctx
        return list(ENTRIES)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Returns the command of a name, imported now, or None."""
        del ctx
        entry = ENTRIES.get(cmd_name)
        return entry.load() if entry else None

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Writes names and summaries by section, without importing a command."""
        del ctx
        for section in SECTIONS:
            with formatter.section(section.title):
                formatter.write_dl([(entry.name, entry.summary) for entry in section.entries])


@click.group(
    cls=LazyGroup,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@click.option("--debug", is_flag=True, help="Show everything known about an error.")
@click.option(
    "--context", "place", metavar="NAME", help="Use the services of a context (`lns context`)."
)
@pass_context
def lns(context: Context, debug: bool, place: str | None) -> None:
    """Run AI agents, and any container image, in microVMs straight from an OCI registry."""
    context.debug = context.debug or debug
    if place is not None:
        context.environment = {**context.environment, "LNS_CONTEXT": place}
