"""What was decided for a run, as lines for users."""

from collections.abc import AsyncIterator
from typing import TYPE_CHECKING

from google.protobuf import json_format
from lns.egress.v1 import egress_service_pb2 as pb

from cli.render.text import format_size, printable

if TYPE_CHECKING:
    from lns.egress.v1.egress_service_pb2_grpc import EgressServiceStub


async def read_records(
    egress: "EgressServiceStub", run: str, *, follow: bool
) -> AsyncIterator[pb.EgressRecord]:
    """Yields the records of a run, oldest first.

    Raises:
        RunUnknown: there is no such run.
    """
    async for response in egress.ReadEgress(pb.ReadEgressRequest(run=run, follow=follow)):
        yield response.record


def record_line(record: pb.EgressRecord) -> str:
    """Returns a record as a line."""
    time = record.event_time.ToDatetime().strftime("%H:%M:%S")
    where = _where(record)
    parts = [time, record.verdict or record.kind, where]
    if record.kind == "request":
        parts.append(f"{record.method} {record.path}")
    if record.kind == "closed":
        parts.append(
            f"{format_size(record.sent_bytes)} sent, {format_size(record.received_bytes)} received"
        )
    if record.kind == "usage":
        parts.append(_usage(record))
    if record.reason:
        parts.append(f"- {record.reason}")
    if record.how_to_allow:
        parts.append(f"[{record.how_to_allow}]")
    return printable("  ".join(part for part in parts if part))


def _usage(record: pb.EgressRecord) -> str:
    tokens = f"{record.input_tokens} tokens read, {record.output_tokens} written"
    has_tokens = record.input_tokens or record.output_tokens
    told = [record.integration, record.model, tokens if has_tokens else "", record.cost]
    return ", ".join(one for one in told if one)


def record_document(record: pb.EgressRecord) -> dict[str, object]:
    """Returns a record for machines."""
    document: dict[str, object] = json_format.MessageToDict(
        record, preserving_proto_field_name=True
    )
    return document


def _where(record: pb.EgressRecord) -> str:
    if not record.host:
        return record.origin
    host = f"[{record.host}]" if ":" in record.host else record.host
    where = f"{host}:{record.port}" if record.port else host
    return f"{where} ({record.address})" if record.address not in ("", record.host) else where
