"""The calls of `lns.vm.v1.VmService` about snapshots: of images, and of runs."""

from typing import Any

from lns.vm.v1 import run_pb2
from lns.vm.v1 import vm_service_pb2 as pb

from services.chassis import run_plan_messages
from services.core.errors import SnapshotUnknown
from services.vm_runner.host import Host
from services.vm_runner.records.pages import page
from services.vm_runner.runner import Runner
from services.vm_runner.snapshot_messages import format_saved, format_snapshot
from services.vm_runner.snapshots.saved_run import SavedRun
from services.vm_runner.snapshots.snapshot import Snapshot
from services.vm_runner.snapshots.starts import Starts


class SnapshotServicer:
    """Serves the snapshots of a node."""

    def __init__(self, runner: Runner, host: Host, starts: Starts) -> None:
        self._runner = runner
        self._host = host
        self._starts = starts

    async def SnapshotRun(
        self, request: pb.SnapshotRunRequest, context: Any
    ) -> pb.SnapshotRunResponse:
        """Saves a live run, so that others go on from there."""
        saved = await self._runner.snapshot(
            request.run, name=request.name, request_id=request.request_id
        )
        return pb.SnapshotRunResponse(snapshot=format_saved(saved, with_plan=True))

    async def MakeSnapshot(
        self, request: pb.MakeSnapshotRequest, context: Any
    ) -> pb.MakeSnapshotResponse:
        """Makes the snapshot of a plan's image, and a machine that waits for a run."""
        plan = run_plan_messages.parse_run_plan(request.plan)
        await self._host.require(self._runner.foreign_guest(plan))
        snapshot = await self._runner.warm(plan, request.image_digest)
        return pb.MakeSnapshotResponse(snapshot=self._format(snapshot))

    async def GetSnapshot(
        self, request: pb.GetSnapshotRequest, context: Any
    ) -> pb.GetSnapshotResponse:
        """Describes a snapshot."""
        found = self._find(request.snapshot)
        if isinstance(found, SavedRun):
            return pb.GetSnapshotResponse(snapshot=format_saved(found, with_plan=True))
        return pb.GetSnapshotResponse(snapshot=self._format(found))

    async def ListSnapshots(
        self, request: pb.ListSnapshotsRequest, context: Any
    ) -> pb.ListSnapshotsResponse:
        """Lists snapshots, sorted by id, by pages."""
        saved = [format_saved(one, with_plan=False) for one in self._runner.saved.all()]
        chosen, token = page(
            sorted([*saved, *map(self._format, self._starts.snapshots())], key=lambda one: one.id),
            key=lambda one: one.id,
            size=request.page_size,
            token=request.page_token,
        )
        return pb.ListSnapshotsResponse(
            snapshots=chosen,
            next_page_token=token,
            budget_bytes=self._starts.budget_bytes,
            saved_budget_bytes=self._runner.saved.budget_bytes,
        )

    async def RemoveSnapshot(
        self, request: pb.RemoveSnapshotRequest, context: Any
    ) -> pb.RemoveSnapshotResponse:
        """Removes a snapshot and the machines that wait."""
        found = self._find(request.snapshot)
        if isinstance(found, SavedRun):
            await self._runner.saved.remove(found)
            return pb.RemoveSnapshotResponse(id=found.snapshot_id, freed_bytes=found.size_bytes)
        await self._starts.remove(found.key)
        return pb.RemoveSnapshotResponse(id=found.key, freed_bytes=found.size_bytes)

    def _find(self, text: str) -> SavedRun | Snapshot:
        """Returns a snapshot: of a run by its name, of either kind by an id or its beginning."""
        try:
            return self._runner.saved.find(text)
        except SnapshotUnknown:
            return self._starts.find(text)

    def _format(self, snapshot: Snapshot) -> run_pb2.Snapshot:
        waiting = self._starts.waiting.count(snapshot.key)
        return format_snapshot(snapshot, waiting=waiting)
