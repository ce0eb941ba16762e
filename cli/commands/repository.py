"""`lns tags`, `lns referrers`, `lns delete`: what repositories of registries have."""

import sys

import click
from lns.registry.v1 import registry_service_pb2 as pb

from cli.context import Context, command
from cli.options import format_option
from cli.paging import PAGE_SIZE, every
from cli.render.messages import to_document
from cli.render.output import columns, write_rows
from cli.render.text import format_size, printable
from lns.client.connection.session import Peer, open_session

_TAG_COLUMNS = columns(tag="TAG")
_REFERRER_COLUMNS = columns(type="TYPE", digest="DIGEST", size="SIZE")


@command("tags", doing="list the tags of {repository}")
@click.argument("repository", metavar="REPOSITORY")
@format_option
async def tags(context: Context, repository: str, form: str | None) -> None:
    """List the tags of REPOSITORY at its registry, one a line, sorted."""
    request = pb.ListTagsRequest(repository=repository, page_size=PAGE_SIZE)
    async with open_session(context, Peer.REGISTRY_GATEWAY) as session:
        found = [
            {"tag": tag}
            async for tag in every(session.registry.ListTags, request, lambda page: page.tags)
        ]
    if form is None:  # one a line, for other programs
        for row in found:
            context.write(printable(row["tag"]))
    else:
        write_rows(found, _TAG_COLUMNS, form=form, write=context.write)


@command("referrers", doing="list what refers to {reference}")
@click.argument("reference", metavar="REF")
@click.option("--artifact-type", default="", metavar="TYPE", help="Only what has this type.")
@format_option
async def referrers(context: Context, reference: str, artifact_type: str, form: str | None) -> None:
    """List what refers to REF at its registry: signatures, SBOMs, attestations and the like."""
    request = pb.ListReferrersRequest(reference=reference, artifact_type=artifact_type)
    async with open_session(context, Peer.REGISTRY_GATEWAY) as session:
        response = await session.registry.ListReferrers(request)
    whole = form not in (None, "", "table")
    rows = [
        to_document(one)
        | {
            "type": one.artifact_type or one.media_type,
            "size": one.size_bytes if whole else format_size(one.size_bytes),
        }
        for one in response.referrers
    ]
    write_rows(rows, _REFERRER_COLUMNS, form=form, write=context.write)


@command("delete", doing="delete {reference}")
@click.argument("reference", metavar="REF")
@click.option("-f", "--force", is_flag=True, help="Do not ask; also if other tags vanish with it.")
async def delete(context: Context, reference: str, force: bool) -> None:
    """Delete the manifest that REF names from its registry, and its tag with it.

    Registries delete manifests, not tags: where other tags name the same manifest, nothing is
    deleted unless --force is given, and then they go too.
    """
    if not force and sys.stdin.isatty():
        click.confirm(f"Delete {reference} from its registry?", abort=True, err=True)
    request = pb.DeleteManifestRequest(reference=reference, force=force)
    async with open_session(context, Peer.REGISTRY_GATEWAY) as session:
        response = await session.registry.DeleteManifest(request)
    context.write(response.digest)
