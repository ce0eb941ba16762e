"""One invocation: arguments to a command, and every way in which it can end to an exit code."""

import logging
from collections.abc import Mapping, Sequence

import click

from cli import errors
from cli.catalogue import RUN_LIKE, lns
from cli.context import RUN_FAILURE, USAGE, Context

_INTERRUPTED = 130
_BROKEN_PIPE = 141


def dispatch(arguments: Sequence[str], environment: Mapping[str, str]) -> int:
    """Runs the command that `arguments` name and returns its exit code."""
    context = Context(environment=environment)
    context.debug = context.is_set("LNS_DEBUG")
    if not context.debug:
        logging.lastResort = None  # where nobody set logging up, libraries write here
    try:
        result = _invoke(list(arguments), context)
    except click.exceptions.NoArgsIsHelpError as error:
        error.show()
        return USAGE
    except click.ClickException as error:
        for line in errors.describe_usage(error):
            context.note(line)
        return RUN_FAILURE if arguments and arguments[0] in RUN_LIKE else USAGE
    except BrokenPipeError:
        return _BROKEN_PIPE
    except (KeyboardInterrupt, click.Abort):
        return _INTERRUPTED
    except Exception as error:  # noqa: BLE001 - the one place where a client's errors end
        for line in errors.describe(error, context):
            context.note(line)
        return context.failure
    return result if isinstance(result, int) else 0


def _invoke(arguments: list[str], context: Context) -> object:
    """Does what click's `main` does, which would take a broken pipe for a failure of its own."""
    if context.is_set("_LNS_COMPLETE"):
        return lns.main(arguments, prog_name="lns", standalone_mode=False, obj=context)
    try:
        with lns.make_context("lns", arguments, obj=context) as click_context:
            return lns.invoke(click_context)
    except click.exceptions.Exit as end:
        return end.exit_code
