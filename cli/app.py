"""One invocation: arguments to a command, and every way in which it can end to an exit code."""

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
    try:
        result = lns.main(list(arguments), prog_name="lns", standalone_mode=False, obj=context)
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
