"""The standard health service, for one life: serving, then draining.

The official servicer keeps its watchers until the server's grace period is over; here a watch ends
once it has said NOT_SERVING, so that a load balancer does not hold up a drain.
"""

import asyncio
from collections.abc import AsyncIterator, Iterable
from typing import Any

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

HEALTH_SERVICE_NAME = "grpc.health.v1.Health"

_Status = health_pb2.HealthCheckResponse


class Probes(health_pb2_grpc.HealthServicer):
    """Says SERVING for each service and for the process (`""`) until `drain`."""

    def __init__(self, services: Iterable[str]) -> None:
        self._services = {"", *services}
        self._draining = asyncio.Event()

    def drain(self) -> None:
        """Says NOT_SERVING from now on, also to those who watch."""
        self._draining.set()

    async def Check(self, request: Any, context: Any) -> Any:  # noqa: N802  # gRPC's name
        """Answers with the present status; NOT_FOUND for a service that is not here."""
        if request.service not in self._services:
            await context.abort(grpc.StatusCode.NOT_FOUND, "no such service here")
        return _Status(status=self._status(request.service))

    async def List(self, request: Any, context: Any) -> Any:  # noqa: N802  # gRPC's name
        """Answers with the present status of every service."""
        return health_pb2.HealthListResponse(
            statuses={name: _Status(status=self._status(name)) for name in self._services}
        )

    async def Watch(self, request: Any, context: Any) -> AsyncIterator[Any]:  # noqa: N802  # gRPC's name
        """Sends the status now and when it changes; ends when the process drains."""
        drained = self._draining.is_set()  # it may be by the time that the first status was sent
        yield _Status(status=self._status(request.service))
        if not drained:
            await self._draining.wait()
            yield _Status(status=self._status(request.service))

    def _status(self, service: str) -> Any:
        if service not in self._services:
            return _Status.SERVICE_UNKNOWN
        return _Status.NOT_SERVING if self._draining.is_set() else _Status.SERVING
