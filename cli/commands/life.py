"""The life of runs: start, stop, kill, restart, pause, resume, wait, rename, rm, prune."""

import asyncio
import sys
import uuid
from collections.abc import Awaitable, Callable, Sequence

import click
from lns.vm.v1 import run_pb2
from lns.vm.v1 import vm_service_pb2 as pb

from cli import terminal
from cli.commands.attach import attach_to
from cli.context import FAILURE, Context, command
from cli.errors import describe
from cli.options import Decorator
from cli.render.progress import open_reporter
from cli.render.runs import health
from cli.render.text import format_size
from lns.client.connection.session import Peer, Session, open_session
from lns.client.running.members import members_of
from lns.client.running.stopping import stop_run
from lns.client.running.watching import State, Watch
from services.chassis.status import from_status
from services.core.errors import LnsError, RequestInvalid, RunStateConflict, RunUnknown

_UNENDED = (
    State.STATE_STARTING,
    State.STATE_RUNNING,
    State.STATE_PAUSED,
    State.STATE_SUSPENDED,
)
runs_argument: Decorator = click.argument("runs", metavar="RUN...", nargs=-1, required=True)
timeout_option: Decorator = click.option(
    "-t",
    "--timeout",
    "grace",
    type=click.FloatRange(min=0),
    metavar="SECONDS",
    help="Seconds to wait before KILL; default: the run's own.",
)


async def each(
    context: Context, runs: Sequence[str], act: Callable[[Session, str], Awaitable[str | None]]
) -> int:
    """Does something to each run, side by side; prints what it gives, in order; 1 if one failed.

    The name of a group stands for all its runs. One that fails does not keep the others from being
    done.
    """
    async with open_session(context, Peer.VM_RUNNER) as session:
        lists = await asyncio.gather(*(_each_of(session, run, act) for run in runs))
    code = 0
    verb = context.doing.removesuffix(" ".join(run or "''" for run in runs)).strip()
    for run, result in (pair for pairs in lists for pair in pairs):
        if isinstance(result, LnsError):
            context.doing = f"{verb} {run}"
            for line in describe(result, context):
                context.note(line)
            code = FAILURE
        elif isinstance(result, BaseException):
            raise result
        elif result is not None:
            context.write(result)
    return code


async def _each_of(
    session: Session, text: str, act: Callable[[Session, str], Awaitable[str | None]]
) -> list[tuple[str, str | BaseException | None]]:
    """Does something to a run, or to each run of a group; returns names and results."""
    try:
        return [(text, await act(session, text))]
    except RunUnknown as unknown:
        runs = await _members(session, text)
        if not runs:
            return [(text, unknown)]
    except LnsError as error:
        return [(text, error)]
    results = await asyncio.gather(*(act(session, run) for run in runs), return_exceptions=True)
    return list(zip(runs, results, strict=True))


async def _members(session: Session, text: str) -> list[str]:
    """Returns the names of a group's runs; none for what is no group."""
    if not text:
        return []
    try:
        return [run.name for run in await members_of(session.vm, text)]
    except LnsError:  # the error that no such run exists says enough
        return []


@command("start", doing="start {runs}")
@runs_argument
@click.option(
    "-a", "--attach", is_flag=True, help="Attach to the run (one only) and exit with its exit code."
)
@click.option("-i", "--interactive", is_flag=True, help="With -a: connect standard input.")
async def start(context: Context, runs: tuple[str, ...], attach: bool, interactive: bool) -> int:
    """Start runs that were created or have ended; what they wrote is still there.

    Returns when their workloads run.
    """
    if attach and len(runs) != 1:
        raise RequestInvalid("-a attaches to one run", hint="start the others without -a")

    async def act(session: Session, run: str) -> str:
        await _start(context, session, run)
        return run

    if not attach:
        return await each(context, runs, act)
    async with open_session(context, Peer.VM_RUNNER) as session:
        await session.vm.StartRun(_start_request(runs[0]))
        return await attach_to(
            context, session, runs[0], stdin=interactive, keys=terminal.DEFAULT_DETACH_KEYS
        )


