"""`lns events`: what happens on the node, as it happens."""

import asyncio
from typing import Any

import click
from lns.vm.v1 import run_pb2
from lns.vm.v1 import vm_service_pb2 as pb

from cli.context import Context, command
from cli.options import format_option
from cli.render.output import columns, write_rows
from cli.render.text import printable
from cli.run.egress_reading import record_document, record_line
from lns.client.connection.session import Peer, Session, open_session
from services.core.errors import AttachLagging, RequestInvalid, ServiceUnavailable

_COLUMNS = columns(time="TIME", kind="KIND", run="RUN", what="WHAT")


@command("events", doing="watch events")
@click.option("-f", "--follow", is_flag=True, help="Go on until interrupted.")
@click.option("--run", metavar="RUN", help="Only of this run: a name or an id.")
@format_option
async def events(context: Context, follow: bool, run: str | None, form: str | None) -> None:
    """Show what happens to runs and what is decided about what they reach.

    Nothing of the past is shown: `lns ps -a`, `lns logs` and `lns egress` have that. With
    `--format json` each event is an object on a line of its own.
    """
    if not follow:
        raise RequestInvalid("events are shown as they happen", hint="write `lns events --follow`")
    async with open_session(context, Peer.VM_RUNNER) as session:
        while True:
            try:
                await _watch(context, session, run, form)
            except AttachLagging as error:
                context.note(f"lns: {error.message}; some are missing here")
            except ServiceUnavailable as error:
                context.note(f"lns: {error.message}; events meanwhile are missing here")
                await asyncio.sleep(0.2)
                await session.revive()


async def _watch(context: Context, session: Session, run: str | None, form: str | None) -> None:
    async for told in session.vm.WatchEvents(pb.WatchEventsRequest()):
        if not told.run_id or (run and run not in (told.run_name, told.run_id[: len(run)])):
            continue
        row = event_row(told)
        if form in (None, "", "table"):
            line = f"{row['time'][11:19]}  {row['kind']:<6}  {row['run']:<20}  {row['what']}"
            context.write(printable(line))
        else:
            write_rows([row], _COLUMNS, form=form, write=context.write)


def event_row(told: pb.WatchEventsResponse) -> dict[str, Any]:
    """Returns an event as a row: its time, kind (`run` or `egress`), run, and what happened."""
    if told.HasField("egress"):
        time, kind = told.egress.event_time, "egress"
        what = record_line(told.egress).partition("  ")[2]
        detail: dict[str, Any] = record_document(told.egress)
    else:
        time, kind = told.run.event_time, "run"
        what, detail = _of_run(told.run)
    return {
        "time": time.ToJsonString(),
        "kind": kind,
        "run": told.run_name,
        "run_id": told.run_id,
        "what": what,
        "detail": detail,
    }


def _of_run(event: run_pb2.RunEvent) -> tuple[str, dict[str, Any]]:
    kind = event.WhichOneof("event")
    if kind == "removed":
        return "removed", {"state": "removed"}
    if kind == "notice":
        return event.notice, {"notice": event.notice}
    run = event.state_changed
    state = run_pb2.Run.State.Name(run.state).removeprefix("STATE_").lower()
    detail: dict[str, Any] = {"state": state, "image_digest": run.image_digest}
    if run.HasField("exit"):
        detail["exit_code"] = run.exit.code
        return f"{state} ({run.exit.code})", detail
    if run.HasField("error"):
        detail["error"] = run.error.message
        return f"{state}: {run.error.message}", detail
    return state, detail
