"""`lns inspect`: a run, a group, or what a reference names."""

import json
from typing import Any

import click
from lns.registry.v1 import registry_service_pb2 as registry_pb
from lns.vm.v1 import vm_service_pb2 as vm_pb

from cli.context import Context, command
from cli.errors import way_out
from cli.options import platform_option
from cli.render.messages import to_document
from cli.render.output import write_document
from lns.client.connection.session import Peer, Session, open_session
from lns.client.running.members import members_of
from lns.client.running.request import parse_platform
from services.core.errors import LnsError, RunUnknown


@command("inspect", doing="inspect {name}")
@click.argument("name", metavar="RUN|REF")
@click.option(
    "--type",
    "kind",
    type=click.Choice(["run", "reference"]),
    help="What NAME is. [default: try a run, then a reference]",
)
@platform_option
@click.option("--format", "form", metavar="FORMAT", help="json or a template. [default: json]")
async def inspect(
    context: Context, name: str, kind: str | None, platform: str | None, form: str | None
) -> None:
    """Describe a run or a group; or manifest, config, sizes and platforms behind a reference."""
    may_be_run = kind == "run" or (kind is None and not set(name) & set("/:@"))
    document = None
    if may_be_run:
        async with open_session(context, Peer.VM_RUNNER) as session:
            document = await _run(session, name, is_certain=kind == "run")
    if document is None:
        async with open_session(context, Peer.REGISTRY_GATEWAY) as session:
            try:
                document = await describe_reference(session, name, platform)
            except LnsError as error:
                if may_be_run:
                    error.hint = (
                        f"`lns ps -a` lists the runs, none has that name; else: {way_out(error)}"
                    )
                raise
    write_document(document, form=form, write=context.write)


async def _run(session: Session, name: str, *, is_certain: bool) -> dict[str, Any] | None:
    try:
        response = await session.vm.GetRun(vm_pb.GetRunRequest(run=name))
    except RunUnknown:
        runs = await members_of(session.vm, name) if name else []
        if runs:
            group = to_document(runs[0].group)
            return {"group": group, "runs": [to_document(run, words=True) for run in runs]}
        if is_certain:
            raise
        return None
    return to_document(response.run, words=True)


async def describe_reference(
    session: Session, reference: str, platform: str | None
) -> dict[str, Any]:
    """Returns what the gateway knows of a reference, with manifest and config as documents."""
    response = await session.registry.InspectManifest(
        registry_pb.InspectManifestRequest(reference=reference, platform=parse_platform(platform))
    )
    return {
        "reference": response.reference,
        "digest": response.descriptor.digest,
        "media_type": response.descriptor.media_type,
        "family": response.family or None,
        "total_bytes": response.total_bytes,
        "platforms": [to_document(one) for one in response.platforms],
        "manifest": json.loads(response.manifest),
        "config": json.loads(response.config) if response.config else None,
    }
