"""`lns run`: a reference becomes a running microVM."""

import asyncio
import sys
import time
import uuid
from collections.abc import Awaitable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import click
from lns.vm.v1 import run_pb2
from lns.vm.v1 import vm_service_pb2 as pb

from cli import terminal
from cli.context import RUN_FAILURE, Context, command
from cli.errors import describe
from cli.options import WorkloadCommand, life_options, plan_options
from cli.render.phases import Phases
from cli.render.plan import write_plans
from cli.render.progress import open_reporter
from cli.render.text import printable
from cli.render.timing import process_age, timing_lines
from cli.run.console import (
    STDIN,
    LineAsker,
    ProcessConsole,
    note_detached,
    open_console,
    open_lines,
    process_terminal_size,
)
from cli.run.forking import check_terminal, make_fork, plan_flags, take_fork, take_terminal
from cli.run.group import GroupRun, group_code
from cli.run.prompting import Asker, Prompter
from cli.run.signals import SignalSender
from cli.run.unread import leave_unread
from lns.client.connection.config import load_config
from lns.client.connection.session import Peer, Session, open_session
from lns.client.content.local_files import place
from lns.client.running import foreground
from lns.client.running.attachment import Attachment
from lns.client.running.forking import refuse, saved_run
from lns.client.running.launch import Order, Services, launch
from lns.client.running.request import PULL_MODES, resolve_request, run_options
from lns.client.running.watching import Watch
from services.core.policy_edit import POLICY_FILE_NAME


@command(
    "run",
    doing="run {reference}",
    failure=RUN_FAILURE,
    cls=WorkloadCommand,
    short_help="Run an agent, a bundle or an image in a microVM",
)
@click.argument("reference", metavar="[REF]", required=False)
@plan_options
@click.option(
    "--from",
    "from_snapshot",
    metavar="SNAPSHOT",
    help="Go on from a snapshot of a run (`lns snapshot RUN`); any number of runs may.",
)
@click.option(
    "--keep-policy",
    is_flag=True,
    help="With --from: the policy and credentials of the snapshot's run, not this run's own.",
)
@click.option("-d", "--detach", is_flag=True, help="Run in the background and print the id.")
@click.option("--detach-keys", metavar="KEYS", help="Keys that detach. [default: ctrl-p,ctrl-q]")
@life_options
@click.option("--dry-run", is_flag=True, help="Show the plan and run nothing.")
@click.option(
    "--format", "form", metavar="FORMAT", help="With --dry-run: table, json, yaml or a template."
)
@click.option("-q", "--quiet", is_flag=True, help="No progress and no phase line.")
@click.option("--timing", is_flag=True, help="Say where the time went, step by step.")
async def run(
    context: Context,
    reference: str | None,
    detach: bool,
    detach_keys: str | None,
    dry_run: bool,
    form: str | None,
    quiet: bool,
    timing: bool,
    **flags: Any,
) -> int:
    """Run REF, an agent, a bundle or an image, in a microVM of its own.

    A path such as ./agent.yaml runs an agent or bundle from its file, without any registry: the
    components that it names are files beside it, their content is in folders of the same names.

    A bundle of several agents becomes a group: a microVM each, which reach each other by the names
    of their agents.

    COMMAND replaces the command that REF brings. Without REF, COMMAND runs in the minimal guest,
    which has no programs of its own: bring them with -v or --mount.

    With --from a run goes on where another one was when its snapshot was made: the same programs
    with their memory and files, under a name, policy and ports of its own.

    The exit code is the workload's; 125 if lns failed, 126 if the command cannot be executed, 127
    if it was not found, 128+n if signal n ended it. A group's is the first that is not 0, in the
    order of the bundle.
    """
    before = process_age()
    config = load_config(context)
    keys = terminal.parse_detach_keys(
        detach_keys or config.get("detach-keys") or terminal.DEFAULT_DETACH_KEYS
    )
    order = _order(context, config, reference, flags, dry_run=dry_run)
    check_terminal(order.options, detach=detach)
    context.doing = f"run {order.subject}"
    if dry_run:
        async with open_session(context, Peer.RESOLVER, Peer.REGISTRY_GATEWAY) as session:
            await place(order.resolve, session)
            plans = (await session.resolver.Resolve(order.resolve)).plans
        write_plans(plans, form=form, write=context.write)
        return 0
    async with open_session(context, *Peer) as session:
        await place(order.resolve, session)
        if order.from_snapshot:
            take_terminal(order.options, await saved_run(order.from_snapshot, session.vm))
            check_terminal(order.options, detach=detach)
        phases = Phases()
        code, runs = await _run(
            context, session, order, phases, detach=detach, keys=keys, quiet=quiet
        )
    if timing:
        for one in runs:
            for line in timing_lines(one, phases.spans, before=before, total=process_age()):
                context.note(line)
    return code


