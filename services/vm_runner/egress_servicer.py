"""`lns.egress.v1.EgressService`: parses, calls the use cases, converts."""

import contextlib
from collections.abc import AsyncIterator
from typing import Any

from lns.egress.v1 import egress_service_pb2 as pb
from lns.egress.v1 import egress_service_pb2_grpc as rpc

from services.core.errors import LimitExceeded, RequestInvalid
from services.core.run_plan import Verdict
from services.vm_runner import egress_messages as messages
from services.vm_runner.boundary.approvals import Approvals
from services.vm_runner.records import lifecycle, naming
from services.vm_runner.runner import Runner

_POLICY_MOST = 1 << 20


class EgressServicer(rpc.EgressServiceServicer):
    """Serves what the runs of a node reach."""

    def __init__(self, runner: Runner, approvals: Approvals) -> None:
        self._runner = runner
        self._approvals = approvals

    def _run_ids(self, text: str) -> tuple[str, ...]:
        """Returns the run of that name or id, or those of a group; none where nothing is named."""
        if not text:
            return ()
        register = self._runner.register
        members = [run.run_id for run in register.runs() if naming.is_of_group(run, text)]
        return tuple(members) or (register.find(text).run.run_id,)

    async def ListApprovals(
        self, request: pb.ListApprovalsRequest, context: Any
    ) -> pb.ListApprovalsResponse:
        """Lists the approvals that are waited for, oldest first."""
        found = self._approvals.list(*self._run_ids(request.run))
        return pb.ListApprovalsResponse(
            approvals=[messages.format_approval(one) for one in found[:4096]]
        )

    async def WatchApprovals(
        self, request: pb.WatchApprovalsRequest, context: Any
    ) -> AsyncIterator[pb.WatchApprovalsResponse]:
        """Tells the approvals that are waited for, then what changes."""
        events = self._approvals.watch(*self._run_ids(request.run))
        async with contextlib.aclosing(events):
            async for event in events:
                yield messages.format_event(event)

    async def AnswerApproval(
        self, request: pb.AnswerApprovalRequest, context: Any
    ) -> pb.AnswerApprovalResponse:
        """Answers an approval for this run."""
        if request.verdict not in (Verdict.ALLOW, Verdict.DENY):
            raise RequestInvalid("`verdict` is neither `allow` nor `deny`")
        approval = self._approvals.answer(
            request.approval_id, allow=request.verdict == Verdict.ALLOW
        )
        return pb.AnswerApprovalResponse(approval=messages.format_approval(approval))

    async def GetRunPolicy(
        self, request: pb.GetRunPolicyRequest, context: Any
    ) -> pb.GetRunPolicyResponse:
        """Says what holds for a run, and where that stands."""
        life = self._runner.register.find(request.run)
        policy = life.boundary.policy
        loaded = await policy.current()
        return pb.GetRunPolicyResponse(
            run_id=life.run.run_id,
            path=str(policy.path),
            is_own=policy.is_own,
            text=loaded.text.decode(errors="replace"),
            problem=policy.problem,
        )

    async def UpdateRunPolicy(
        self, request: pb.UpdateRunPolicyRequest, context: Any
    ) -> pb.UpdateRunPolicyResponse:
        """Replaces the policy of a run that has a file of its own."""
        text = request.text.encode()
        if len(text) > _POLICY_MOST:
            raise LimitExceeded("a policy has at most 1 MiB")
        await self._runner.register.find(request.run).boundary.policy.replace(text)
        return pb.UpdateRunPolicyResponse()

    async def ReadEgress(
        self, request: pb.ReadEgressRequest, context: Any
    ) -> AsyncIterator[pb.ReadEgressResponse]:
        """Reads what was decided for a run, and follows it where asked for."""
        life = self._runner.register.find(request.run)
        records = life.boundary.audit.records(
            request.after_sequence, follow=request.follow and not lifecycle.is_over(life.run)
        )
        async with contextlib.aclosing(records):
            async for record in records:
                yield pb.ReadEgressResponse(record=messages.format_record(record))

    async def ReadAudit(
        self, request: pb.ReadAuditRequest, context: Any
    ) -> AsyncIterator[pb.ReadAuditResponse]:
        """Streams a run's audit log, byte for byte."""
        async for data in self._runner.register.find(request.run).boundary.audit.read():
            yield pb.ReadAuditResponse(data=data)
