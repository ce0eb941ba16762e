"""`lns image`: images and artifacts in the store, and what was made of them."""

import asyncio
import sys
import time
from collections.abc import AsyncIterable
from pathlib import Path
from typing import Any, BinaryIO

import click
from lns.materializer.v1 import materializer_service_pb2 as materializer_pb
from lns.registry.v1 import registry_service_pb2 as registry_pb

from cli.commands.inspect import describe_reference
from cli.context import FAILURE, Context, subcommand
from cli.image_archive import images_of, load, open_stdout, save
from cli.image_history import history_rows, own_platform
from cli.options import format_option, platform_option, quiet_ids
from cli.render.messages import age, iso_time, to_document
from cli.render.output import columns, write_document, write_rows
from cli.render.progress import open_reporter
from cli.render.text import format_size, short_digests, short_id
from cli.run.console import STDOUT
from cli.stored_names import repository_of, stored_images, stored_name, stored_names
from cli.terminal import terminal_size, write_all
from lns.client.connection.session import Peer, Session, open_session
from lns.client.running.launch import last_result
from lns.client.running.request import parse_platform
from services.chassis.durable import replace_file
from services.core.errors import ArtifactTypeUnsupported, RequestInvalid

_COLUMNS = columns(
    reference="REFERENCE", family="FAMILY", digest="DIGEST", created="CREATED", size="SIZE"
)
_HISTORY_COLUMNS = columns(
    created="CREATED", created_by="CREATED BY", size="SIZE", comment="COMMENT"
)
_DAMAGE_COLUMNS = columns(path="PATH", description="DAMAGE", repaired="REPAIRED")


@click.group("image", short_help="Manage the images in the store")
def image() -> None:
    """Manage images and artifacts in the store."""


@subcommand(image, "ls", doing="list images")
@click.option("-a", "--all", "everything", is_flag=True, help="Also artifacts and digests.")
@click.option("--no-trunc", is_flag=True, help="Do not cut digests.")
@format_option
@quiet_ids
async def image_ls(
    context: Context, everything: bool, no_trunc: bool, form: str | None, quiet: bool
) -> None:
    """List what the store has, by reference.

    An image that has a name is listed by it alone; what is shown, `lns image rm`, `inspect`, `tag`
    and `lns push` take back.
    """
    now = time.time()
    whole = no_trunc or form not in (None, "", "table")
    async with open_session(context, Peer.REGISTRY_GATEWAY) as session:
        stored = [one async for one in stored_images(session) if everything or not one.family]
    named = {digest for one in stored if "@" not in one.reference for digest in _digests_of(one)}
    rows = [
        _row(one, now=now, whole=whole)
        for one in stored
        if everything or "@" not in one.reference or named.isdisjoint(_digests_of(one))
    ]
    if quiet:
        rows = list({row["digest"]: row for row in rows}.values())
    write_rows(
        rows, _COLUMNS, form=form, write=context.write, quiet_field="digest" if quiet else None
    )


@subcommand(image, "rm", doing="remove {references}", short_help="Remove references.")
@click.argument("references", metavar="REF...", nargs=-1, required=True)
async def image_rm(context: Context, references: tuple[str, ...]) -> None:
    """Remove references from the store; their content goes with the next prune."""
    async with open_session(context, Peer.REGISTRY_GATEWAY) as session:
        for reference in await stored_names(session, references):
            response = await session.registry.RemoveStoredImage(
                registry_pb.RemoveStoredImageRequest(reference=reference)
            )
            for removed in response.references:
                context.write(removed)


@subcommand(image, "tag", doing="tag {source}", short_help="Give an image one more name.")
@click.argument("source", metavar="REF")
@click.argument("target", metavar="NAME:TAG")
async def image_tag(context: Context, source: str, target: str) -> None:
    """Give an image in the store one more name there; `lns tag` gives one in a registry."""
    async with open_session(context, Peer.REGISTRY_GATEWAY) as session:
        response = await session.registry.TagStoredImage(
            registry_pb.TagStoredImageRequest(
                source=await stored_name(session, source), target=target
            )
        )
    context.write(response.reference)


