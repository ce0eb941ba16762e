"""From a reference to a created run: resolve, pull what the plan needs, materialize, create.

Forward only, each step the client's own call. The services keep what was done when a later step
fails: the next attempt is the faster for it.
"""

import asyncio
from collections.abc import AsyncIterable, Sequence
from dataclasses import dataclass
from typing import Any

from lns.materializer.v1 import materializer_service_pb2 as materializer_pb
from lns.registry.v1 import registry_service_pb2 as registry_pb
from lns.resolver.v1 import resolver_service_pb2 as resolver_pb
from lns.types.v1 import run_plan_pb2
from lns.vm.v1 import run_pb2
from lns.vm.v1 import vm_service_pb2 as vm_pb

from cli.render.phases import Phases
from cli.render.progress import Reporter
from cli.run.ports import Gateway, Materializer, Resolver, Runner
from services.chassis.tasks import together
from services.core.errors import ServiceUnavailable, Unimplemented


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """What a person asks to be run.

    Attributes:
        resolve: what to resolve, with the flags that the resolver judges.
        options: the flags that the runner judges.
        pull: when registries are asked for blobs.
        request_id: makes the creation idempotent.
        subject: how the reference is called in messages.
    """

    resolve: resolver_pb.ResolveRequest
    options: run_pb2.RunOptions
    pull: registry_pb.PullMode.ValueType
    request_id: str
    subject: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Services:
    """The four services."""

    resolver: Resolver
    gateway: Gateway
    materializer: Materializer
    runner: Runner


async def launch(
    order: Order, services: Services, *, reporter: Reporter, phases: Phases
) -> run_pb2.Run:
    """Returns the run that `order` asks for, created and starting.

    Raises:
        LnsError: as the services gave it; nothing was created then.
    """
    reporter.doing(f"resolving {order.subject}")
    with phases.measure("resolved"):
        plan = await resolve_one(order, services.resolver)
    for warning in plan.warnings:
        reporter.note(f"lns: {warning}")
    image = ""
    if plan.HasField("image") or plan.mounts:
        reporter.doing(f"pulling {plan.image.requested or plan.name}")
        with phases.measure("pulled"):
            await pull_all(_needed(plan), order.pull, services.gateway, reporter)
        reporter.doing(f"materializing {plan.name}")
        with phases.measure("materialized"):
            result = await materialize(plan, services.materializer, reporter)
        for warning in result.warnings:
            reporter.note(f"lns: {warning}")
        image = result.image.composefs_digest
    reporter.doing(f"starting {plan.name}")
    return await _create(
        vm_pb.CreateRunRequest(
            request_id=order.request_id, plan=plan, image_digest=image, options=order.options
        ),
        services.runner,
    )


async def resolve_one(order: Order, resolver: Resolver) -> run_plan_pb2.RunPlan:
    """Returns the one plan of a reference, if it can be run.

    Raises:
        Unimplemented: it has a workflow, or several agents.
        LnsError: as the resolver gave it.
    """
    response = await resolver.Resolve(order.resolve)
    if len(response.plans) != 1:
        raise Unimplemented(
            f"{order.subject} has {len(response.plans)} agents; this version runs bundles of one",
            hint="run its agents one by one; `lns resolve` lists them",
        )
    plan = response.plans[0]
    if plan.has_workflow:
        raise Unimplemented(
            f"{order.subject} has a workflow, which lns carries and does not run",
            hint="run its agent by its own reference",
        )
    return plan


async def pull_all(
    references: Sequence[str],
    mode: registry_pb.PullMode.ValueType,
    gateway: Gateway,
    reporter: Reporter,
) -> None:
    """Pulls references side by side; the first failure ends the others.

    Raises:
        LnsError: as the gateway gave it.
    """
    await together(
        [_pull(reference, mode, gateway, reporter) for reference in dict.fromkeys(references)]
    )


async def materialize(
    plan: run_plan_pb2.RunPlan, materializer: Materializer, reporter: Reporter
) -> materializer_pb.MaterializeResult:
    """Makes the image of a plan, its mounts in it.

    Raises:
        LnsError: as the materializer gave it.
    """
    request = materializer_pb.MaterializeRequest(
        manifest_digest=plan.image.manifest.digest,
        mounts=[
            materializer_pb.Mount(
                family=mount.family,
                manifest_digest=mount.manifest.digest,
                path=mount.path,
                read_only=mount.read_only,
            )
            for mount in plan.mounts
        ],
    )
    result: materializer_pb.MaterializeResult = await last_result(
        materializer.Materialize(request), reporter, "the materializer"
    )
    return result


async def last_result(stream: AsyncIterable[Any], reporter: Reporter, service: str) -> Any:
    """Reports the progress in a stream and returns the result that ends it.

    Raises:
        ServiceUnavailable: the stream ended without a result, so nothing was done.
    """
    result = None
    async for response in stream:
        if response.HasField("result"):
            result = response.result
        else:
            reporter.progress(response.progress)
    if result is None:
        raise ServiceUnavailable(f"{service} ended its answer without a result", hint="try again")
    return result


def _needed(plan: run_plan_pb2.RunPlan) -> list[str]:
    image = [plan.image.reference] if plan.HasField("image") else []
    return image + [mount.reference for mount in plan.mounts]


async def _pull(
    reference: str, mode: registry_pb.PullMode.ValueType, gateway: Gateway, reporter: Reporter
) -> None:
    request = registry_pb.PullRequest(reference=reference, mode=mode)
    await last_result(gateway.Pull(request), reporter, "the registry gateway")


async def _create(request: vm_pb.CreateRunRequest, runner: Runner) -> run_pb2.Run:
    """Creates the run; a client that is interrupted meanwhile takes the run back."""
    creating = asyncio.ensure_future(_created(request, runner))
    try:
        return await asyncio.shield(creating)
    except asyncio.CancelledError:
        run = await creating
        await runner.RemoveRun(vm_pb.RemoveRunRequest(run=run.run_id, force=True))
        raise


async def _created(request: vm_pb.CreateRunRequest, runner: Runner) -> run_pb2.Run:
    return (await runner.CreateRun(request)).run
