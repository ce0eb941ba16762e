"""`lns volume`: named volumes."""

import sys
import uuid
from typing import Any

import click
from lns.vm.v1 import run_pb2
from lns.vm.v1 import vm_service_pb2 as pb

from cli.context import Context, subcommand
from cli.options import format_option
from cli.paging import PAGE_SIZE, every
from cli.render.messages import iso_time, to_document
from cli.render.output import columns, write_document, write_rows
from cli.render.text import format_size, short_id
from lns.client.connection.session import Peer, Session, open_session
from lns.client.running.labels import parse_labels
from services.core.errors import InUse
from services.core.quantity import parse_mebibytes

_COLUMNS = columns(name="NAME", used="USED", limit="LIMIT", runs="RUNS", created_at="CREATED")
_MIB = 1024 * 1024


@click.group("volume", short_help="Manage named volumes")
def volume() -> None:
    """Manage named volumes, which outlive the runs that use them."""


@subcommand(volume, "ls", doing="list volumes")
@format_option
@click.option("-q", "--quiet", is_flag=True, help="Print only names.")
async def volume_ls(context: Context, form: str | None, quiet: bool) -> None:
    """List volumes by name."""
    async with open_session(context, Peer.VM_RUNNER) as session:
        rows = [_row(one) for one in await _volumes(session)]
    write_rows(
        rows, _COLUMNS, form=form, write=context.write, quiet_field="name" if quiet else None
    )


@subcommand(volume, "create", doing="create volume {name}")
@click.argument("name", metavar="NAME")
@click.option("--size", metavar="SIZE", help="Maximum size: 512Mi, 10g.")
@click.option("-l", "--label", multiple=True, metavar="NAME=VALUE", help="Label; repeatable.")
async def volume_create(
    context: Context, name: str, size: str | None, label: tuple[str, ...]
) -> None:
    """Make a volume."""
    request = pb.CreateVolumeRequest(
        name=name,
        limit_bytes=parse_mebibytes(size, what="a volume") * _MIB if size else 0,
        labels=parse_labels(label),
        request_id=uuid.uuid4().hex,
    )
    async with open_session(context, Peer.VM_RUNNER) as session:
        response = await session.vm.CreateVolume(request)
    context.write(response.volume.name)


@subcommand(volume, "inspect", doing="inspect volume {name}")
@click.argument("name", metavar="NAME")
@format_option
async def volume_inspect(context: Context, name: str, form: str | None) -> None:
    """Describe a volume."""
    async with open_session(context, Peer.VM_RUNNER) as session:
        response = await session.vm.GetVolume(pb.GetVolumeRequest(name=name))
    write_document(to_document(response.volume), form=form, write=context.write)


@subcommand(volume, "rm", doing="remove {names}")
@click.argument("names", metavar="NAME...", nargs=-1, required=True)
async def volume_rm(context: Context, names: tuple[str, ...]) -> None:
    """Remove volumes with what they hold."""
    async with open_session(context, Peer.VM_RUNNER) as session:
        for name in names:
            await session.vm.RemoveVolume(_remove_request(name))
            context.write(name)


@subcommand(volume, "prune", doing="prune volumes")
@click.option("-f", "--force", is_flag=True, help="Do not ask for confirmation.")
async def volume_prune(context: Context, force: bool) -> None:
    """Remove the volumes that no run uses."""
    if not force and sys.stdin.isatty():
        click.confirm("Remove every volume that no run uses?", abort=True, err=True)
    freed = 0
    async with open_session(context, Peer.VM_RUNNER) as session:
        for one in await _volumes(session):
            if one.run_ids or one.problem:
                continue
            try:
                await session.vm.RemoveVolume(_remove_request(one.name))
            except InUse:
                continue  # a run took it meanwhile
            context.write(one.name)
            freed += one.used_bytes
    context.note(f"freed {format_size(freed)}")


def _remove_request(name: str) -> pb.RemoveVolumeRequest:
    return pb.RemoveVolumeRequest(name=name, request_id=uuid.uuid4().hex)


async def _volumes(session: Session) -> list[run_pb2.Volume]:
    request = pb.ListVolumesRequest(page_size=PAGE_SIZE)
    found = every(session.vm.ListVolumes, request, lambda page: page.volumes)
    return [volume async for volume in found]


def _row(one: run_pb2.Volume) -> dict[str, Any]:
    return {
        "name": one.name,
        "used": format_size(one.used_bytes),
        "limit": format_size(one.limit_bytes) if one.limit_bytes else "",
        "runs": [short_id(run) for run in one.run_ids],
        "created_at": iso_time(one.create_time),
        "labels": dict(sorted(one.labels.items())),
    }
