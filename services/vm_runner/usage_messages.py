"""What runs use → messages of `lns.vm.v1`."""

from lns.vm.v1 import run_pb2 as pb

from services.core.budgets.limits import BudgetLimit, BudgetUnit, format_amount
from services.core.budgets.spending import Spending, standing_text
from services.vm_runner import messages
from services.vm_runner.records.runs import RunUsage


def format_usage(usage: RunUsage) -> pb.RunStats:
    """Returns the message of what a run uses."""
    return pb.RunStats(
        run_id=usage.run.run_id,
        name=usage.run.name,
        cpu_time=messages.format_span(usage.cpu_time),
        memory_bytes=usage.memory_bytes,
        memory_limit_bytes=usage.run.plan.resources.memory_mib << 20,
        disk_bytes=usage.disk_bytes,
        channel_in_bytes=usage.channel_in_bytes,
        channel_out_bytes=usage.channel_out_bytes,
        pids=usage.pids,
        sample_time=messages.format_time(usage.sample_time),
        services=[
            _format_service(name, spending, limits)
            for name, (spending, limits) in usage.services.items()
        ],
    )


def _format_service(
    integration: str, spending: Spending, limits: tuple[BudgetLimit, ...]
) -> pb.ServiceUse:
    cost = spending.picodollars
    return pb.ServiceUse(
        integration=integration,
        requests=spending.requests,
        sent_bytes=spending.sent_bytes,
        received_bytes=spending.received_bytes,
        input_tokens=spending.tokens.total - spending.tokens.output,
        output_tokens=spending.tokens.output,
        cost=format_amount(BudgetUnit.COST, cost) if cost else "",
        limits=[standing_text(limit, spending) for limit in limits],
        unknown=spending.unknown(BudgetUnit.COST),
    )