@command("stop", doing="stop {runs}")
@runs_argument
@timeout_option
async def stop(context: Context, runs: tuple[str, ...], grace: float | None) -> int:
    """Ask the workloads of runs to end; end them by force after the timeout."""

    async def act(session: Session, run: str) -> str:
        await _stop(session, run, grace)
        return run

    return await each(context, runs, act)


@command("kill", doing="kill {runs}")
@runs_argument
@click.option("-s", "--signal", default="KILL", show_default=True, metavar="NAME", help="Signal.")
async def kill(context: Context, runs: tuple[str, ...], signal: str) -> int:
    """Send the workloads of runs a signal."""
    name = signal.upper().removeprefix("SIG")

    async def act(session: Session, run: str) -> str:
        await session.vm.KillRun(pb.KillRunRequest(run=run, signal=name))
        return run

    return await each(context, runs, act)


@command("restart", doing="restart {runs}")
@runs_argument
@timeout_option
async def restart(context: Context, runs: tuple[str, ...], grace: float | None) -> int:
    """Stop runs that run, and start them again."""

    async def act(session: Session, run: str) -> str:
        found = (await session.vm.GetRun(pb.GetRunRequest(run=run))).run
        if found.state in _UNENDED:
            await _stop(session, run, grace)
        await _start(context, session, run)
        return run

    return await each(context, runs, act)


@command("pause", doing="pause {runs}")
@runs_argument
async def pause(context: Context, runs: tuple[str, ...]) -> int:
    """Stop the CPUs of runs; memory and connections are kept."""

    async def act(session: Session, run: str) -> str:
        await session.vm.PauseRun(pb.PauseRunRequest(run=run))
        return run

    return await each(context, runs, act)


@command("suspend", doing="suspend {runs}")
@runs_argument
async def suspend(context: Context, runs: tuple[str, ...]) -> int:
    """Save runs with their memory on the disk and free that memory; `lns resume` continues them.

    Open connections are closed, as those of a machine whose network went away. A run with binds
    (-v /host:/path) cannot be suspended.
    """

    async def act(session: Session, run: str) -> str:
        await session.vm.SuspendRun(pb.SuspendRunRequest(run=run))
        return run

    return await each(context, runs, act)


@command("resume", doing="resume {runs}")
@runs_argument
async def resume(context: Context, runs: tuple[str, ...]) -> int:
    """Continue paused and suspended runs."""

    async def act(session: Session, run: str) -> str:
        await session.vm.ResumeRun(pb.ResumeRunRequest(run=run))
        return run

    return await each(context, runs, act)


@command("wait", doing="wait for {runs}")
@runs_argument
@click.option("--healthy", is_flag=True, help="Wait until their health checks succeed instead.")
async def wait(context: Context, runs: tuple[str, ...], healthy: bool) -> int:
    """Wait until runs have ended, and print the exit code of each.

    Of a run that has ended already, it is the code that it ended with. With --healthy, print the
    name of each run as its health check succeeds; a run that becomes unhealthy, ends, or has no
    health check is a failure.
    """

    async def act(session: Session, run: str) -> str:
        found = (await session.vm.GetRun(pb.GetRunRequest(run=run))).run
        watch = Watch(session.vm, found, note=lambda _: None, has_past=True)
        if healthy:
            await _until_healthy(session, watch)
            return run
        if not watch.has_ended:
            await watch.until(lambda one: one.has_ended, revive=session.revive)
        return str(_exit_code(watch.run))

    return await each(context, runs, act)


@command("rename", doing="rename {run}")
@click.argument("run", metavar="RUN")
@click.argument("name", metavar="NAME")
async def rename(context: Context, run: str, name: str) -> None:
    """Give a run another name."""
    async with open_session(context, Peer.VM_RUNNER) as session:
        await session.vm.RenameRun(pb.RenameRunRequest(run=run, name=name))


