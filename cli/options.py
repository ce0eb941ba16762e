"""Options that several commands share."""

import itertools
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import click

from cli.context import Context

Decorator = Callable[[Callable[..., Any]], Callable[..., Any]]


class WorkloadCommand(click.Command):
    """A command with a workload's command after `--`, which is nobody's flag."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Takes what follows the first `--` away and leaves it in the context."""
        context = ctx.ensure_object(Context)
        if "--" in args:
            position = args.index("--")
            context.workload = tuple(args[position + 1 :])
            args = args[:position]
        ctx.allow_extra_args = True  # refused here, with the way out
        given = tuple(args)
        try:
            super().parse_args(ctx, args)
        except (click.NoSuchOption, click.BadOptionUsage) as error:
            # Docker takes all behind the image for the command: `run IMAGE sh -c …`.
            name = error.option_name
            before = itertools.takewhile(lambda one: not one.startswith(name), given)
            if context.workload or all(one.startswith("-") for one in before):
                raise
            why = error.format_message().removesuffix(".")
            ctx.fail(f"{why}; the command to run, with its options, needs a -- before it")
        if ctx.args and not ctx.resilient_parsing:
            ctx.fail(f"{' '.join(ctx.args)!r} needs a -- before it, if it is the command to run")
        return ctx.args

    def collect_usage_pieces(self, ctx: click.Context) -> list[str]:
        """Adds the workload to the usage line."""
        return [*super().collect_usage_pieces(ctx), "[-- COMMAND...]"]


def combined(options: Sequence[Decorator]) -> Decorator:
    """Returns one decorator for several options, which keep their order in the help."""

    def decorate(function: Callable[..., Any]) -> Callable[..., Any]:
        for option in reversed(options):
            function = option(function)
        return function

    return decorate


def existing_file(**attributes: Any) -> click.Path:
    """Returns the type of a file that must exist."""
    return click.Path(exists=True, dir_okay=False, path_type=Path, **attributes)


format_option: Decorator = click.option(
    "--format",
    "form",
    metavar="FORMAT",
    help="Output as table, json, or a template such as '{{.Name}}'.",
)

quiet_ids: Decorator = click.option("-q", "--quiet", is_flag=True, help="Print only ids.")

platform_option: Decorator = click.option(
    "--platform", metavar="OS/ARCH", help="Platform of the image; default: this machine's."
)

plan_options = combined(
    [
        click.option("--cpus", metavar="N", help="CPUs: 2, 1.5 or 1500m."),
        click.option("-m", "--memory", metavar="SIZE", help="Memory: 512Mi, 2g; a number is MiB."),
        click.option("--disk", metavar="SIZE", help="Size of the writable layer: 10g."),
        click.option("--name", metavar="NAME", help="Name of the run."),
        click.option(
            "--policy",
            type=existing_file(),
            metavar="FILE",
            help="Policy file to use instead of the bundle's or ./lns-policy.yaml.",
        ),
        click.option(
            "--mount", multiple=True, metavar="REF[:PATH]", help="Mount an artifact; repeatable."
        ),
        click.option(
            "-v",
            "--volume",
            multiple=True,
            metavar="SOURCE:PATH[:ro]",
            help="Mount a named volume or a host path; repeatable. `:secrets` keeps files visible"
            " that look like secrets.",
        ),
        click.option(
            "-p",
            "--publish",
            multiple=True,
            metavar="[IP:]HOST:GUEST",
            help="Publish a port on the host; repeatable.",
        ),
        click.option(
            "-e", "--env", multiple=True, metavar="NAME[=VALUE]", help="Set a variable; repeatable."
        ),
        click.option(
            "--env-file",
            multiple=True,
            type=existing_file(),
            metavar="FILE",
            help="Set the variables that a file lists; repeatable.",
        ),
        click.option("-w", "--workdir", metavar="PATH", help="Working directory."),
        click.option("-u", "--user", metavar="USER[:GROUP]", help="User, by name or number."),
        click.option(
            "--entrypoint",
            metavar="PROGRAM",
            help="Use this program instead of the image's entry point.",
        ),
        platform_option,
        click.option(
            "-l", "--label", multiple=True, metavar="NAME=VALUE", help="Label the run; repeatable."
        ),
        click.option(
            "--locked",
            type=existing_file(),
            metavar="LOCK",
            help="Run exactly the digests in a lock file.",
        ),
    ]
)

life_options = combined(
    [
        click.option("-i", "--interactive", is_flag=True, help="Connect standard input."),
        click.option("-t", "--tty", is_flag=True, help="Give the workload a terminal."),
        click.option("--rm", "remove", is_flag=True, help="Remove the run when its workload ends."),
        click.option(
            "--pull",
            type=click.Choice(["always", "missing", "never"]),
            default="missing",
            show_default=True,
            help="When to download; `missing` still asks the registry which digest a tag has now.",
        ),
        click.option(
            "--cold", is_flag=True, help="Boot a kernel even if a snapshot could be resumed."
        ),
        click.option(
            "--restart",
            default="no",
            metavar="POLICY",
            help="no, on-failure[:N], always or unless-stopped. [default: no]",
        ),
        click.option(
            "--approve-timeout",
            type=click.FloatRange(min=0, min_open=True),
            metavar="SECONDS",
            help="Time for an answer where the policy asks. [default: 60]",
        ),
        click.option(
            "--budget",
            multiple=True,
            metavar="INTEGRATION=LIMIT",
            help="Most that the run may use of a service: 'anthropic=5USD|200k-tokens',"
            " 'github=1000-requests|20M-bytes'; repeatable.",
        ),
        click.option(
            "--stop-signal",
            metavar="NAME",
            help="Signal that `lns stop` sends. [default: the image's, else TERM]",
        ),
        click.option(
            "--stop-timeout",
            type=click.FloatRange(min=0),
            metavar="SECONDS",
            help="Seconds between the stop signal and KILL. [default: 10]",
        ),
        click.option(
            "--pids-limit",
            type=click.IntRange(min=1),
            metavar="N",
            help="Maximum number of processes in the guest.",
        ),
        click.option(
            "--disk-rate",
            metavar="SIZE",
            help="Most that its disks read and write together in a second, and as much for each"
            " bind: 50Mi; a number is MiB. [default: no limit]",
        ),
    ]
)
