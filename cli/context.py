"""What every command gets: environment, output, and how it is to fail.

Commands are made with `command` instead of click's own decorator: it adds `--debug`, awaits
asynchronous bodies and notes what the command is doing, for the first line of an error.
"""

import asyncio
import contextlib
import inspect
import signal
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import wraps
from pathlib import Path
from typing import Any

import click

from cli.render.writer import write_line

FAILURE = 1
USAGE = 2
RUN_FAILURE = 125
"""What `run` and its like exit with when lns failed, since lower codes are the workload's."""


@dataclass(slots=True, kw_only=True)
class Context:
    """One invocation of `lns`.

    Attributes:
        environment: the variables of the process.
        debug: whether errors come with everything that is known.
        doing: completes the sentence "cannot …" when the command fails.
        failure: the exit code when it fails.
        request_id: the id that every call of this invocation carries; set by the session.
        workload: what stands after `--`; set by commands that take a workload's command.
    """

    environment: Mapping[str, str]
    debug: bool = False
    doing: str = ""
    failure: int = FAILURE
    request_id: str = ""
    workload: tuple[str, ...] = ()

    def write(self, line: str, *, mark: str = "", colour: str | None = None) -> None:
        """Writes one line of the result to standard output; see `write_line`."""
        write_line(line, mark=mark, colour=colour)

    def note(self, line: str) -> None:
        """Writes one line for the user to standard error."""
        write_line(line, error=True)

    def warn(self, lines: Iterable[str]) -> None:
        """Writes warnings of a service to standard error, harmless and marked as such."""
        for line in lines:
            write_line(f"lns: warning: {line}", error=True)

    def is_set(self, variable: str) -> bool:
        """Says whether an environment variable is set to something."""
        return bool(self.environment.get(variable))

    @property
    def user_home(self) -> Path:
        """The user's home directory."""
        home = self.environment.get("HOME")
        return Path(home) if home else Path.home()


pass_context = click.make_pass_decorator(Context)


def command(
    name: str, *, doing: str, failure: int = FAILURE, **attributes: Any
) -> Callable[[Callable[..., Any]], click.Command]:
    """Makes a function of a `Context` and its parameters, plain or asynchronous, a command.

    Args:
        name: the command's name.
        doing: completes "cannot …"; `{parameter}` stands for a parameter's value.
        failure: the exit code when lns fails.
        attributes: as click's `command` takes them.

    The function returns the exit code, or None for 0.
    """
    return _decorator(click.command(name, **attributes), doing, failure)


def subcommand(
    group: click.Group, name: str, *, doing: str, **attributes: Any
) -> Callable[[Callable[..., Any]], click.Command]:
    """As `command`, below a group."""
    return _decorator(group.command(name, **attributes), doing, FAILURE)


def _decorator(
    make: Callable[[Callable[..., Any]], click.Command], doing: str, failure: int
) -> Callable[[Callable[..., Any]], click.Command]:
    def decorate(function: Callable[..., Any]) -> click.Command:
        @wraps(function)
        def body(context: Context, /, debug: bool, **parameters: Any) -> Any:
            context.debug = context.debug or debug
            shown = {name: _shown(value) for name, value in parameters.items()}
            context.doing = doing.format_map(shown).rstrip()
            context.failure = failure
            with _interruptible(), _traced(context):
                result = function(context, **parameters)
                return asyncio.run(result) if inspect.iscoroutine(result) else result

        flag = click.option("--debug", is_flag=True, help="Show everything known about an error.")
        return make(flag(pass_context(body)))

    return decorate


@contextlib.contextmanager
def _interruptible() -> Iterator[None]:
    """Has an interrupt end the command's function in Python's way, so that it cleans up.

    Before and after that it ends the process, if it does so by default: see `cli.main`.
    """
    before = signal.getsignal(signal.SIGINT)
    if before is not signal.SIG_DFL:
        yield
        return
    signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, signal.SIG_DFL)


@contextlib.contextmanager
def _traced(context: Context) -> Iterator[None]:
    """Begins a trace with the command, where OpenTelemetry's variables ask for that."""
    if not any(name.startswith("OTEL_") for name in context.environment):
        yield
        return
    from services.chassis import tracing  # noqa: PLC0415 - most commands do without

    name = click.get_current_context().command_path
    with tracing.exported(context.environment, process="lns-cli") as untraced:
        if untraced:
            context.note(f"lns: {untraced}")
        with tracing.span(name):
            yield


def _shown(value: Any) -> str:
    if isinstance(value, tuple):
        return " ".join(map(_shown, value))
    return "" if value is None else str(value) or "''"
