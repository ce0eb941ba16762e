"""Makes records of decisions and of a worker's reports. Pure."""

from services.core.budgets.limits import BudgetUnit, format_amount
from services.core.egress.hosts import Host
from services.vm_runner.boundary.decider import Ruling
from services.vm_runner.boundary.records import EgressRecord, RecordKind
from services.vm_runner.egress_worker.reports import Closed, RequestDecided, RequestVerdict, Usage


def record_of(
    ruling: Ruling,
    host: Host,
    port: int,
    *,
    verdict: str,
    address: str = "",
    connection: int = 0,
) -> EgressRecord:
    """Returns the record of what became of a connection that was asked for.

    Args:
        ruling: why.
        host: that was asked for.
        port: that was asked for.
        verdict: what became of it; an allowed one may still have failed to connect.
        address: that was dialled, or refused.
        connection: its number; 0 if none was made.
    """
    opinion = ruling.decision.opinion
    return EgressRecord(
        kind=RecordKind.CONNECTION,
        verdict=verdict,
        host=str(host),
        port=port,
        address=address,
        rule=opinion.route.match if opinion is not None and opinion.route else "",
        origin=ruling.decision.place,
        reason=ruling.reason,
        how_to_allow=ruling.how_to_allow if verdict == "deny" else "",
        connection=connection,
    )


def request_record(told: RequestDecided, host: str, port: int) -> EgressRecord:
    """Returns the record of a request that a worker decided by its rules."""
    denied = told.verdict is RequestVerdict.DENIED
    return EgressRecord(
        kind=RecordKind.REQUEST,
        verdict="deny" if denied else "allow",
        host=host,
        port=port,
        method=told.method,
        path=told.path,
        rule=told.rule,
        reason=f"refused: {told.reason}" if denied else "",
        connection=told.connection,
    )


def usage_record(
    told: Usage, host: str, port: int, integration: str, picodollars: int
) -> EgressRecord:
    """Returns the record of what a request cost an integration."""
    read = told.input_tokens + told.cache_read_tokens
    return EgressRecord(
        kind=RecordKind.USAGE,
        host=host,
        port=port,
        integration=integration,
        model=told.model,
        input_tokens=read + told.cache_write_tokens + told.cache_write_long_tokens,
        output_tokens=told.output_tokens,
        cost=format_amount(BudgetUnit.COST, picodollars) if picodollars else "",
        reason="what it used was not reported" if told.unread else "",
        connection=told.connection,
        sent_bytes=told.sent,
        received_bytes=told.received,
    )


def closed_record(told: Closed, host: str, port: int, address: str) -> EgressRecord:
    """Returns the record of a connection's end."""
    return EgressRecord(
        kind=RecordKind.CLOSED,
        host=host,
        port=port,
        address=address,
        reason=": ".join(part for part in (str(told.reason), told.text) if part),
        connection=told.connection,
        sent_bytes=told.sent,
        received_bytes=told.received,
    )
