"""`lns types`, `lns validate`, `lns init`: the artifact families, and files that fit them."""

import shlex
from pathlib import Path

import click
from lns.registry.v1 import registry_service_pb2 as pb

from cli.context import Context, command
from cli.options import format_option
from cli.render.messages import to_document
from cli.render.output import columns, write_rows
from lns.client.connection.config import load_config
from lns.client.connection.session import Peer, open_session
from lns.client.content.document_file import read_document
from services.core.artifacts.families import (
    AGENT,
    BUNDLE,
    Family,
    family_by_slug,
    family_of_word,
)
from services.core.artifacts.starters import AGENT_IMAGE, starter
from services.core.errors import RequestInvalid

_COLUMNS = columns(
    slug="FAMILY", kind="KIND", path_segment="PATH SEGMENT", layer="CLASS", mount="DEFAULT MOUNT"
)
_REGISTRY = click.option(
    "--registry", default="", metavar="HOST", help="Use the schemas of this registry."
)


@command("types", doing="list artifact families")
@click.argument("family", metavar="[FAMILY]", required=False)
@_REGISTRY
@format_option
async def types(context: Context, family: str | None, registry: str, form: str | None) -> None:
    """List the artifact families, or print the JSON Schema of one."""
    if family is not None and not registry:
        family_by_slug(family)
    async with open_session(context, Peer.REGISTRY_GATEWAY) as session:
        response = await session.registry.ListArtifactTypes(
            pb.ListArtifactTypesRequest(registry=registry)
        )
    if family is not None:
        for one in response.types:
            if one.slug == family:
                context.write(one.schema_json.rstrip("\n"))
                return
        raise RequestInvalid(f"{registry} has no family {family!r}", hint="`lns types` lists them")
    rows = [
        {
            **{k: v for k, v in to_document(one).items() if k != "schema_json"},
            "layer": "application" if one.application_layer else "runtime",
            "mount": one.default_mount_path,
        }
        for one in response.types
    ]
    write_rows(rows, _COLUMNS, form=form, write=context.write)


@command("validate", doing="validate {file}")
@click.argument("file", metavar="FILE")
@click.option("--family", default="", metavar="FAMILY", help="Family; else the document's kind.")
@_REGISTRY
async def validate(context: Context, file: str, family: str, registry: str) -> None:
    """Check an artifact's file against its family's schema, without pushing it."""
    request = pb.ValidateArtifactRequest(
        document=read_document(file), family=family, registry=registry
    )
    async with open_session(context, Peer.REGISTRY_GATEWAY) as session:
        response = await session.registry.ValidateArtifact(request)
    context.write(f"{file}: {response.family} {response.name} is valid")


@command("init", doing="init {family}")
@click.argument("family", metavar="FAMILY")
@click.option(
    "-o",
    "--output",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="FILE",
    help="File to write; default: FAMILY.yaml, - for standard output.",
)
@click.option("--image", metavar="REF", help="Image of an agent; default: the key starter-image.")
@click.option("-f", "--force", is_flag=True, help="Overwrite an existing file.")
def init(
    context: Context, family: str, output: Path | None, image: str | None, force: bool
) -> None:
    """Write a commented starter file of a family, and say what to do with it.

    FAMILY may also be the document's kind or the path segment: Agent, agents.
    """
    chosen = family_of_word(family)
    if chosen is AGENT:
        image = image or load_config(context).get("starter-image")
    text = starter(chosen, image=image or "")
    path = output or Path(f"{chosen.slug}.yaml")
    if str(path) == "-":
        context.write(text.rstrip("\n"))
        return
    try:
        with path.open("w" if force else "x", encoding="utf-8") as file:
            file.write(text)
    except FileExistsError:
        raise RequestInvalid(
            f"{path} already exists", hint="name another file with -o, or give --force"
        ) from None
    context.write(str(path))
    if chosen.has_content:
        content = path.with_suffix("")
        content.mkdir(exist_ok=True)
        context.note(f"its content goes into {content}/")
    if chosen is AGENT and not image:
        context.note(f"its image is {AGENT_IMAGE}; --image names one that you have")
    for line in _next_steps(chosen, path):
        context.note(line)


def _next_steps(family: Family, path: Path) -> list[str]:
    """What works when it is pasted: here and now where it can be run, with a registry else."""
    shown = path if path.is_absolute() else Path(path)
    here = shlex.quote(str(shown) if path.is_absolute() else f"./{shown}")
    name = f"localhost:5000/{family.path_segment}/{path.stem.lower()}:1"
    content = f" --content {shlex.quote(str(path.with_suffix('')))}" if family.has_content else ""
    steps = [f"lns validate {here}"]
    if family in (AGENT, BUNDLE):
        steps.append(f"lns run {here}")
    return [
        "next:",
        *(f"  {step}" for step in steps),
        "  lns registry start        # a registry of your own at localhost:5000, in Docker",
        f"  lns push {here} {name}{content}",
    ]
