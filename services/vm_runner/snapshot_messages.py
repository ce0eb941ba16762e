"""Snapshots ↔ messages of `lns.vm.v1`."""

from lns.vm.v1 import run_pb2 as pb

from services.chassis import run_plan_messages
from services.vm_runner.messages import format_options, format_time
from services.vm_runner.snapshots.saved_run import SavedRun
from services.vm_runner.snapshots.snapshot import Snapshot


def format_snapshot(snapshot: Snapshot, *, waiting: int) -> pb.Snapshot:
    """Returns the message of an image's snapshot, from which `waiting` machines were resumed."""
    return pb.Snapshot(
        id=snapshot.key,
        image_digest=snapshot.image_digest,
        vcpus=snapshot.vcpus,
        memory_bytes=snapshot.memory_mib << 20,
        size_bytes=snapshot.size_bytes,
        create_time=format_time(snapshot.create_time),
        use_time=format_time(snapshot.use_time),
        machines_ahead=waiting,
    )


def format_saved(saved: SavedRun, *, with_plan: bool) -> pb.Snapshot:
    """Returns the message of a run's snapshot."""
    run = saved.origin
    resources = run.plan.resources
    return pb.Snapshot(
        id=saved.snapshot_id,
        image_digest=run.image_digest,
        vcpus=resources.vcpus,
        memory_bytes=resources.memory_mib << 20,
        size_bytes=saved.size_bytes,
        create_time=format_time(saved.create_time),
        use_time=format_time(saved.create_time),
        run=pb.SavedRun(
            name=saved.name,
            run_id=run.run_id,
            run_name=run.name,
            plan=run_plan_messages.format_run_plan(run.plan) if with_plan else None,
            options=format_options(run.options),
        ),
    )
