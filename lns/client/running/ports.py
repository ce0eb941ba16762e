"""What the orchestration of a run needs of the services: the stubs, as far as it calls them.

The generated stubs fit as they are; so do the fakes of the tests.
"""

from collections.abc import AsyncIterable, AsyncIterator, Awaitable
from typing import Protocol

from lns.materializer.v1 import materializer_service_pb2 as materializer_pb
from lns.registry.v1 import registry_service_pb2 as registry_pb
from lns.resolver.v1 import resolver_service_pb2 as resolver_pb
from lns.vm.v1 import vm_service_pb2 as vm_pb


class Resolver(Protocol):
    """The resolver, as far as a run needs it."""

    def Resolve(
        self, request: resolver_pb.ResolveRequest, /
    ) -> Awaitable[resolver_pb.ResolveResponse]:
        """Resolves a reference into plans."""
        ...


class Gateway(Protocol):
    """The registry gateway, as far as a run needs it."""

    def Pull(self, request: registry_pb.PullRequest, /) -> AsyncIterable[registry_pb.PullResponse]:
        """Pulls a reference: progress, then the result."""
        ...

    def TagStoredImage(
        self, request: registry_pb.TagStoredImageRequest, /
    ) -> Awaitable[registry_pb.TagStoredImageResponse]:
        """Names an image in the store."""
        ...


class Materializer(Protocol):
    """The materializer, as far as a run needs it."""

    def Materialize(
        self, request: materializer_pb.MaterializeRequest, /
    ) -> AsyncIterable[materializer_pb.MaterializeResponse]:
        """Makes an image: progress, then the result."""
        ...


class Runner(Protocol):
    """The VM runner, as far as a run needs it."""

    def CreateRun(self, request: vm_pb.CreateRunRequest, /) -> Awaitable[vm_pb.CreateRunResponse]:
        """Records and starts a run."""
        ...

    def GetSnapshot(
        self, request: vm_pb.GetSnapshotRequest, /
    ) -> Awaitable[vm_pb.GetSnapshotResponse]:
        """Describes a snapshot."""
        ...

    def StartRun(self, request: vm_pb.StartRunRequest, /) -> Awaitable[vm_pb.StartRunResponse]:
        """Starts a run that was created or ended."""
        ...

    def StopRun(
        self, request: vm_pb.StopRunRequest, /, *, timeout: float | None = None
    ) -> Awaitable[vm_pb.StopRunResponse]:
        """Asks a run to end and waits for it, `timeout` seconds at most."""
        ...

    def ListRuns(self, request: vm_pb.ListRunsRequest, /) -> Awaitable[vm_pb.ListRunsResponse]:
        """Lists runs."""
        ...

    def GetRun(self, request: vm_pb.GetRunRequest, /) -> Awaitable[vm_pb.GetRunResponse]:
        """Describes a run."""
        ...

    def KillRun(self, request: vm_pb.KillRunRequest, /) -> Awaitable[vm_pb.KillRunResponse]:
        """Sends a signal to a run."""
        ...

    def RemoveRun(self, request: vm_pb.RemoveRunRequest, /) -> Awaitable[vm_pb.RemoveRunResponse]:
        """Removes a run."""
        ...

    def WatchRun(self, request: vm_pb.WatchRunRequest, /) -> AsyncIterable[vm_pb.WatchRunResponse]:
        """Replays and follows the events of a run."""
        ...

    def Attach(
        self, requests: AsyncIterator[vm_pb.AttachRequest], /
    ) -> AsyncIterable[vm_pb.AttachResponse]:
        """Connects to a workload or exec."""
        ...


class LogReader(Protocol):
    """The VM runner, as far as logs are read."""

    def ReadLogs(self, request: vm_pb.ReadLogsRequest, /) -> AsyncIterable[vm_pb.ReadLogsResponse]:
        """Reads a log, and follows it where asked for."""
        ...
