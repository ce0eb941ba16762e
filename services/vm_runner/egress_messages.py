"""Egress values ↔ messages of `lns.egress.v1`."""

from collections.abc import Mapping

from google.protobuf.timestamp_pb2 import Timestamp
from lns.egress.v1 import egress_service_pb2 as pb
from lns.vm.v1 import vm_service_pb2 as vm_pb

from services.vm_runner import messages
from services.vm_runner.boundary.approvals import Approval, ApprovalKind, Outcome, Settled
from services.vm_runner.boundary.records import EgressRecord
from services.vm_runner.node_events import NodeEvent

_KINDS: Mapping[ApprovalKind, pb.Approval.Kind.ValueType] = {
    ApprovalKind.CONNECTION: pb.Approval.KIND_CONNECTION,
    ApprovalKind.CREDENTIAL: pb.Approval.KIND_CREDENTIAL,
}
_OUTCOMES: Mapping[Outcome, pb.ApprovalSettled.Outcome.ValueType] = {
    Outcome.ALLOWED: pb.ApprovalSettled.OUTCOME_ALLOWED,
    Outcome.DENIED: pb.ApprovalSettled.OUTCOME_DENIED,
    Outcome.EXPIRED: pb.ApprovalSettled.OUTCOME_EXPIRED,
    Outcome.WITHDRAWN: pb.ApprovalSettled.OUTCOME_WITHDRAWN,
}


def format_approval(approval: Approval) -> pb.Approval:
    """Returns the message of an approval."""
    question = approval.question
    message = pb.Approval(
        approval_id=approval.approval_id,
        run_id=question.run_id,
        run_name=approval.run_name,
        kind=_KINDS[question.kind],
        host=question.host,
        port=question.port,
        integration=question.integration,
        waiting_count=approval.waiting,
        note=approval.note,
        origin=approval.origin,
    )
    message.create_time.FromDatetime(approval.create_time)
    message.expire_time.FromDatetime(approval.expire_time)
    return message


def format_event(event: Approval | Settled) -> pb.WatchApprovalsResponse:
    """Returns the message of what happened to an approval."""
    if isinstance(event, Approval):
        return pb.WatchApprovalsResponse(asked=format_approval(event))
    return pb.WatchApprovalsResponse(
        settled=pb.ApprovalSettled(approval_id=event.approval_id, outcome=_OUTCOMES[event.outcome])
    )


def format_record(record: EgressRecord) -> pb.EgressRecord:
    """Returns the message of a record."""
    time = Timestamp()
    time.FromDatetime(record.time)
    return pb.EgressRecord(
        sequence=record.sequence,
        event_time=time,
        kind=record.kind,
        verdict=record.verdict,
        host=record.host,
        port=record.port,
        address=record.address,
        method=record.method,
        path=record.path,
        rule=record.rule,
        origin=record.origin,
        reason=record.reason,
        how_to_allow=record.how_to_allow,
        connection=record.connection,
        sent_bytes=record.sent_bytes,
        received_bytes=record.received_bytes,
        integration=record.integration,
        model=record.model,
        input_tokens=record.input_tokens,
        output_tokens=record.output_tokens,
        cost=record.cost,
    )


def format_node_event(event: NodeEvent) -> vm_pb.WatchEventsResponse:
    """Returns the message of something that happened to a run, or to what it reaches."""
    message = vm_pb.WatchEventsResponse(run_id=event.run.run_id, run_name=event.run.name)
    if event.happened is not None:
        message.run.CopyFrom(messages.format_event(event.happened))
    if event.decided is not None:
        message.egress.CopyFrom(format_record(event.decided))
    return message
