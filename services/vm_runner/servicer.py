"""`lns.vm.v1.VmService`: parses, calls the use cases, converts."""

import contextlib
from collections.abc import AsyncIterator
from typing import Any

from lns.vm.v1 import vm_service_pb2 as pb
from lns.vm.v1 import vm_service_pb2_grpc as rpc

from services.chassis import run_plan_messages
from services.chassis.interceptors import is_taken_up_again
from services.chassis.messages import format_port, invalid, parse_port
from services.chassis.streams import check_chunk
from services.core.errors import RequestInvalid
from services.vm_runner import egress_messages, messages, usage_messages
from services.vm_runner.attachments import Attachment, attach_exec, attach_workload
from services.vm_runner.conversation import converse, let_go
from services.vm_runner.copying import copy_in, copy_out, stat_path
from services.vm_runner.host import Host
from services.vm_runner.life import standing_still
from services.vm_runner.records import lifecycle, log_query
from services.vm_runner.records.pages import page
from services.vm_runner.records.register import place
from services.vm_runner.records.run_log import LogStream
from services.vm_runner.records.runs import ExecRequest
from services.vm_runner.run_messages import RunMessages
from services.vm_runner.runner import Runner
from services.vm_runner.snapshot_servicer import SnapshotServicer
from services.vm_runner.snapshots.starts import Starts
from services.vm_runner.storage.volumes import Volumes