@command("rm", doing="remove {runs}")
@runs_argument
@click.option("-f", "--force", is_flag=True, help="Kill the run first if it is running.")
async def rm(context: Context, runs: tuple[str, ...], force: bool) -> int:
    """Remove runs with what they wrote and their logs."""

    async def act(session: Session, run: str) -> str:
        request = pb.RemoveRunRequest(run=run, force=force, request_id=uuid.uuid4().hex)
        await session.vm.RemoveRun(request)
        return run

    return await each(context, runs, act)


@command("prune", doing="prune runs")
@click.option("--volumes", is_flag=True, help="Also named volumes that no run uses.")
@click.option("--dry-run", is_flag=True, help="Only print what would be removed.")
@click.option("-f", "--force", is_flag=True, help="Do not ask for confirmation.")
async def prune(context: Context, volumes: bool, dry_run: bool, force: bool) -> int:
    """Remove every run that has ended or was never started."""
    what = "every run that has ended or was never started" + (
        " and every unused volume" if volumes else ""
    )
    if not force and not dry_run and sys.stdin.isatty():
        click.confirm(f"Remove {what}?", abort=True, err=True)
    request = pb.PruneRunsRequest(include_volumes=volumes, dry_run=dry_run)
    async with open_session(context, Peer.VM_RUNNER) as session:
        with open_reporter(context, sys.stderr) as reporter:
            reporter.doing("removing")
            response = await session.vm.PruneRuns(request)
    for name in [*response.run_ids, *response.volumes]:
        context.write(name)
    context.note(f"{'would free' if dry_run else 'freed'} {format_size(response.freed_bytes)}")
    return 0


def _start_request(run: str) -> pb.StartRunRequest:
    return pb.StartRunRequest(run=run, request_id=uuid.uuid4().hex)


async def _start(context: Context, session: Session, run: str) -> None:
    """Starts a run, and returns when its workload runs or has ended.

    Raises:
        LnsError: it cannot be started, or failed before its workload ran.
    """
    started = (await session.vm.StartRun(_start_request(run))).run
    if started.state != State.STATE_STARTING:
        return

    watch = Watch(session.vm, started, note=context.note, has_past=True)
    await watch.until(lambda one: one.has_started or one.has_ended, revive=session.revive)
    if watch.has_failed and not watch.has_started:
        raise from_status(watch.run.error)


async def _stop(session: Session, run: str, grace: float | None) -> None:
    found = (await session.vm.GetRun(pb.GetRunRequest(run=run))).run
    await stop_run(session.vm, found, grace=grace)


async def _until_healthy(session: Session, watch: Watch) -> None:
    """Waits until a run is healthy.

    Raises:
        RunStateConflict: it ended, is unhealthy or has no health check.
    """
    found = watch.run
    if not found.plan.HasField("healthcheck"):
        raise RunStateConflict(
            f"the image of run {found.name} has no health check",
            hint=f"`lns wait {found.name}` waits until it ends",
        )

    def is_decided(one: Watch) -> bool:
        return one.has_ended or health(one.run) in ("healthy", "unhealthy")

    if not is_decided(watch):
        await watch.until(is_decided, revive=session.revive)
    if health(watch.run) == "healthy":
        return
    if watch.has_ended:
        raise RunStateConflict(
            f"run {found.name} ended before it was healthy",
            hint=f"`lns logs {found.name}` shows what it wrote",
        )
    said = watch.run.health.output.strip().splitlines()
    raise RunStateConflict(
        f"run {found.name} is unhealthy: {watch.run.health.failing_streak} checks failed in a row"
        + (f", the last with: {said[-1]}" if said else ""),
        hint=f"`lns inspect {found.name}` shows the last check",
    )


def _exit_code(run: run_pb2.Run) -> int:
    if run.state in (State.STATE_FAILED, State.STATE_LOST, State.STATE_UNKNOWN):
        raise from_status(run.error)
    return run.exit.code
