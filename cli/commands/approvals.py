"""`lns approvals`: what runs wait for a person's word about."""

import contextlib
import time

import click
from lns.egress.v1 import egress_service_pb2 as pb

from cli.context import Context, subcommand
from cli.options import format_option, quiet_ids
from cli.render.output import columns, write_rows
from cli.render.text import format_seconds, printable, shorten
from lns.client.connection.session import Peer, Session, open_session
from lns.client.running.approving import answer, subject_of
from services.core.errors import ApprovalUnknown, RequestInvalid
from services.core.run_plan import Verdict

_COLUMNS = columns(
    id="ID", run="RUN", asks_for="ASKS FOR", waiting="WAITING", expires_in="EXPIRES IN", note="WHY"
)
_NOTE_WIDTH = 40
_OUTCOMES = {
    pb.ApprovalSettled.OUTCOME_ALLOWED: "allowed",
    pb.ApprovalSettled.OUTCOME_DENIED: "denied",
    pb.ApprovalSettled.OUTCOME_EXPIRED: "expired, and so denied",
    pb.ApprovalSettled.OUTCOME_WITHDRAWN: "withdrawn: the run ended",
}

_run_option = click.option("--run", "run", metavar="RUN", default="", help="Only of this run.")
_always = click.option("--always", is_flag=True, help="Write a rule to the run's policy file, too.")


@click.group("approvals", short_help="Answer what runs ask for")
def approvals() -> None:
    """Answer what runs ask for while they wait.

    A run asks where its policy says so. An answer holds for this run until it ends; with --always a
    rule is written to its policy file, which other runs may share. Without an answer it is denied
    after the time of --approve-timeout.
    """


@subcommand(approvals, "list", doing="list approvals")
@_run_option
@quiet_ids
@format_option
async def approvals_list(context: Context, run: str, quiet: bool, form: str | None) -> None:
    """List what is waited for, oldest first."""
    async with open_session(context, Peer.VM_RUNNER) as session:
        found = (await session.egress.ListApprovals(pb.ListApprovalsRequest(run=run))).approvals
    if quiet:
        for one in found:
            context.write(one.approval_id)
        return
    write_rows([_row(one) for one in found], _COLUMNS, form=form, write=context.write)


@subcommand(approvals, "watch", doing="watch approvals")
@_run_option
async def approvals_watch(context: Context, run: str) -> None:
    """Show requests and how they are decided, until interrupted."""
    known: dict[str, str] = {}
    async with open_session(context, Peer.VM_RUNNER) as session:
        async for event in session.egress.WatchApprovals(pb.WatchApprovalsRequest(run=run)):
            if event.HasField("asked"):
                one = event.asked
                if one.approval_id not in known:
                    known[one.approval_id] = f"{one.run_name} asks for {subject_of(one)}"
                    note = f" ({shorten(printable(one.note), _NOTE_WIDTH)})" if one.note else ""
                    context.write(f"{one.approval_id}  {known[one.approval_id]}{note}")
            else:
                asked = known.pop(event.settled.approval_id, "")
                outcome = _OUTCOMES.get(event.settled.outcome, "settled")
                context.write(f"{event.settled.approval_id}  {asked}: {outcome}")


@subcommand(approvals, "allow", doing="allow {ids}")
@click.argument("ids", metavar="ID...", nargs=-1, required=True)
@_always
async def approvals_allow(context: Context, ids: tuple[str, ...], always: bool) -> None:
    """Allow what each ID asks for, by its id or the beginning of it."""
    await _answer(context, ids, Verdict.ALLOW, always=always)


@subcommand(approvals, "deny", doing="deny {ids}")
@click.argument("ids", metavar="ID...", nargs=-1, required=True)
@_always
async def approvals_deny(context: Context, ids: tuple[str, ...], always: bool) -> None:
    """Deny what each ID asks for, by its id or the beginning of it."""
    await _answer(context, ids, Verdict.DENY, always=always)


async def _answer(
    context: Context, ids: tuple[str, ...], verdict: Verdict, *, always: bool
) -> None:
    async with open_session(context, Peer.VM_RUNNER) as session:
        for text in ids:
            approval = await _find(session, text)
            remark = ""
            with contextlib.suppress(ApprovalUnknown) if always else contextlib.nullcontext():
                remark = await answer(session.egress, approval, verdict, always=always)
            context.write(remark or f"{subject_of(approval)}: {verdict} for {approval.run_name}")


async def _find(session: Session, text: str) -> pb.Approval:
    found = (await session.egress.ListApprovals(pb.ListApprovalsRequest())).approvals
    matching = [one for one in found if text and one.approval_id.startswith(text)]
    if not matching:
        raise ApprovalUnknown(
            f"no approval {text[:40]!r} is waited for",
            hint="`lns approvals list` shows those that are; this one may have expired",
        )
    if len(matching) > 1:
        raise RequestInvalid(f"{text!r} is the beginning of {len(matching)} approvals")
    return matching[0]


def _row(one: pb.Approval) -> dict[str, object]:
    left = max(0.0, one.expire_time.ToNanoseconds() / 1e9 - time.time())
    return {
        "id": one.approval_id,
        "run": one.run_name,
        "asks_for": subject_of(one),
        "waiting": one.waiting_count,
        "expires_in": format_seconds(left),
        "note": shorten(printable(one.note), _NOTE_WIDTH),
    }
