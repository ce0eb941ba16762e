"""Answers to what runs ask for: for one run, or for good in its policy file."""

from pathlib import Path
from typing import TYPE_CHECKING

from lns.egress.v1 import egress_service_pb2 as pb

from services.chassis.edited_files import edit_file
from services.core.policy_edit import put_integration, put_route
from services.core.run_plan import PolicyRoute, Verdict
from services.core.text import printable

if TYPE_CHECKING:
    from lns.egress.v1.egress_service_pb2_grpc import EgressServiceStub


def subject_of(approval: pb.Approval) -> str:
    """Returns what an approval is about, for users."""
    if approval.kind == pb.Approval.KIND_CREDENTIAL:
        return printable(f"the key of {approval.integration} for {approval.host}")
    host = f"[{approval.host}]" if ":" in approval.host else approval.host
    return printable(f"{host}:{approval.port}")


async def answer(
    egress: "EgressServiceStub", approval: pb.Approval, verdict: Verdict, *, always: bool
) -> str:
    """Answers an approval; returns what was written where, empty if nothing was.

    Args:
        egress: the service.
        approval: what is answered.
        verdict: allow or deny.
        always: whether a rule is written to the run's policy file first.

    Raises:
        ApprovalUnknown: it waits no longer; a rule was written all the same.
        ArtifactInvalid: the policy file cannot be edited; nothing was answered.
        OSError: the same.
    """
    remark = await _write_rule(egress, approval, verdict) if always else ""
    await egress.AnswerApproval(
        pb.AnswerApprovalRequest(approval_id=approval.approval_id, verdict=str(verdict))
    )
    return remark


async def _write_rule(egress: "EgressServiceStub", approval: pb.Approval, verdict: Verdict) -> str:
    is_credential = approval.kind == pb.Approval.KIND_CREDENTIAL
    if is_credential and verdict is not Verdict.ALLOW:
        return ""  # a policy only permits integrations
    policy = await egress.GetRunPolicy(pb.GetRunPolicyRequest(run=approval.run_id))

    def change(text: bytes) -> bytes:
        if is_credential:
            return put_integration(text, approval.integration, name=policy.path).text
        route = PolicyRoute(match=subject_of(approval), verdict=verdict)
        return put_route(text, route, name=policy.path, comment=_comment(approval)).text

    if policy.is_own:
        text = change(policy.text.encode()).decode()
        await egress.UpdateRunPolicy(pb.UpdateRunPolicyRequest(run=approval.run_id, text=text))
    else:
        edit_file(Path(policy.path), change)
    return f"{subject_of(approval)}: {verdict} in {policy.path}"


def _comment(approval: pb.Approval) -> str:
    note = f": {printable(approval.note)}" if approval.note else ""
    return f"asked for by {approval.run_name}{note}"[:200]
