"""`lns top`: a screen of what runs do, and answers to what they ask for."""

import asyncio
import contextlib
import sys
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace

import click
from lns.egress.v1 import egress_service_pb2 as egress_pb
from lns.vm.v1 import run_pb2
from lns.vm.v1 import vm_service_pb2 as pb

from cli import terminal
from cli.commands.ps import iter_runs
from cli.commands.stats import stats_row
from cli.context import Context, command
from cli.render.overview import Overview, screen_lines
from cli.render.runs import STATES, run_row
from cli.render.writer import full_screen, show_screen
from lns.client.connection.session import Peer, Session, open_session
from lns.client.running.approving import answer, subject_of
from services.core.errors import ApprovalUnknown
from services.core.run_plan import Verdict

_QUIT = {b"q", b"Q", b"\x03", b"\x04", b"\x1b", b""}
_VERDICTS = {b"a": Verdict.ALLOW, b"d": Verdict.DENY}
_STDIN = 0


@command("top", doing="show what runs do")
@click.option(
    "--interval",
    type=click.FloatRange(min=0.2, max=60),
    default=2.0,
    show_default=True,
    metavar="SECONDS",
    help="Between two looks.",
)
@click.option("--all", "everything", is_flag=True, help="Include runs that have ended.")
async def top(context: Context, interval: float, everything: bool) -> None:
    """Show what runs use, the busiest first, and what they wait for an answer about.

    On a terminal the screen is kept current: q quits, a allows the first request for its run, d
    denies it. Elsewhere one look is printed.
    """
    async with open_session(context, Peer.VM_RUNNER) as session:
        looker = _Looker(session, everything=everything)
        await looker.look()
        if terminal.terminal_size(_STDIN) is None or not sys.stdout.isatty():
            await asyncio.sleep(interval)
            for line in screen_lines(await looker.look(), rows=10_000, width=200, keys=False):
                context.write(line)
            return
        with full_screen(), terminal.raw_mode(_STDIN):
            await _keep_current(looker, interval)


async def _keep_current(looker: "_Looker", interval: float) -> None:
    keys = terminal.InputReader(_STDIN)
    pressed = asyncio.ensure_future(keys.next())
    message = ""
    try:
        while True:
            _draw(await looker.look(), message)
            message = ""
            await asyncio.wait({pressed}, timeout=interval)
            if not pressed.done():
                continue
            key, pressed = pressed.result()[:1], asyncio.ensure_future(keys.next())
            if key in _QUIT:
                return
            if key in _VERDICTS:
                message = await looker.answer_first(_VERDICTS[key])
    finally:
        pressed.cancel()


def _draw(shown: Overview, message: str) -> None:
    size = terminal.terminal_size(1) or terminal.Size(rows=24, columns=80)
    whole = replace(shown, message=message)
    show_screen(screen_lines(whole, rows=size.rows, width=size.columns, keys=True))


class _Looker:
    """Looks at the runner, and remembers what is needed for differences.

    Args:
        session: the connection.
        everything: whether runs that have ended are shown.
    """

    def __init__(self, session: Session, *, everything: bool) -> None:
        self._session = session
        self._everything = everything
        self._before: dict[str, run_pb2.RunStats] = {}
        self._requests: list[egress_pb.Approval] = []

    async def look(self) -> Overview:
        """Returns what is to be shown now.

        Raises:
            LnsError: as the service gave it.
        """
        session = self._session
        runs = [run async for run in self._runs()]
        stats = {one.run_id: one for one in (await session.vm.GetStats(pb.GetStatsRequest())).stats}
        listing = await session.egress.ListApprovals(egress_pb.ListApprovalsRequest())
        self._requests = list(listing.approvals)
        rows = list(self._rows(runs, stats))
        self._before = stats
        return Overview(
            runs=rows,
            requests=[f"{one.run_name}: {subject_of(one)}" for one in self._requests],
            summary=Counter(STATES.get(run.state, "unknown") for run in runs),
        )

    async def answer_first(self, verdict: Verdict) -> str:
        """Answers the oldest request for its run; returns what was done.

        Raises:
            LnsError: as the service gave it.
        """
        if not self._requests:
            return "nothing is waited for"
        first = self._requests[0]
        with contextlib.suppress(ApprovalUnknown):  # somebody was faster
            await answer(self._session.egress, first, verdict, always=False)
        return f"{subject_of(first)}: {verdict} for {first.run_name}"

    def _runs(self) -> AsyncIterator[run_pb2.Run]:
        return iter_runs(self._session, include_ended=self._everything, labels={}, group="")

    def _rows(
        self, runs: list[run_pb2.Run], stats: dict[str, run_pb2.RunStats]
    ) -> Iterator[dict[str, object]]:
        for run in runs:
            shown = run_row(run, now=0)
            row = {"name": run.name, "state": STATES.get(run.state, "unknown")}
            row["command"] = str(shown["command"])
            used = stats.get(run.run_id)
            if used is None:
                blank = dict.fromkeys(("cpu", "memory", "disk", "channel", "pids"), "-")
                yield {**row, **blank, "cpu_percent": -1.0}
                continue
            use = stats_row(used, self._before.get(run.run_id))
            yield {**row, **use, "name": run.name, "cpu_percent": float(use["cpu"][:-1])}
