"""From a reference to a created run: resolve, pull what the plan needs, materialize, create.

Forward only, each step the client's own call. The services keep what was done when a later step
fails: the next attempt is the faster for it.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lns.materializer.v1 import materializer_service_pb2 as materializer_pb
from lns.registry.v1 import registry_service_pb2 as registry_pb
from lns.resolver.v1 import resolver_service_pb2 as resolver_pb
from lns.types.v1 import run_plan_pb2
from lns.vm.v1 import run_pb2
from lns.vm.v1 import vm_service_pb2 as vm_pb

from lns.client.running.members import members_of, remove_all, start_all
from lns.client.running.ports import Gateway, Materializer, Resolver, Runner
from lns.client.running.reporting import Progress, Timer
from services.chassis.edited_files import edit_file
from services.chassis.tasks import settle, together
from services.core.errors import RequestInvalid, ServiceUnavailable, Unimplemented
from services.core.policy_edit import NEW_POLICY
from services.core.policy_file import parse_policy_file


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """What a person asks to be run.

    Attributes:
        resolve: what to resolve, with the flags that the resolver judges.
        options: the flags that the runner judges.
        pull: when registries are asked for blobs.
        request_id: 32 hexadecimal digits; makes the creation idempotent, and is the id of a group.
        subject: how the reference is called in messages.
        start: whether the runs are started, not only recorded.
        policy_file: that a person named for these runs; None where nobody did.
        project_policy: of the project, for runs that no bundle brings a policy for.
        from_snapshot: of a run, that this one goes on from; empty for one that begins anew.
        keep_policy: whether it then has the policy and credentials of the snapshot's run.
    """

    resolve: resolver_pb.ResolveRequest
    options: run_pb2.RunOptions
    pull: registry_pb.PullMode.ValueType
    request_id: str
    subject: str
    start: bool = True
    policy_file: Path | None = None
    project_policy: Path | None = None
    from_snapshot: str = ""
    keep_policy: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Services:
    """The four services."""

    resolver: Resolver
    gateway: Gateway
    materializer: Materializer
    runner: Runner
    runner_elsewhere: str = ""
    """The address of the runner where that is another machine."""


async def launch(
    order: Order, services: Services, *, reporter: Progress, phases: Timer
) -> list[run_pb2.Run]:
    """Returns the runs that `order` asks for, several for a group: created, and starting if wanted.

    Raises:
        LnsError: as the services gave it; nothing was created then, or nothing is left.
    """
    _check_binds(order, services.runner_elsewhere)
    plans, images = await prepare(order, services, reporter=reporter, phases=phases)
    verb = "starting" if order.start else "recording"
    names = order.subject if order.from_snapshot else ", ".join(plan.name for plan in plans)
    reporter.doing(f"{verb} {names}")
    requests = _create_requests(order, plans, images)
    if len(requests) == 1:
        return [await _create(requests[0], services.runner)]
    await _note_leftovers(order.options.name or plans[0].group, services.runner, reporter)
    runs = await _create_group(requests, services.runner)
    return await start_all(runs, services.runner) if order.start else runs


def _check_binds(order: Order, elsewhere: str) -> None:
    """Refuses what would mount files of another machine than the user means.

    Raises:
        RequestInvalid: a host path is to be mounted, and the runner is on another machine.
    """
    found = [one for one in order.resolve.overrides.volumes if one.startswith("/")]
    if found and elsewhere:
        raise RequestInvalid(
            f"{found[0].partition(':')[0]} is on this machine, and the run will be at {elsewhere}",
            hint="`lns cp` copies files into a run, a named volume (`-v NAME:/path`) keeps them"
            " there, and `lns push --content` makes a file set of them",
        )


async def prepare(
    order: Order, services: Services, *, reporter: Progress, phases: Timer
) -> tuple[Sequence[run_plan_pb2.RunPlan], Sequence[str]]:
    """Returns the plans of an order, and the digest of each one's image, which is on the node.

    Raises:
        LnsError: as the services gave it.
    """
    reporter.doing(f"resolving {order.subject}")
    with phases.measure("resolved"):
        plans = await resolve_all(order, services.resolver)
    for warning in dict.fromkeys(warning for plan in plans for warning in plan.warnings):
        reporter.note(f"lns: {warning}")
    for wish in dict.fromkeys(wish for plan in plans for wish in _published(plan)):
        reporter.note(f"lns: {wish}")
    images = [""] * len(plans)
    if any(map(_needs_image, plans)):
        names = ", ".join(dict.fromkeys(plan.image.requested or plan.name for plan in plans))
        reporter.doing(f"pulling {names}")
        with phases.measure("pulled"):
            references = [reference for plan in plans for reference in _needed(plan)]
            await pull_all(references, order.pull, services.gateway, reporter)
            await name_images(plans, services.gateway)
        reporter.doing(f"materializing {', '.join(plan.name for plan in plans)}")
        with phases.measure("materialized"):
            images = [await _image(plan, services.materializer, reporter) for plan in plans]
    return plans, images


async def resolve_all(order: Order, resolver: Resolver) -> Sequence[run_plan_pb2.RunPlan]:
    """Returns the plans of a reference, if they can be run.

    Raises:
        Unimplemented: it has a workflow.
        RequestInvalid: it has several agents, and a flag is for one.
        LnsError: as the resolver gave it.
    """
    plans = (await resolver.Resolve(order.resolve)).plans
    if not plans:
        raise ServiceUnavailable(f"the resolver gave no plan for {order.subject}")
    if any(plan.has_workflow for plan in plans):
        raise Unimplemented(
            f"{order.subject} has a workflow, which lns carries and does not run",
            hint="run its agent by its own reference",
        )
    if len(plans) > 1 and (order.options.tty or order.options.stdin):
        raise RequestInvalid(
            f"{order.subject} has {len(plans)} agents, and -i and -t connect the terminal to one",
            hint="leave -i and -t out; `lns exec -i -t NAME sh` gives a terminal in one of them",
        )
    return plans


def made_policy(path: Path) -> Path | None:
    """Returns the project's policy file, made if it is missing; None where it cannot be made.

    Raises:
        ArtifactInvalid: the file exists and is not a policy.
        LimitExceeded: it is larger than 1 MiB.
    """

    def change(text: bytes) -> bytes:
        parse_policy_file(text, name=path.name)
        return text or NEW_POLICY.encode()

    with contextlib.suppress(OSError):
        edit_file(path, change)
        return path
    return path if path.exists() else None


def _create_requests(
    order: Order, plans: Sequence[run_plan_pb2.RunPlan], images: Sequence[str]
) -> list[vm_pb.CreateRunRequest]:
    """Returns the requests that make a run of each plan; several are one group, not started."""
    if len(plans) == 1:
        return [
            vm_pb.CreateRunRequest(
                request_id=order.request_id,
                plan=plans[0],
                image_digest=images[0],
                options=_options(order, plans[0]),
                do_not_start=not order.start,
                from_snapshot=order.from_snapshot,
                keep_policy=order.keep_policy,
            )
        ]
    group = run_pb2.RunGroup(
        id=order.request_id,
        name=order.options.name,
        members=[plan.member for plan in plans],
    )
    return [
        vm_pb.CreateRunRequest(
            request_id=f"{order.request_id}-{number}",
            plan=plan,
            image_digest=image,
            options=_options(order, plan, is_member=True),
            do_not_start=True,
            group=group,
        )
        for number, (plan, image) in enumerate(zip(plans, images, strict=True))
    ]


def _options(
    order: Order, plan: run_plan_pb2.RunPlan, *, is_member: bool = False
) -> run_pb2.RunOptions:
    """Returns the options of one run; its policy file is the one named, or the project's."""
    options = run_pb2.RunOptions()
    options.CopyFrom(order.options)
    if is_member:
        options.ClearField("name")
    policy = order.policy_file
    if order.keep_policy:
        return options
    if policy is None and order.project_policy is not None and not plan.HasField("policy"):
        policy = made_policy(order.project_policy)
    if policy is not None:
        options.policy_file = str(policy)
    return options


