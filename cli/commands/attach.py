"""`lns attach` and `lns exec`: a terminal or pipes to a process in a run."""

from pathlib import Path

import click
from lns.vm.v1 import vm_service_pb2 as pb

from cli import terminal
from cli.context import RUN_FAILURE, Context, command
from cli.options import existing_file
from cli.run.console import STDIN, note_detached, open_console, process_terminal_size
from cli.run.signals import SignalSender
from lns.client.connection.config import load_config
from lns.client.connection.session import Peer, Session, open_session
from lns.client.running import foreground
from lns.client.running.attachment import Attachment
from lns.client.running.environment import parse_environment
from lns.client.running.watching import State, Watch
from services.core.errors import RequestInvalid

_KEYS = click.option(
    "--detach-keys", metavar="KEYS", help="Keys that detach. [default: ctrl-p,ctrl-q]"
)


@command("attach", doing="attach to {run}", failure=RUN_FAILURE)
@click.argument("run", metavar="RUN")
@click.option("--no-stdin", is_flag=True, help="Do not connect standard input.")
@_KEYS
async def attach(context: Context, run: str, no_stdin: bool, detach_keys: str | None) -> int:
    """Connect this terminal to a run; the detach keys leave it running.

    The exit code is the workload's.
    """
    keys = detach_keys or load_config(context).get("detach-keys") or terminal.DEFAULT_DETACH_KEYS
    async with open_session(context, Peer.VM_RUNNER) as session:
        return await attach_to(context, session, run, stdin=not no_stdin, keys=keys)


async def attach_to(
    context: Context, session: Session, name: str, *, stdin: bool, keys: str
) -> int:
    """Attaches to the workload of a run until it ends or the user leaves; returns the exit code."""
    run = (await session.vm.GetRun(pb.GetRunRequest(run=name))).run
    watch = Watch(session.vm, run, note=context.note, has_past=True)
    if watch.has_ended:
        context.note(f"lns: {run.name} has ended; `lns logs {run.name}` has what it said")
    async with (
        SignalSender(
            session.vm,
            run.run_id,
            has_started=lambda: watch.run.state != State.STATE_STARTING,
        ) as signals,
        open_console(
            stdin=stdin and run.options.stdin,
            tty=run.options.tty,
            detach_keys=terminal.parse_detach_keys(keys),
            on_signal=signals.send,
        ) as console,
    ):
        start = pb.AttachStart(
            run=run.run_id,
            stdin=stdin and run.options.stdin,
            terminal=process_terminal_size() if run.options.tty else None,
        )
        attachment = Attachment(
            session.vm, start, console, revive=session.revive, note=context.note
        )
        ending = await foreground.follow_run(watch, attachment, session.vm, revive=session.revive)
    return note_detached(context, run.name, console) if ending.exit is None else ending.exit.code


@command(
    "exec",
    doing="exec in {run}",
    failure=RUN_FAILURE,
    context_settings={"allow_interspersed_args": False},
)
@click.argument("run", metavar="RUN")
@click.argument("argv", metavar="COMMAND...", nargs=-1, type=click.UNPROCESSED, required=True)
@click.option("-d", "--detach", is_flag=True, help="Run it in the background.")
@click.option("-i", "--interactive", is_flag=True, help="Connect standard input.")
@click.option("-t", "--tty", is_flag=True, help="Give the command a terminal.")
@click.option("-e", "--env", multiple=True, metavar="NAME[=VALUE]", help="Set a variable.")
@click.option(
    "--env-file",
    multiple=True,
    type=existing_file(),
    metavar="FILE",
    help="Set a file's variables.",
)
@click.option("-u", "--user", default="", metavar="USER[:GROUP]", help="User; default: the run's.")
@click.option("-w", "--workdir", default="", metavar="PATH", help="Directory; default: the run's.")
@_KEYS
async def exec_command(  # noqa: PLR0917 - one parameter a flag
    context: Context,
    run: str,
    argv: tuple[str, ...],
    detach: bool,
    interactive: bool,
    tty: bool,
    env: tuple[str, ...],
    env_file: tuple[Path, ...],
    user: str,
    workdir: str,
    detach_keys: str | None,
) -> int:
    """Run a command in a run; the exit code is the command's.

    What follows RUN, or a -- after it, belongs to the command, also what looks like a flag.
    """
    if argv[0] == "--":  # between RUN and its command, as many write it
        argv = argv[1:]
    if not argv:
        raise RequestInvalid("no command follows --", hint=f"lns exec {run} -- COMMAND...")
    keys = detach_keys or load_config(context).get("detach-keys") or terminal.DEFAULT_DETACH_KEYS
    if detach and interactive:
        raise RequestInvalid("-d leaves the command alone, -i stays with it", hint="leave -i out")
    if tty and interactive and terminal.terminal_size(STDIN) is None:
        raise RequestInvalid("-t -i needs a terminal as standard input", hint="leave -t out")
    spec = pb.ExecSpec(
        argv=argv,
        env=parse_environment(env, env_file, context.environment),
        user=user,
        workdir=workdir,
        tty=tty,
    )
    async with open_session(context, Peer.VM_RUNNER) as session:
        start = pb.AttachStart(
            run=run,
            exec=spec,
            stdin=interactive,
            leave=detach,
            terminal=process_terminal_size() if tty else None,
        )
        return await _execute(context, session, start, terminal.parse_detach_keys(keys))


async def _execute(context: Context, session: Session, start: pb.AttachStart, keys: bytes) -> int:
    async with open_console(stdin=start.stdin, tty=start.exec.tty, detach_keys=keys) as console:
        status = await Attachment(session.vm, start, console, revive=session.revive).follow()
    if status is None and not start.leave:
        context.note(f"lns: detached; {start.exec.argv[0]} keeps running in {start.run}")
    return 0 if status is None else status.code