@subcommand(image, "history", doing="show how {reference} was made", short_help="Show its layers.")
@click.argument("reference", metavar="REF")
@click.option("--no-trunc", is_flag=True, help="Do not cut what made a layer.")
@format_option
async def image_history(context: Context, reference: str, no_trunc: bool, form: str | None) -> None:
    """Show the layers of an image in the store, the latest first, with what made each."""
    async with open_session(context, Peer.REGISTRY_GATEWAY) as session:
        answer = await session.registry.GetManifest(
            registry_pb.GetManifestRequest(
                reference=await stored_name(session, reference),
                include_config=True,
                offline=True,
                platform=own_platform(),
            )
        )
    whole = no_trunc or form not in (None, "", "table")
    rows = history_rows(answer.manifest, answer.config, whole=whole)
    write_rows(rows, _HISTORY_COLUMNS, form=form, write=context.write)


@subcommand(image, "save", doing="save {references}", short_help="Write images to an archive.")
@click.argument("references", metavar="REF...", nargs=-1, required=True)
@click.option("-o", "--output", required=True, metavar="FILE|-", help="Where the archive goes.")
async def image_save(context: Context, references: tuple[str, ...], output: str) -> None:
    """Write images of the store to an archive that docker, skopeo and lns load.

    It is an OCI layout with docker's manifest.json beside it.
    """
    if output == "-" and terminal_size(STDOUT) is not None:
        raise RequestInvalid("an archive is not for a terminal", hint="give -o FILE")
    async with open_session(context, Peer.REGISTRY_GATEWAY) as session:
        names = await stored_names(session, references)
        with replace_file(Path(output)) if output != "-" else open_stdout() as file:
            await save(session, names, file)


@subcommand(image, "load", doing="load {archive}", short_help="Take images from an archive.")
@click.option(
    "-i",
    "--input",
    "archive",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    required=True,
    metavar="FILE",
    help="The archive: of docker save, or an OCI layout; compressed or not.",
)
@click.option("-q", "--quiet", is_flag=True, help="No progress.")
async def image_load(context: Context, archive: Path, quiet: bool) -> None:
    """Put the images of an archive into the store, under the names that they have there."""
    images = await asyncio.to_thread(images_of, archive)
    async with open_session(context, Peer.REGISTRY_GATEWAY) as session:
        for one in images:
            with open_reporter(context, sys.stderr, quiet=quiet) as reporter:
                reporter.doing(f"loading {', '.join(one.names) or archive}")
                for name in await load(session, one, reporter):
                    context.write(name)


@subcommand(image, "prune", doing="prune images")
@click.option("-a", "--all", "everything", is_flag=True, help="Also references that no run uses.")
@click.option("--dry-run", is_flag=True, help="Only print what would be removed.")
@click.option("-f", "--force", is_flag=True, help="Do not ask for confirmation.")
async def image_prune(context: Context, everything: bool, dry_run: bool, force: bool) -> None:
    """Remove content that no reference and no run needs."""
    if not force and not dry_run and sys.stdin.isatty():
        click.confirm("Remove all content that nothing needs?", abort=True, err=True)
    async with open_session(context, Peer.MATERIALIZER, Peer.REGISTRY_GATEWAY) as session:
        # Images first: they hold leases on the blobs that they were made from.
        made = await session.materializer.PruneImages(
            materializer_pb.PruneImagesRequest(dry_run=dry_run)
        )
        blobs = await session.registry.PruneBlobs(
            registry_pb.PruneBlobsRequest(dry_run=dry_run, include_tagged=everything)
        )
    for digest in [*made.images, *made.layers, *blobs.digests]:
        context.write(digest)
    freed = format_size(made.freed_bytes + blobs.freed_bytes)
    context.note(f"{'would free' if dry_run else 'freed'} {freed}")


@subcommand(image, "inspect", doing="inspect {reference}", short_help="Describe an image.")
@click.argument("reference", metavar="REF")
@platform_option
@click.option("--format", "form", metavar="FORMAT", help="json or a template. [default: json]")
async def image_inspect(
    context: Context, reference: str, platform: str | None, form: str | None
) -> None:
    """Describe an image with what it materializes to: image digest, layers, files.

    An image that is not in the store is pulled.
    """
    async with open_session(context, Peer.MATERIALIZER, Peer.REGISTRY_GATEWAY) as session:
        reference = await stored_name(session, reference)
        pulled, made = await _materialized(context, session, reference, platform)
        # By its digest: a name may be one of the store alone, unknown to its registry.
        pinned = f"{repository_of(pulled.reference)}@{pulled.descriptor.digest}"
        document = await describe_reference(session, pinned, platform)
        document["reference"] = pulled.reference
    document.update(to_document(made))
    write_document(document, form=form, write=context.write)


