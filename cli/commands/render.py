"""`lns render`: runs as manifests of other systems."""

import asyncio
from pathlib import Path
from typing import Any

import click
from lns.resolver.v1 import resolver_service_pb2 as pb

from cli.context import Context, subcommand
from cli.options import WorkloadCommand, plan_options
from cli.render.text import to_yaml_blocks
from lns.client.connection.config import load_config
from lns.client.connection.session import Peer, Session, open_session
from lns.client.kubernetes import CLIENT_IMAGE, JobOrder, job_manifests
from lns.client.running.request import PlanFlags, resolve_request
from services.core.errors import RequestInvalid

_REPEATED = {"mount": "--mount", "volume": "-v", "publish": "-p", "label": "-l"}
_SINGLE = {
    "cpus": "--cpus",
    "memory": "-m",
    "disk": "--disk",
    "workdir": "-w",
    "user": "-u",
    "entrypoint": "--entrypoint",
    "platform": "--platform",
}


@click.group("render", short_help="Write a run as a manifest of another system")
def render() -> None:
    """Write a run as a manifest of another system, which runs it with lns on its nodes."""


@subcommand(
    render,
    "kubernetes",
    doing="render {reference}",
    cls=WorkloadCommand,
    short_help="Write a Job that runs REF on a node of a cluster",
)
@click.argument("reference", metavar="[REF]", required=False)
@plan_options
@click.option(
    "-n", "--namespace", default="default", show_default=True, metavar="NAME", help="Of the Job."
)
@click.option(
    "--client-image",
    default=CLIENT_IMAGE,
    show_default=True,
    metavar="REF",
    help="Image with the lns command, which the cluster pulls.",
)
async def kubernetes(
    context: Context, reference: str | None, namespace: str, client_image: str, **plan_flags: Any
) -> None:
    """Write a Job that runs REF, or what --locked names, on a node of a cluster.

    The digests of all that it runs are in it. The pod requests the size of the machine; a group
    runs on one node. Variables and arguments stand in the Job in clear text.
    """
    flags = PlanFlags(**plan_flags)
    request = resolve_request(
        flags,
        reference=reference,
        argv=context.workload,
        environment=context.environment,
        config=load_config(context),
    )
    if request.HasField("imageless"):
        raise RequestInvalid(
            "a machine without an image has nothing that a cluster could pin",
            hint="name a reference, or a lock with --locked",
        )
    if reference is None:
        context.doing = f"render {flags.locked}"
    async with open_session(context, Peer.RESOLVER, Peer.REGISTRY_GATEWAY) as session:
        plans = (await session.resolver.Resolve(request)).plans
        lock = request.lock or await _lock(session, request)
    policy = "" if flags.policy is None else await asyncio.to_thread(_text, flags.policy)
    order = JobOrder(
        name=flags.name or plans[0].group or plans[0].name,
        namespace=namespace,
        plans=plans,
        lock=lock,
        arguments=_arguments(context, flags, request),
        policy=policy,
        image=client_image,
    )
    for number, manifest in enumerate(job_manifests(order)):
        if number:
            context.write("---")
        context.write(to_yaml_blocks(manifest).rstrip("\n"))


async def _lock(session: Session, request: pb.ResolveRequest) -> bytes:
    locking = pb.LockRequest(reference=request.reference, emulate_foreign=request.emulate_foreign)
    if request.HasField("platform"):
        locking.platform.CopyFrom(request.platform)
    return (await session.resolver.Lock(locking)).lock


def _arguments(context: Context, flags: PlanFlags, request: pb.ResolveRequest) -> list[str]:
    """The flags that are left for `lns run` in the pod: the lock has what the reference brings."""
    single = [(flag, getattr(flags, name)) for name, flag in _SINGLE.items()]
    repeated = [(flag, value) for name, flag in _REPEATED.items() for value in getattr(flags, name)]
    variables = [("-e", f"{one.name}={one.value}") for one in request.overrides.env]
    given = [
        text
        for flag, value in (*single, *repeated, *variables)
        if value is not None
        for text in (flag, value)
    ]
    return [*given, "--", *context.workload] if context.workload else given


def _text(file: Path) -> str:
    return file.read_text(encoding="utf-8")
