"""`lns snapshot`: saved machines, of images and of live runs, from which runs start."""

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
from cli.render.text import format_size
from lns.client.connection.session import Peer, Session, open_session
from services.core.errors import SnapshotUnknown

_COLUMNS = columns(
    id="ID",
    name="NAME",
    run="RUN",
    image="IMAGE",
    cpus="CPUS",
    memory="MEMORY",
    size="SIZE",
    ahead="AHEAD",
    used_at="USED",
)
_ID_CHARACTERS = 12
_SAVING_SECONDS = 600.0


class SnapshotGroup(click.Group):
    """A group whose first word may be a run, of which a snapshot is made then."""

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Returns the command of the first word, or `save` for all of them."""
        is_run = bool(args) and args[0] not in self.commands and not args[0].startswith("-")
        return super().resolve_command(ctx, ["save", *args] if is_run else args)

    def collect_usage_pieces(self, ctx: click.Context) -> list[str]:
        """Says what the first word may be."""
        del ctx
        return ["[OPTIONS]", "RUN [NAME] | COMMAND [ARGS]..."]


@click.group("snapshot", cls=SnapshotGroup, short_help="Save a live run, and manage snapshots")
def snapshot() -> None:
    """Save a live run with its memory and disk, so that others go on from there.

    `lns snapshot RUN [NAME]` makes one, and the run goes on; `lns run --from NAME` starts any
    number of runs from it.

    The others are snapshots of images, from which runs start without booting a kernel: the first
    run of an image boots, and its snapshot is made behind it; `lns warm` makes it ahead.
    """


@subcommand(snapshot, "save", doing="snapshot {run}", short_help="The same as `lns snapshot RUN`")
@click.argument("run", metavar="RUN")
@click.argument("name", metavar="[NAME]", required=False)
async def snapshot_save(context: Context, run: str, name: str | None) -> None:
    """Save a live run and print the snapshot's name; without NAME one is chosen by the run's.

    The run stands still meanwhile and goes on. A run with a bind, a named volume or a group is
    refused: what goes on from its snapshot could not have them, too.
    """
    request = pb.SnapshotRunRequest(request_id=uuid.uuid4().hex, run=run, name=name or "")
    async with open_session(context, Peer.VM_RUNNER) as session:
        response = await session.vm.SnapshotRun(request, timeout=_SAVING_SECONDS)
    context.write(response.snapshot.run.name)


@subcommand(snapshot, "ls", doing="list snapshots")
@format_option
@click.option("-q", "--quiet", is_flag=True, help="Print only ids.")
async def snapshot_ls(context: Context, form: str | None, quiet: bool) -> None:
    """List snapshots: those of runs by name, then those of images, the one used last first."""
    async with open_session(context, Peer.VM_RUNNER) as session:
        rows = [_row(one) for one in await _snapshots(session)]
    write_rows(rows, _COLUMNS, form=form, write=context.write, quiet_field="id" if quiet else None)


@subcommand(snapshot, "inspect", doing="inspect snapshot {snapshot_id}")
@click.argument("snapshot_id", metavar="NAME|ID")
@format_option
async def snapshot_inspect(context: Context, snapshot_id: str, form: str | None) -> None:
    """Describe a snapshot: a run's with its image, plan and policy."""
    async with open_session(context, Peer.VM_RUNNER) as session:
        response = await session.vm.GetSnapshot(pb.GetSnapshotRequest(snapshot=snapshot_id))
    write_document(to_document(response.snapshot), form=form, write=context.write)


@subcommand(snapshot, "rm", doing="remove {snapshot_ids}")
@click.argument("snapshot_ids", metavar="NAME|ID...", nargs=-1, required=True)
async def snapshot_rm(context: Context, snapshot_ids: tuple[str, ...]) -> None:
    """Remove snapshots; runs that were resumed from them go on."""
    async with open_session(context, Peer.VM_RUNNER) as session:
        for one in snapshot_ids:
            response = await session.vm.RemoveSnapshot(pb.RemoveSnapshotRequest(snapshot=one))
            context.write(response.id[:_ID_CHARACTERS])


@subcommand(snapshot, "prune", doing="prune snapshots")
@click.option("-a", "--all", "everything", is_flag=True, help="Those of runs, too.")
@click.option("-f", "--force", is_flag=True, help="Do not ask for confirmation.")
async def snapshot_prune(context: Context, everything: bool, force: bool) -> None:
    """Remove every snapshot of an image; the next run of each boots."""
    if not force and sys.stdin.isatty():
        kinds = "of an image or a run" if everything else "of an image"
        click.confirm(f"Remove every snapshot {kinds}?", abort=True, err=True)
    freed = 0
    async with open_session(context, Peer.VM_RUNNER) as session:
        for one in await _snapshots(session):
            if one.HasField("run") and not everything:
                continue
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
    return sorted([one async for one in found], key=_place)


def _place(one: run_pb2.Snapshot) -> tuple[bool, str, int]:
    return not one.HasField("run"), one.run.name, -one.use_time.ToNanoseconds()


def _row(one: run_pb2.Snapshot) -> dict[str, Any]:
    return {
        "id": one.id[:_ID_CHARACTERS],
        "name": one.run.name,
        "run": one.run.run_name,
        "image": one.image_digest,
        "cpus": one.vcpus,
        "memory": format_size(one.memory_bytes),
        "size": format_size(one.size_bytes),
        "ahead": one.machines_ahead,
        "used_at": iso_time(one.use_time),
        "created_at": iso_time(one.create_time),
    }
