"""`lns tag` and `lns copy`: one manifest under more names."""

import sys

import click
from lns.registry.v1 import registry_service_pb2 as pb

from cli.context import Context, command
from cli.options import platform_option
from cli.render.progress import open_reporter
from cli.render.text import format_size
from lns.client.connection.session import Peer, open_session
from lns.client.running.launch import last_result
from lns.client.running.request import parse_platform
from services.core.errors import RequestInvalid
from services.core.reference import Reference


@command("tag", doing="tag {reference}")
@click.argument("reference", metavar="REF")
@click.argument("tag_name", metavar="TAG")
async def tag(context: Context, reference: str, tag_name: str) -> None:
    """Give what REF names one more tag in its repository; TAG may be a whole reference there."""
    request = pb.TagManifestRequest(reference=reference, tag=_tag_of(reference, tag_name))
    async with open_session(context, Peer.REGISTRY_GATEWAY) as session:
        response = await session.registry.TagManifest(request)
    context.write(response.descriptor.digest)
    context.note(f"tagged {response.reference}")


@command("copy", doing="copy {source}")
@click.argument("source", metavar="SOURCE")
@click.argument("destination", metavar="DESTINATION")
@click.option("--all-platforms", is_flag=True, hidden=True, help="The default.")
@platform_option
@click.option(
    "--referrers/--no-referrers",
    default=True,
    help="Copy signatures, SBOMs and whatever else refers to it; the default.",
)
@click.option("-q", "--quiet", is_flag=True, help="Print only the digest.")
async def copy(
    context: Context,
    source: str,
    destination: str,
    all_platforms: bool,
    platform: str | None,
    referrers: bool,
    quiet: bool,
) -> None:
    """Copy what SOURCE names, with everything that belongs to it, byte for byte to DESTINATION.

    An index is copied whole; --platform copies the manifest of one platform instead. What refers to
    the source goes too: by the referrers API or its fallback tag, and by cosign's tags.
    """
    if all_platforms and platform:
        raise RequestInvalid(
            "--all-platforms and --platform contradict each other", hint="leave one of them out"
        )
    request = pb.CopyManifestRequest(
        source=source,
        destination=destination,
        all_platforms=all_platforms,
        platform=parse_platform(platform),
        without_referrers=not referrers,
    )
    async with open_session(context, Peer.REGISTRY_GATEWAY) as session:
        with open_reporter(context, sys.stderr, quiet=quiet) as reporter:
            reporter.doing(f"copying {source}")
            result = await last_result(
                session.registry.CopyManifest(request), reporter, "the gateway"
            )
    context.write(result.descriptor.digest)
    context.warn(result.warnings)
    if not quiet:
        context.note(
            f"copied to {result.reference}, {format_size(result.transferred_bytes)} transferred"
        )


def _tag_of(reference: str, text: str) -> str:
    """Returns the tag in `text`: a tag, or a reference to the same repository."""
    if "/" not in text and ":" not in text:
        return text
    here, there = Reference.parse(reference), Reference.parse(text)
    if here.repository != there.repository or there.tag is None or there.digest is not None:
        raise RequestInvalid(
            f"{text} is no tag of {here.repository}",
            hint="`lns copy` copies to another repository",
        )
    return there.tag
