"""`ProcessService`, which every server has beside its own services."""

import asyncio
import os
import threading
from typing import Any

from lns.process.v1 import process_service_pb2 as pb
from lns.process.v1 import process_service_pb2_grpc as rpc

from services.chassis.sampling import LONGEST_SECONDS, sample
from services.core.errors import CallerDenied, InUse, RequestInvalid

PROCESS_SERVICE_NAME = pb.DESCRIPTOR.services_by_name["ProcessService"].full_name


class ProcessServicer(rpc.ProcessServiceServicer):
    """Takes profiles of its process, one at a time.

    Args:
        authorized: whether callers over TCP are held against `server.allow`.
    """

    def __init__(self, *, authorized: bool) -> None:
        self._authorized = authorized
        self._taking = asyncio.Lock()

    async def TakeProfile(self, request: pb.TakeProfileRequest, context: Any) -> Any:
        """Samples in a thread of its own; a caller that leaves ends that."""
        if not self._authorized and not context.peer().startswith("unix:"):
            raise CallerDenied(
                "profiles are for callers on this machine, or with a certificate",
                hint="call it over the unix socket, or give the server certificates and rules",
            )
        if not 1 <= request.seconds <= LONGEST_SECONDS:
            raise RequestInvalid(f"seconds must be 1 to {LONGEST_SECONDS}, not {request.seconds}")
        if self._taking.locked():
            raise InUse("a profile of this process is being taken", hint="try again after it")
        async with self._taking:
            stop = threading.Event()
            try:
                profile = await asyncio.to_thread(sample, float(request.seconds), stop=stop)
            finally:
                stop.set()
        return pb.TakeProfileResponse(
            stacks=[
                pb.ProfiledStack(frames=stack, samples=count) for stack, count in profile.stacks
            ],
            looks=profile.looks,
            pid=os.getpid(),
        )
