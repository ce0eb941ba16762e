"""`lns pull`: an artifact into a file, an image into the store."""

import json
import sys
from pathlib import Path

import click
from lns.registry.v1 import registry_service_pb2 as pb

from cli.context import Context, command
from cli.options import platform_option
from cli.render.progress import open_reporter
from cli.render.text import format_size, to_yaml
from lns.client.connection.session import Peer, open_session
from lns.client.running.launch import last_result
from lns.client.running.request import parse_platform
from services.chassis.durable import write_bytes
from services.core.errors import RequestInvalid
from services.core.text import to_json

_STDOUT = Path("-")


@command("pull", doing="pull {reference}")
@click.argument("reference", metavar="REF")
@click.option(
    "-o",
    "--output",
    type=click.Path(dir_okay=False, allow_dash=True, path_type=Path),
    metavar="FILE",
    help="File for the artifact's document (YAML if it ends in .yaml); - is standard output.",
)
@platform_option
@click.option("--all-platforms", is_flag=True, help="Pull an image for every platform it has.")
@click.option("-q", "--quiet", is_flag=True, help="Print only the digest of an image.")
async def pull(
    context: Context,
    reference: str,
    output: Path | None,
    platform: str | None,
    all_platforms: bool,
    quiet: bool,
) -> None:
    """Pull REF with all its content into the store.

    An artifact's document is written to standard output, or to a file with -o. Of an image, the
    digest is printed.
    """
    if all_platforms and platform:
        raise RequestInvalid(
            "--all-platforms and --platform contradict each other", hint="leave one of them out"
        )
    request = pb.PullRequest(
        reference=reference,
        platform=parse_platform(platform),
        all_platforms=all_platforms,
        mode=pb.PULL_MODE_ALWAYS,
    )
    async with open_session(context, Peer.REGISTRY_GATEWAY) as session:
        with open_reporter(context, sys.stderr, quiet=quiet) as reporter:
            reporter.doing(f"pulling {reference}")
            result = await last_result(session.registry.Pull(request), reporter, "the gateway")
    if result.family:
        _write_document(context, result.document, output)
    elif output is not None:
        raise RequestInvalid(
            f"{reference} is an image; it is in the store now, and has no document for {output}",
            hint="leave -o out; `lns image export` writes an image",
        )
    else:
        context.write(result.root.digest)
    if not quiet:
        transferred = format_size(result.transferred_bytes)
        kind = result.family or "image"
        context.note(f"pulled {kind} {result.reference}, {transferred} transferred")


def _write_document(context: Context, document: bytes, output: Path | None) -> None:
    if output is None or output == _STDOUT:
        context.write(to_json(json.loads(document), indent=2))
    elif output.suffix in (".yaml", ".yml"):
        write_bytes(output, to_yaml(json.loads(document)).encode())
    else:
        write_bytes(output, document)
