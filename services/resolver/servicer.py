"""The gRPC face of the resolver: parses, calls, formats."""

from typing import Any

from lns.resolver.v1 import resolver_service_pb2 as pb
from lns.resolver.v1 import resolver_service_pb2_grpc as rpc

from services.chassis.messages import invalid
from services.resolver import messages
from services.resolver.locking import Locking
from services.resolver.resolve import Resolver


class ResolverServicer(rpc.ResolverServiceServicer):
    """Implements `lns.resolver.v1.ResolverService`."""

    def __init__(self, resolver: Resolver, locking: Locking) -> None:
        self._resolver = resolver
        self._locking = locking

    async def Resolve(self, request: pb.ResolveRequest, context: Any) -> pb.ResolveResponse:
        """See the proto."""
        platform = messages.parse_wanted_platform(request)
        overrides = messages.parse_overrides(request.overrides)
        defaults = messages.parse_defaults(request.defaults)
        match request.WhichOneof("target"):
            case "reference":
                plans = await self._resolver.resolve(
                    request.reference,
                    overrides=overrides,
                    defaults=defaults,
                    platform=platform,
                    offline=request.offline,
                    foreign=request.emulate_foreign,
                )
            case "lock":
                plans = await self._locking.resolve(
                    request.lock,
                    overrides=overrides,
                    defaults=defaults,
                    platform=platform,
                    offline=request.offline,
                )
            case "imageless":
                plans = await self._resolver.resolve_imageless(
                    overrides=overrides, defaults=defaults
                )
            case _:
                raise invalid("target", "is missing: give a reference, a lock or imageless")
        return messages.format_plans(plans)

    async def Lock(self, request: pb.LockRequest, context: Any) -> pb.LockResponse:
        """See the proto."""
        platform = messages.parse_wanted_platform(request)
        return messages.format_locked(
            await self._locking.lock(
                request.reference, platform=platform, foreign=request.emulate_foreign
            )
        )

    async def CheckLock(self, request: pb.CheckLockRequest, context: Any) -> pb.CheckLockResponse:
        """See the proto."""
        return messages.format_differences(await self._locking.check(request.lock))