def _order(
    context: Context,
    config: Mapping[str, str],
    reference: str | None,
    flags: dict[str, Any],
    *,
    dry_run: bool,
) -> Order:
    """Returns what is asked for: a run of a reference, or one that goes on from a snapshot."""
    fork = take_fork(flags)
    if fork is None:
        return make_order(context, config, reference, **flags)
    if dry_run:
        refuse("--dry-run", f"`lns snapshot inspect {fork.snapshot}` shows its plan")
    return make_fork(context, config, reference, fork, **flags)


def make_order(
    context: Context,
    config: Mapping[str, str],
    reference: str | None,
    *,
    pull: str,
    interactive: bool,
    tty: bool,
    start: bool = True,
    **flags: Any,
) -> Order:
    """Returns what the flags of the command line ask to be run.

    Raises:
        RequestInvalid: a flag cannot be read, or two contradict each other.
        OSError: a file that a flag names cannot be read.
    """
    plan = plan_flags(flags)
    resolve = resolve_request(
        plan,
        reference=reference,
        argv=context.workload,
        environment=context.environment,
        config=config,
    )
    resolve.offline = pull == "never"
    return Order(
        resolve=resolve,
        options=run_options(
            name=plan.name,
            tty=tty,
            stdin=interactive,
            terminal=process_terminal_size() if tty else None,
            **flags,
        ),
        pull=PULL_MODES[pull],
        request_id=uuid.uuid4().hex,
        start=start,
        policy_file=plan.policy.absolute() if plan.policy else None,
        project_policy=Path.cwd() / POLICY_FILE_NAME,
        subject=str(plan.locked or "a machine without an image")
        if reference is None
        else reference or "''",
    )


def services_of(session: Session) -> Services:
    """Returns the stubs that a launch calls."""
    return Services(
        resolver=session.resolver,
        gateway=session.registry,
        materializer=session.materializer,
        runner=session.vm,
        runner_elsewhere=session.elsewhere(Peer.VM_RUNNER),
    )


async def _run(
    context: Context,
    session: Session,
    order: Order,
    phases: Phases,
    *,
    detach: bool,
    keys: bytes,
    quiet: bool,
) -> tuple[int, list[run_pb2.Run]]:
    """Runs an order; returns the exit code and the runs as they were last seen."""
    services = services_of(session)
    with open_reporter(context, sys.stderr, quiet=quiet) as reporter:
        with terminal.cancelled_by_signals():  # what was created is taken back then
            runs = await launch(order, services, reporter=reporter, phases=phases)
        begin = time.monotonic()
        watches = [Watch(session.vm, run, note=reporter.note, begin=begin) for run in runs]
        context.doing = f"run {order.subject} as {runs[0].group.name or runs[0].name}"
        group = _group(context, session, watches) if len(runs) > 1 else None
        if detach:
            waiting = group.until_started() if group else _until_started(session, watches[0])
            with terminal.cancelled_by_signals():
                await _or_say_what_goes_on(context, runs, waiting)
    if detach:
        for run in runs:
            context.write(run.run_id)
        codes = [0 if one.has_started else _never_ran(context, one.run) for one in watches]
        code = next(filter(None, codes), 0)
    else:
        try:
            if group is not None:
                code = await _followed(context, session, group, runs)
            else:
                code = await _attached(context, session, watches[0], order.options, keys)
        except BrokenPipeError:
            name = runs[0].group.name or runs[0].name
            await leave_unread(name, watches, session.vm, revive=session.revive, note=context.note)
            raise
    started = [one.started_after for one in watches if one.started_after is not None]
    if started:
        phases.add("started", max(started))
    if not quiet:
        context.note(phases.line() + emulation(one.run for one in watches))
    return code, [one.run for one in watches]