@subcommand(image, "verify", doing="verify {reference}", short_help="Hash an image's files again.")
@click.argument("reference", metavar="REF")
@platform_option
@click.option("--repair", is_flag=True, help="Make damaged layers again.")
async def image_verify(context: Context, reference: str, platform: str | None, repair: bool) -> int:
    """Hash every file of an image again; exit code 1 says that damage is left."""
    async with open_session(context, Peer.MATERIALIZER, Peer.REGISTRY_GATEWAY) as session:
        _, made = await _materialized(context, session, reference, platform)
        response = await session.materializer.VerifyImage(
            materializer_pb.VerifyImageRequest(image=made.composefs_digest, repair=repair),
            timeout=3600,
        )
    if response.damages:
        rows = [to_document(damage) for damage in response.damages]
        write_rows(rows, _DAMAGE_COLUMNS, form=None, write=context.write)
    context.note(
        f"{reference}: {response.object_count} objects, {format_size(response.checked_bytes)},"
        f" {len(response.damages) or 'none'} damaged"
    )
    return FAILURE if any(not damage.repaired for damage in response.damages) else 0


@subcommand(image, "export", doing="export {reference}")
@click.argument("reference", metavar="REF")
@platform_option
@click.option("--dump", metavar="FILE|-", help="Write the composefs dump of the merged tree.")
@click.option("--image", "image_file", metavar="FILE|-", help="Write the composefs metadata image.")
async def image_export(
    context: Context,
    reference: str,
    platform: str | None,
    dump: str | None,
    image_file: str | None,
) -> None:
    """Write what an image materializes to."""
    wanted = [
        (path, kind)
        for path, kind in (
            (dump, materializer_pb.IMAGE_FILE_DUMP),
            (image_file, materializer_pb.IMAGE_FILE_METADATA),
        )
        if path is not None
    ]
    if not wanted:
        raise RequestInvalid("nothing was asked for", hint="give --dump or --image")
    async with open_session(context, Peer.MATERIALIZER, Peer.REGISTRY_GATEWAY) as session:
        _, made = await _materialized(context, session, reference, platform)
        for path, kind in wanted:
            request = materializer_pb.ReadImageFileRequest(image=made.composefs_digest, file=kind)
            await _save(session, request, path)


async def _materialized(
    context: Context, session: Session, reference: str, platform: str | None
) -> tuple[registry_pb.PullResult, materializer_pb.Image]:
    """Returns an image that was pulled where the store lacks it, and what it materializes to."""
    pull = registry_pb.PullRequest(
        reference=reference,
        platform=parse_platform(platform),
        mode=registry_pb.PULL_MODE_MISSING,
    )
    with open_reporter(context, sys.stderr) as reporter:
        reporter.doing(f"pulling {reference}")
        pulled = await last_result(session.registry.Pull(pull), reporter, "the gateway")
        if pulled.family:
            raise ArtifactTypeUnsupported(
                f"{reference} is an artifact of the family {pulled.family}, not an image",
                hint="`lns inspect` describes artifacts",
            )
        reporter.doing(f"materializing {reference}")
        request = materializer_pb.MaterializeRequest(manifest_digest=pulled.descriptor.digest)
        result = await last_result(
            session.materializer.Materialize(request), reporter, "the materializer"
        )
    return pulled, result.image


async def _save(session: Session, request: materializer_pb.ReadImageFileRequest, path: str) -> None:
    pieces = session.materializer.ReadImageFile(request)
    if path == "-":
        is_binary = request.file != materializer_pb.IMAGE_FILE_DUMP
        if is_binary and terminal_size(STDOUT) is not None:
            raise RequestInvalid("an image is nothing for a terminal", hint="write --image FILE")
        async for piece in pieces:
            await write_all(STDOUT, piece.data)
        return
    with replace_file(Path(path)) as file:
        await _write(pieces, file)


async def _write(
    pieces: AsyncIterable[materializer_pb.ReadImageFileResponse], file: BinaryIO
) -> None:
    async for piece in pieces:
        await asyncio.to_thread(file.write, piece.data)


def _digests_of(one: registry_pb.StoredImage) -> set[str]:
    return {one.descriptor.digest, one.platform_manifest.digest} - {""}


def _row(one: registry_pb.StoredImage, *, now: float, whole: bool) -> dict[str, Any]:
    return {
        "reference": one.reference if whole else short_digests(one.reference),
        "family": one.family or "image",
        "digest": one.descriptor.digest if whole else short_id(one.descriptor.digest),
        "created": age(one.create_time, now=now),
        "created_at": iso_time(one.create_time),
        "size": format_size(one.total_bytes),
        "size_bytes": one.total_bytes,
    }
