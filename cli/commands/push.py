"""`lns push`: a file as a typed artifact, anything else as an image."""

import sys
from pathlib import Path

import click
from lns.registry.v1 import registry_service_pb2 as pb

from cli.context import Context, command
from cli.render.progress import open_reporter
from cli.render.text import format_size
from cli.stored_names import stored_name
from lns.client.connection.session import Peer, Session, open_session
from lns.client.content.document_file import is_path, read_document
from lns.client.content.upload import upload_content
from lns.client.running.launch import last_result
from services.core.errors import ImageUnknown, RequestInvalid
from services.core.reference import DEFAULT_REGISTRY, has_host

_SOURCE_KINDS = ("oci:", "oci-archive:", "docker-archive:", "docker-daemon:")


@command("push", doing="push {reference}")
@click.argument("source", metavar="SOURCE")
@click.argument("reference", metavar="REF")
@click.option("--family", metavar="FAMILY", help="Family of the artifact, if REF does not name it.")
@click.option(
    "--content",
    type=click.Path(exists=True, path_type=Path),
    metavar="DIR|FILE",
    help="Content of the artifact, packed into one layer.",
)
@click.option(
    "--annotation", multiple=True, metavar="NAME=VALUE", help="Annotate the manifest; repeatable."
)
@click.option("--all-platforms", is_flag=True, help="Push an image for every platform it has.")
@click.option("-q", "--quiet", is_flag=True, help="Print only the digest.")
async def push(
    context: Context,
    source: str,
    reference: str,
    family: str | None,
    content: Path | None,
    annotation: tuple[str, ...],
    all_platforms: bool,
    quiet: bool,
) -> None:
    """Push SOURCE to REF.

    SOURCE is an artifact's file, YAML or JSON. Or an image: a reference or id in the store,
    oci:DIR[:TAG], oci-archive:FILE[:TAG], docker-archive:FILE[:NAME] or docker-daemon:NAME.
    """
    is_image = source.startswith(_SOURCE_KINDS)
    wants_document = bool(family or content or annotation)
    if is_image and wants_document:
        raise RequestInvalid(
            f"{source} is an image, which has no family, content or annotations of ours",
            hint="leave --family, --content and --annotation out",
        )
    if not is_image and (wants_document or is_path(source)):
        artifact = pb.PushArtifactRequest(
            reference=reference,
            family=family or "",
            document=read_document(source),
            annotations=_annotations(annotation),
        )
        async with open_session(context, Peer.REGISTRY_GATEWAY) as session:
            await _push_artifact(context, session, artifact, content, quiet=quiet)
        return
    image = pb.PushImageRequest(
        source=_absolute_source(source), reference=reference, all_platforms=all_platforms
    )
    async with open_session(context, Peer.REGISTRY_GATEWAY) as session:
        if is_image:
            _check_source(source, session.elsewhere(Peer.REGISTRY_GATEWAY))
        else:
            image.source = await stored_name(session, image.source)
        try:
            await _push_image(context, session, image, quiet=quiet)
        except ImageUnknown as error:
            raise error if is_image else _neither(source, error) from error


def _check_source(source: str, elsewhere: str) -> None:
    """Refuses a source that the gateway would look for on its own machine.

    Raises:
        RequestInvalid: the gateway is on another machine.
    """
    if elsewhere:
        raise RequestInvalid(
            f"{source} is on this machine, and the gateway that opens it is at {elsewhere}",
            hint="push it from here: `lns --context default push …`, if this machine has services",
        )


async def _push_artifact(
    context: Context,
    session: Session,
    request: pb.PushArtifactRequest,
    content: Path | None,
    *,
    quiet: bool,
) -> None:
    _say_where(context, request.reference, quiet=quiet)
    with open_reporter(context, sys.stderr, quiet=quiet) as reporter:
        if content is not None:
            reporter.doing(f"packing {content}")
            request.layers.append(await upload_content(content, session.registry))
        reporter.doing(f"pushing {request.reference}")
        response = await session.registry.PushArtifact(request)
    context.write(response.descriptor.digest)
    context.warn(response.warnings)
    if not quiet:
        context.note(f"pushed {response.reference} as {response.family}")


async def _push_image(
    context: Context, session: Session, request: pb.PushImageRequest, *, quiet: bool
) -> None:
    _say_where(context, request.reference, quiet=quiet)
    with open_reporter(context, sys.stderr, quiet=quiet) as reporter:
        reporter.doing(f"pushing {request.reference}")
        answers = session.registry.PushImage(request)
        result = await last_result(answers, reporter, "the gateway")
    context.write(result.descriptor.digest)
    context.warn(result.warnings)
    if not quiet:
        context.note(
            f"pushed {result.reference}, {format_size(result.transferred_bytes)} transferred"
        )


def _say_where(context: Context, reference: str, *, quiet: bool) -> None:
    """Says where a reference without a host leads before anything goes there."""
    if not quiet and not has_host(reference):
        context.note(
            f"lns: {reference} names no registry, so it goes to the gateway's default, which is"
            f" {DEFAULT_REGISTRY} unless a setting names another"
        )


def _neither(source: str, error: ImageUnknown) -> ImageUnknown:
    """Returns the error of a source that is no file here either."""
    if Path(source).is_dir():
        return ImageUnknown(
            f"{source} is a directory here, and {error.message}",
            hint="name the artifact's file and pack the directory with --content; a directory"
            f" with an OCI layout is oci:{source}",
        )
    return ImageUnknown(
        f"the file {source!r} does not exist, and {error.message}",
        hint="check the path; `lns image ls` lists what the store has",
    )


def _absolute_source(source: str) -> str:
    """Makes the path in a source absolute: the gateway has another current directory."""
    kind, colon, rest = source.partition(":")
    if f"{kind}{colon}" in _SOURCE_KINDS[:3] and rest and not rest.startswith("/"):
        return f"{kind}:{Path.cwd() / rest}"
    return source


def _annotations(entries: tuple[str, ...]) -> dict[str, str]:
    annotations = {}
    for entry in entries:
        name, equals, value = entry.partition("=")
        if not name or not equals:
            raise RequestInvalid(f"{entry!r} is not an annotation", hint="write NAME=value")
        annotations[name] = value
    return annotations