class VmServicer(SnapshotServicer, rpc.VmServiceServicer):
    """Serves the runs of a node."""

    def __init__(self, runner: Runner, volumes: Volumes, host: Host, starts: Starts) -> None:
        super().__init__(runner, host, starts)
        self._runner = runner
        self._volumes = volumes
        self._host = host
        self._messages = RunMessages()

    async def CreateRun(self, request: pb.CreateRunRequest, context: Any) -> pb.CreateRunResponse:
        """Records a run, and starts it unless `do_not_start` is set."""
        plan = run_plan_messages.parse_run_plan(request.plan)
        await self._host.require(self._runner.foreign_guest(plan))
        run = await self._runner.create(
            plan=plan,
            options=messages.parse_options(request.options),
            image_digest=request.image_digest,
            request_id=request.request_id,
            start=not request.do_not_start,
            group=messages.parse_group(request.group) if request.HasField("group") else None,
            from_snapshot=request.from_snapshot,
            keep_policy=request.keep_policy,
        )
        return pb.CreateRunResponse(run=messages.format_run(run))

    async def StartRun(self, request: pb.StartRunRequest, context: Any) -> pb.StartRunResponse:
        """Starts a run that was created or ended."""
        plan = self._runner.register.find(request.run).run.plan
        await self._host.require(self._runner.foreign_guest(plan))
        run = await self._runner.start(request.run, request_id=request.request_id)
        return pb.StartRunResponse(run=messages.format_run(run))

    async def StopRun(self, request: pb.StopRunRequest, context: Any) -> pb.StopRunResponse:
        """Asks the workload to end, ends it by force after the timeout."""
        seconds = (
            messages.parse_span(request.timeout, "timeout") if request.HasField("timeout") else None
        )
        run = await self._runner.register.find(request.run).stop(seconds=seconds)
        return pb.StopRunResponse(run=messages.format_run(run))

    async def KillRun(self, request: pb.KillRunRequest, context: Any) -> pb.KillRunResponse:
        """Sends a signal to the workload."""
        run = await self._runner.kill(request.run, signal=request.signal)
        return pb.KillRunResponse(run=messages.format_run(run))

    async def PauseRun(self, request: pb.PauseRunRequest, context: Any) -> pb.PauseRunResponse:
        """Holds the microVM's CPUs."""
        run = await standing_still.pause(self._runner.register.find(request.run))
        return pb.PauseRunResponse(run=messages.format_run(run))

    async def ResumeRun(self, request: pb.ResumeRunRequest, context: Any) -> pb.ResumeRunResponse:
        """Lets a paused or suspended microVM go on."""
        run = await standing_still.resume(self._runner.register.find(request.run))
        return pb.ResumeRunResponse(run=messages.format_run(run))

    async def SuspendRun(
        self, request: pb.SuspendRunRequest, context: Any
    ) -> pb.SuspendRunResponse:
        """Saves a run's machine and gives its memory back."""
        run = await standing_still.suspend(self._runner.register.find(request.run))
        return pb.SuspendRunResponse(run=messages.format_run(run))

    async def RenameRun(self, request: pb.RenameRunRequest, context: Any) -> pb.RenameRunResponse:
        """Gives a run another name."""
        run = await self._runner.rename(request.run, request.name)
        return pb.RenameRunResponse(run=messages.format_run(run))

    async def RemoveRun(self, request: pb.RemoveRunRequest, context: Any) -> pb.RemoveRunResponse:
        """Removes a run with its writable layer and log."""
        run, request_id = request.run, request.request_id
        run_id = await self._runner.remove(run, force=request.force, request_id=request_id)
        return pb.RemoveRunResponse(run_id=run_id)

    async def PruneRuns(self, request: pb.PruneRunsRequest, context: Any) -> pb.PruneRunsResponse:
        """Removes every run that has ended."""
        run_ids, freed = await self._runner.prune(dry_run=request.dry_run)
        response = pb.PruneRunsResponse(run_ids=sorted(run_ids), freed_bytes=freed)
        if request.include_volumes:
            names, freed = await self._runner.prune_volumes(dry_run=request.dry_run)
            response.volumes.extend(names)
            response.freed_bytes += freed
        return response

    async def GetRun(self, request: pb.GetRunRequest, context: Any) -> pb.GetRunResponse:
        """Describes a run."""
        life = self._runner.register.find(request.run)
        return pb.GetRunResponse(run=messages.format_run(life.run))

    async def ListRuns(self, request: pb.ListRunsRequest, context: Any) -> pb.ListRunsResponse:
        """Lists runs, newest first, by pages."""
        runs = self._runner.register.select(
            labels=dict(request.labels), ended=request.include_ended, group=request.group
        )
        chosen, token = page(
            runs, key=place, size=request.page_size, token=request.page_token, descending=True
        )
        return pb.ListRunsResponse(
            runs=[self._messages.of(run) for run in chosen], next_page_token=token
        )

    async def WatchRun(
        self, request: pb.WatchRunRequest, context: Any
    ) -> AsyncIterator[pb.WatchRunResponse]:
        """Replays a run's events after a sequence, then follows."""
        life = self._runner.register.find(request.run)
        is_taken_up_again()
        async for event in life.record.history.follow(request.after_sequence):
            yield pb.WatchRunResponse(event=messages.format_event(event))
            is_last = event.sequence == life.run.sequence
            if request.until_ended and is_last and lifecycle.is_over(life.run):
                return

    async def WatchEvents(
        self, request: pb.WatchEventsRequest, context: Any
    ) -> AsyncIterator[pb.WatchEventsResponse]:
        """Tells what happens to every run, and what is decided about what they reach."""
        is_taken_up_again()
        with self._runner.events.watching() as events:
            yield pb.WatchEventsResponse()
            async for event in events:
                yield egress_messages.format_node_event(event)

    async def Attach(
        self, request_iterator: AsyncIterator[pb.AttachRequest], context: Any
    ) -> AsyncIterator[pb.AttachResponse]:
        """Connects a terminal or pipes to a process of a run."""
        requests = aiter(request_iterator)
        first = await anext(requests, None)
        if first is None or first.WhichOneof("message") != "start":
            raise RequestInvalid("the first message of Attach must be `start`")
        life = self._runner.register.find(first.start.run)
        if not first.start.HasField("exec"):
            is_taken_up_again()
        attachment = await self._attach(first.start)
        yield pb.AttachResponse(
            started=pb.Attached(run_id=life.run.run_id, exec_id=attachment.exec_id)
        )
        conversation = let_go(attachment) if first.start.leave else converse(attachment, requests)
        async with contextlib.aclosing(conversation) as answers:
            async for answer in answers:
                yield answer

    async def _attach(self, start: pb.AttachStart) -> Attachment:
        life = self._runner.register.find(start.run)
        terminal = (
            messages.parse_terminal(start.terminal, "start.terminal")
            if start.HasField("terminal")
            else None
        )
        if not start.HasField("exec"):
            return await attach_workload(life, replay=start.replay, terminal=terminal)
        if not start.exec.argv:
            raise RequestInvalid("`start.exec.argv` is empty")
        request = ExecRequest(
            argv=tuple(start.exec.argv),
            env=messages.parse_env(start.exec.env, "start.exec.env"),
            user=start.exec.user,
            workdir=start.exec.workdir,
            tty=start.exec.tty,
        )
        return await attach_exec(life, request, stdin=start.stdin, terminal=terminal)

    async def ReadLogs(
        self, request: pb.ReadLogsRequest, context: Any
    ) -> AsyncIterator[pb.ReadLogsResponse]:
        """Reads a run's log from disk and follows it where asked for."""
        life = self._runner.register.find(request.run)
        query = log_query.LogQuery(
            follow=request.follow,
            since_ns=request.since_time.ToNanoseconds() if request.HasField("since_time") else 0,
            until_ns=request.until_time.ToNanoseconds() if request.HasField("until_time") else None,
            tail_lines=request.tail_lines if request.HasField("tail_lines") else None,
        )
        if request.follow:
            is_taken_up_again()
        async for chunk in log_query.read(life.log, query):
            response = pb.ReadLogsResponse(stream=_LOG_STREAMS[chunk.stream], data=chunk.data)
            response.log_time.FromNanoseconds(chunk.time_ns)
            yield response

    async def GetStats(self, request: pb.GetStatsRequest, context: Any) -> pb.GetStatsResponse:
        """Says what runs use now."""
        usages = await self._runner.usage(list(request.runs))
        return pb.GetStatsResponse(stats=[usage_messages.format_usage(usage) for usage in usages])

    async def GetHost(self, request: pb.GetHostRequest, context: Any) -> pb.GetHostResponse:
        """Says what this node can run and what it lacks."""
        report = await self._host.examine(again=request.probe)
        return pb.GetHostResponse(
            checks=[messages.format_check(check) for check in report.checks],
            accelerator=report.accelerator,
        )

    async def CopyOut(
        self, request: pb.CopyOutRequest, context: Any
    ) -> AsyncIterator[pb.CopyOutResponse]:
        """Streams a path of the guest out as a tar archive."""
        pieces = copy_out(self._runner.register.find(request.run), request.path)
        async with contextlib.aclosing(pieces):
            async for piece in pieces:
                yield pb.CopyOutResponse(data=piece)

    async def CopyIn(
        self, request_iterator: AsyncIterator[pb.CopyInRequest], context: Any
    ) -> pb.CopyInResponse:
        """Unpacks a tar archive below a path of the guest."""
        requests = aiter(request_iterator)
        first = await anext(requests, None)
        if first is None or first.WhichOneof("step") != "header":
            raise RequestInvalid("the first message of CopyIn must be `header`")
        life = self._runner.register.find(first.header.run)
        count = await copy_in(life, first.header.path, _archive(requests))
        return pb.CopyInResponse(entry_count=count)

    async def StatPath(self, request: pb.StatPathRequest, context: Any) -> pb.StatPathResponse:
        """Says what is at a path of the guest."""
        life = self._runner.register.find(request.run)
        kind, followed, resolved = await stat_path(life, request.path)
        return pb.StatPathResponse(
            kind=_KINDS[kind], followed=_KINDS[followed], resolved_path=resolved
        )

    async def PublishPort(
        self, request: pb.PublishPortRequest, context: Any
    ) -> pb.PublishPortResponse:
        """Publishes a port of a live run."""
        wanted = parse_port(request.port)
        mapping = await self._runner.register.find(request.run).publish(wanted)
        return pb.PublishPortResponse(port=format_port(mapping))

    async def UnpublishPort(
        self, request: pb.UnpublishPortRequest, context: Any
    ) -> pb.UnpublishPortResponse:
        """Takes a published port back."""
        await self._runner.register.find(request.run).unpublish(parse_port(request.port))
        return pb.UnpublishPortResponse()

    async def CreateVolume(
        self, request: pb.CreateVolumeRequest, context: Any
    ) -> pb.CreateVolumeResponse:
        """Makes a named volume."""
        if request.limit_bytes < 0:
            raise invalid("limit_bytes", "must not be negative")
        volume = await self._volumes.create(
            request.name,
            limit_bytes=request.limit_bytes,
            labels=dict(request.labels),
            request_id=request.request_id,
        )
        return pb.CreateVolumeResponse(volume=messages.format_volume(volume))

    async def GetVolume(self, request: pb.GetVolumeRequest, context: Any) -> pb.GetVolumeResponse:
        """Describes a named volume."""
        volume = await self._volumes.get(request.name)
        return pb.GetVolumeResponse(volume=messages.format_volume(volume))

    async def ListVolumes(
        self, request: pb.ListVolumesRequest, context: Any
    ) -> pb.ListVolumesResponse:
        """Lists named volumes, sorted by name, by pages."""
        chosen, token = page(
            await self._volumes.all(),
            key=lambda volume: volume.name,
            size=request.page_size,
            token=request.page_token,
        )
        volumes = [messages.format_volume(volume) for volume in chosen]
        return pb.ListVolumesResponse(volumes=volumes, next_page_token=token)

    async def RemoveVolume(
        self, request: pb.RemoveVolumeRequest, context: Any
    ) -> pb.RemoveVolumeResponse:
        """Removes a named volume and what it holds."""
        await self._volumes.remove(request.name, request_id=request.request_id)
        return pb.RemoveVolumeResponse()


_KINDS = {
    "-": pb.StatPathResponse.KIND_NONE,
    "f": pb.StatPathResponse.KIND_FILE,
    "d": pb.StatPathResponse.KIND_DIRECTORY,
    "l": pb.StatPathResponse.KIND_LINK,
    "o": pb.StatPathResponse.KIND_OTHER,
}
_LOG_STREAMS = {
    LogStream.STDOUT: pb.ReadLogsResponse.STREAM_STDOUT,
    LogStream.STDERR: pb.ReadLogsResponse.STREAM_STDERR,
}


async def _archive(requests: AsyncIterator[pb.CopyInRequest]) -> AsyncIterator[bytes]:
    """Yields the chunks of a CopyIn up to its commit; without one the client is lost."""
    async for request in requests:
        step = request.WhichOneof("step")
        if step == "commit":
            return
        if step != "chunk":
            raise RequestInvalid("after `header` CopyIn takes `chunk` and `commit`")
        check_chunk(request.chunk)
        yield request.chunk
    raise RequestInvalid("the archive ended without `commit`")