def emulation(runs: Iterable[run_pb2.Run]) -> str:
    """Returns what the phase line says of guests that are emulated: of which architecture."""
    emulated = [run for run in runs if run.accelerator == "tcg"]
    named = {run.plan.image.platform.architecture for run in emulated} - {""}
    which = f"{', '.join(sorted(named))} " if named else ""
    return f" ({which}emulated: see lns doctor)" if emulated else ""


async def _or_say_what_goes_on(
    context: Context, runs: Sequence[run_pb2.Run], waiting: Awaitable[None]
) -> None:
    """Waits; an interrupt does not end the runs, so it prints their ids."""
    try:
        await waiting
    except asyncio.CancelledError:
        for run in runs:
            context.write(run.run_id)
        name = runs[0].group.name or runs[0].name
        context.note(f"lns: {name} continues to start; `lns rm -f {name}` stops and removes it")
        raise


def _group(context: Context, session: Session, watches: Sequence[Watch]) -> GroupRun:
    by_name = {watch.run.plan.member: watch for watch in watches}
    return GroupRun(by_name, session.vm, revive=session.revive, note=context.note)


async def _followed(
    context: Context, session: Session, group: GroupRun, runs: Sequence[run_pb2.Run]
) -> int:
    """Shows what a group writes until all of it has ended; returns its exit code."""
    with terminal.forwarded_signals(group.signalled):
        asker = LineAsker(context.note) if terminal.terminal_size(STDIN) is not None else None
        group_id = runs[0].group.id
        prompter = Prompter(session.egress, session.credentials, group_id, asker, context.note)
        async with prompter.prompting():
            ends = await group.follow(open_lines(context, [run.plan.member for run in runs]))
    for end in ends:
        if end.error is not None:
            context.doing = f"run {end.name}"
            for line in describe(end.error, context):
                context.note(line)
    return group_code(ends)


def _never_ran(context: Context, run: run_pb2.Run) -> int:
    """Says why the command of a run that ended did not run; returns the exit code."""
    why = {126: "cannot be executed", 127: "does not exist"}.get(run.exit.code)
    if why:
        context.note(f"lns: {printable(run.plan.argv[0])} {why}; `lns logs {run.name}` says more")
    return run.exit.code


async def _until_started(session: Session, watch: Watch) -> None:
    await watch.until(lambda one: one.has_started or one.has_ended, revive=session.revive)
    if watch.has_failed:
        raise foreground.failure_of(watch.run)


def _asker(context: Context, console: ProcessConsole, options: run_pb2.RunOptions) -> Asker | None:
    """Returns who asks the person at this terminal; None where nobody can be asked here."""
    if terminal.terminal_size(STDIN) is None:
        return None
    if options.tty and options.stdin:
        return console
    return None if options.stdin or options.tty else LineAsker(context.note)


async def _attached(
    context: Context, session: Session, watch: Watch, options: run_pb2.RunOptions, keys: bytes
) -> int:
    run_id = watch.run.run_id
    async with (
        SignalSender(session.vm, run_id, has_started=lambda: watch.has_started) as signals,
        open_console(
            stdin=options.stdin, tty=options.tty, detach_keys=keys, on_signal=signals.send
        ) as console,
    ):
        start = pb.AttachStart(
            run=run_id,
            replay=True,
            stdin=options.stdin,
            terminal=options.terminal if options.HasField("terminal") else None,
        )
        attachment = Attachment(session.vm, start, console, revive=session.revive)
        asker = _asker(context, console, options)
        prompter = Prompter(session.egress, session.credentials, run_id, asker, context.note)
        async with prompter.prompting():
            ending = await foreground.follow_run(
                watch, attachment, session.vm, revive=session.revive
            )
    if ending.exit is None:
        return note_detached(context, watch.run.name, console)
    if ending.exit.oom_killed:
        context.note("lns: the workload needed more memory than it has; give it more with -m")
    return ending.exit.code
