"""`lns snapshot`: saved machines from which runs are resumed."""

import sys
from typing import Any

import click
from lns.vm.v1 import run_pb2
from lns.vm.v1 import vm_service_pb2 as pb

from cli.context import Context, subcommand
from cli.options import format_option
from cli.paging import PAGE_SIZE, every
from cli.render.messages import iso_time, to_document
from cli.render.output import columns, write_document, write_rows
from cli.render.text import format_size
from lns.client.connection.session import Peer, Session, open_session
from services.core.errors import SnapshotUnknown

_COLUMNS = columns(
    id="ID",
    image="IMAGE",
    cpus="CPUS",
    memory="MEMORY",
    size="SIZE",
    ahead="AHEAD",
    used_at="USED",
)
_ID_CHARACTERS = 12


@click.group("snapshot", short_help="Manage snapshots of images")
def snapshot() -> None:
    """Manage the snapshots from which runs start without booting a kernel.

    The first run of an image boots, and its snapshot is made behind it; `lns warm` makes it ahead.
    """


@subcommand(snapshot, "ls", doing="list snapshots")
@format_option
@click.option("-q", "--quiet", is_flag=True, help="Print only ids.")
async def snapshot_ls(context: Context, form: str | None, quiet: bool) -> None:
    """List snapshots, the one used last first."""
    async with open_session(context, Peer.VM_RUNNER) as session:
        rows = [_row(one) for one in await _snapshots(session)]
    write_rows(rows, _COLUMNS, form=form, write=context.write, quiet_field="id" if quiet else None)


@subcommand(snapshot, "inspect", doing="inspect snapshot {snapshot_id}")
@click.argument("snapshot_id", metavar="ID")
@format_option
async def snapshot_inspect(context: Context, snapshot_id: str, form: str | None) -> None:
    """Describe a snapshot."""
    async with open_session(context, Peer.VM_RUNNER) as session:
        response = await session.vm.GetSnapshot(pb.GetSnapshotRequest(snapshot=snapshot_id))
    write_document(to_document(response.snapshot), form=form, write=context.write)


@subcommand(snapshot, "rm", doing="remove {snapshot_ids}")
@click.argument("snapshot_ids", metavar="ID...", nargs=-1, required=True)
async def snapshot_rm(context: Context, snapshot_ids: tuple[str, ...]) -> None:
    """Remove snapshots; runs that were resumed from them go on."""
    async with open_session(context, Peer.VM_RUNNER) as session:
        for one in snapshot_ids:
            response = await session.vm.RemoveSnapshot(pb.RemoveSnapshotRequest(snapshot=one))
            context.write(response.id[:_ID_CHARACTERS])


@subcommand(snapshot, "prune", doing="prune snapshots")
@click.option("-f", "--force", is_flag=True, help="Do not ask for confirmation.")
async def snapshot_prune(context: Context, force: bool) -> None:
    """Remove every snapshot; the next run of each image boots."""
    if not force and sys.stdin.isatty():
        click.confirm("Remove every snapshot?", abort=True, err=True)
    freed = 0
    async with open_session(context, Peer.VM_RUNNER) as session:
        for one in await _snapshots(session):
            try:
                await session.vm.RemoveSnapshot(pb.RemoveSnapshotRequest(snapshot=one.id))
            except SnapshotUnknown:
                continue  # it went meanwhile
            context.write(one.id[:_ID_CHARACTERS])
            freed += one.size_bytes
    context.note(f"freed {format_size(freed)}")


async def _snapshots(session: Session) -> list[run_pb2.Snapshot]:
    request = pb.ListSnapshotsRequest(page_size=PAGE_SIZE)
    found = every(session.vm.ListSnapshots, request, lambda page: page.snapshots)
    return [one async for one in found]


def _row(one: run_pb2.Snapshot) -> dict[str, Any]:
    return {
        "id": one.id[:_ID_CHARACTERS],
        "image": one.image_digest,
        "cpus": one.vcpus,
        "memory": format_size(one.memory_bytes),
        "size": format_size(one.size_bytes),
        "ahead": one.machines_ahead,
        "used_at": iso_time(one.use_time),
        "created_at": iso_time(one.create_time),
    }
