"""The composition root of the resolver: settings in, a servable service out."""

import contextlib
import platform
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

from lns.registry.v1 import registry_service_pb2
from lns.resolver.v1 import resolver_service_pb2 as pb
from lns.resolver.v1 import resolver_service_pb2_grpc as rpc

from services.chassis.channel import open_channel
from services.chassis.machine import own_platform
from services.chassis.server import Service
from services.chassis.settings import content_target
from services.core.platforms import Platform
from services.core.version import VERSION
from services.resolver.adapters.gateway_manifests import GatewayManifests
from services.resolver.locking import Locking
from services.resolver.manifest_cache import ManifestCache
from services.resolver.ports import ManifestSource
from services.resolver.resolution import Settings
from services.resolver.resolve import Resolver
from services.resolver.servicer import ResolverServicer
from services.resolver.settings import ResolverProcess, ResolverSettings

SOCKET = "resolver.sock"


@contextlib.asynccontextmanager
async def open_services(settings: ResolverProcess) -> AsyncIterator[Sequence[Service]]:
    """Opens the resolver of a process of its own; see `open_resolver`."""
    async with open_resolver(settings.home, settings.resolver) as service:
        yield [service]


@contextlib.asynccontextmanager
async def open_resolver(home: Path, settings: ResolverSettings) -> AsyncIterator[Service]:
    """Yields the resolver's service, which asks the gateway of the settings.

    Args:
        home: the state directory; the gateway is at the suite's socket below it where the settings
            give it no address.
        settings: the resolver's own part.

    Raises:
        SettingsInvalid: the gateway's address or TLS files cannot be used.
    """
    async with open_channel(
        settings.registry_gateway,
        registry_service_pb2.DESCRIPTOR,
        default_target=content_target(home),
    ) as channel:
        yield service_with(GatewayManifests(channel), settings)


def service_with(manifests: ManifestSource, settings: ResolverSettings) -> Service:
    """Returns the resolver's service on a source of manifests; tests bring a fake."""
    cached = ManifestCache(manifests, max_bytes=settings.cache)
    resolver = Resolver(
        cached,
        Settings(
            platform=Platform.parse(settings.platform)
            if settings.platform
            else Platform.of_machine(platform.machine()),
            machine=own_platform(settings.platform),
            version=VERSION,
            parallel_fetches=settings.parallel_fetches,
        ),
    )
    return Service(
        add_to_server=rpc.add_ResolverServiceServicer_to_server,
        servicer=ResolverServicer(resolver, Locking(resolver, cached)),
        full_name=pb.DESCRIPTOR.services_by_name["ResolverService"].full_name,
    )