async def pull_all(
    references: Sequence[str],
    mode: registry_pb.PullMode.ValueType,
    gateway: Gateway,
    reporter: Progress,
) -> None:
    """Pulls references side by side; the first failure ends the others.

    Raises:
        LnsError: as the gateway gave it.
    """
    await together(
        [_pull(reference, mode, gateway, reporter) for reference in dict.fromkeys(references)]
    )


async def name_images(plans: Sequence[run_plan_pb2.RunPlan], gateway: Gateway) -> None:
    """Gives the images of plans in the store the names that they were asked for by.

    Raises:
        LnsError: as the gateway gave it.
    """
    names = {
        plan.image.requested: plan.image.reference
        for plan in plans
        if plan.image.requested and "@" not in plan.image.requested
    }
    for name, reference in names.items():
        await gateway.TagStoredImage(
            registry_pb.TagStoredImageRequest(source=reference, target=name)
        )


async def materialize(
    plan: run_plan_pb2.RunPlan, materializer: Materializer, reporter: Progress
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


async def last_result(stream: AsyncIterable[Any], reporter: Progress, service: str) -> Any:
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


async def _image(plan: run_plan_pb2.RunPlan, materializer: Materializer, reporter: Progress) -> str:
    if not _needs_image(plan):
        return ""
    result = await materialize(plan, materializer, reporter)
    for warning in result.warnings:
        reporter.note(f"lns: {warning}")
    return result.image.composefs_digest


def _published(plan: run_plan_pb2.RunPlan) -> Iterator[str]:
    """What an artifact publishes on this machine: nobody asked for it on the command line."""
    kinds = {origin.path: origin.kind for origin in plan.origins}
    if kinds.get("ports") == run_plan_pb2.ORIGIN_KIND_AGENT:
        for port in plan.ports:
            place = f"{port.host_ip}:{port.host_port or 'a free port'}"
            yield f"the agent of {plan.name} publishes {place} for its port {port.container_port}"


def _needs_image(plan: run_plan_pb2.RunPlan) -> bool:
    return plan.HasField("image") or bool(plan.mounts)


def _needed(plan: run_plan_pb2.RunPlan) -> list[str]:
    image = [plan.image.reference] if plan.HasField("image") else []
    return image + [mount.reference for mount in plan.mounts]


async def _pull(
    reference: str, mode: registry_pb.PullMode.ValueType, gateway: Gateway, reporter: Progress
) -> None:
    request = registry_pb.PullRequest(reference=reference, mode=mode)
    await last_result(gateway.Pull(request), reporter, "the registry gateway")


async def _note_leftovers(group: str, runner: Runner, reporter: Progress) -> None:
    """Tells of runs of a group's name that were never started: their client was killed."""
    runs = await members_of(runner, group) if group else []
    if runs and all(run.state == run_pb2.Run.STATE_CREATED for run in runs):
        reporter.note(
            f"lns: the runs of group {group} were created but not started;"
            f" `lns start {group}` starts them, `lns rm {group}` removes them"
        )


async def _create_group(
    requests: Sequence[vm_pb.CreateRunRequest], runner: Runner
) -> list[run_pb2.Run]:
    """Creates the runs of a group; of one that cannot be, nothing is left."""
    created: list[run_pb2.Run] = []
    try:
        for request in requests:
            run = await _create(request, runner)
            created.append(run)
    except BaseException:
        await settle(asyncio.ensure_future(remove_all(created, runner)))
        raise
    return created


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
