"""The composition root of the gateway: settings in, a servable service out."""

import contextlib
import platform
import shutil
from collections.abc import AsyncIterator, Iterator, Sequence
from pathlib import Path

from lns.registry.v1 import registry_service_pb2 as pb
from lns.registry.v1 import registry_service_pb2_grpc as rpc

from services.chassis.blocking import Blocking
from services.chassis.locks import owner_lock
from services.chassis.server import Service
from services.core.descriptor import Platform
from services.registry_gateway.adapters.authenticator import Authenticator
from services.registry_gateway.adapters.credential_chain import CredentialChain
from services.registry_gateway.adapters.device_flow import DeviceFlow
from services.registry_gateway.adapters.disk_store import DiskStore
from services.registry_gateway.adapters.docker_config import DockerConfig
from services.registry_gateway.adapters.download import Downloader, SegmentPolicy
from services.registry_gateway.adapters.exchange import Exchange, RetryPolicy
from services.registry_gateway.adapters.http_client import HttpClient, Timeouts
from services.registry_gateway.adapters.image_sources import LocalImageSources
from services.registry_gateway.adapters.login_file import LoginFile
from services.registry_gateway.adapters.oras_registry import OrasRegistry
from services.registry_gateway.adapters.origin import Locator
from services.registry_gateway.adapters.os_keyring import open_keyring
from services.registry_gateway.adapters.sqlite_index import SqliteIndex
from services.registry_gateway.adapters.type_authority import HttpTypeAuthority
from services.registry_gateway.adapters.upload import ChunkPolicy, Uploader
from services.registry_gateway.artifact_types import ArtifactTypes
from services.registry_gateway.blobs import Blobs
from services.registry_gateway.device_logins import DeviceLogins
from services.registry_gateway.fetch import BlobFetcher
from services.registry_gateway.logins import Logins
from services.registry_gateway.manifests import Manifests
from services.registry_gateway.pins import Pins
from services.registry_gateway.pull import Pull
from services.registry_gateway.push import Pusher
from services.registry_gateway.push_artifact import PushArtifact
from services.registry_gateway.push_image import PushImage
from services.registry_gateway.repositories import Repositories
from services.registry_gateway.servicer import RegistryServicer, UseCases
from services.registry_gateway.settings import GatewayProcess, GatewaySettings
from services.registry_gateway.stored_images import StoredImages

SOCKET = "registry_gateway.sock"
_CALLS = 16
_DISK = 4
_PACKING = 2


@contextlib.asynccontextmanager
async def open_services(settings: GatewayProcess) -> AsyncIterator[Sequence[Service]]:
    """Opens the gateway of a process of its own; see `open_gateway`."""
    async with open_gateway(settings.home, settings.registry_gateway) as service:
        yield [service]


@contextlib.asynccontextmanager
async def open_gateway(home: Path, settings: GatewaySettings) -> AsyncIterator[Service]:
    """Yields the gateway's service; owns the blob store below `home` until the block ends.

    Raises:
        InUse: another process owns the store.
        SettingsInvalid: a setting cannot be used.
    """
    with contextlib.ExitStack() as stack:
        temporary = stack.enter_context(_owned(home))
        disk = stack.enter_context(Blocking(_DISK, name="gateway-disk"))
        packing = stack.enter_context(Blocking(_PACKING, name="gateway-packing"))
        calls = stack.enter_context(Blocking(_CALLS, name="gateway-calls"))
        transfers = stack.enter_context(Blocking(settings.parallel_blobs, name="gateway-transfers"))
        store = DiskStore(home / "blobs", disk, reserve_bytes=settings.reserve)
        index = stack.enter_context(
            contextlib.closing(SqliteIndex(home / "gateway" / "index.sqlite"))
        )
        keyring = open_keyring()
        logins = LoginFile(settings.auth_path, keyring, prefer_keyring=settings.use_keyring)
        credentials = CredentialChain(
            [
                logins,
                *([keyring] if keyring else []),
                DockerConfig(settings.docker_config, name="docker"),
                DockerConfig(settings.auth_file, name="auth.json"),
            ]
        )
        locator = Locator(
            plain_http=frozenset(settings.plain_http),
            loopback_tls=frozenset(settings.loopback_tls),
        )
        http = stack.enter_context(
            contextlib.closing(
                HttpClient(
                    timeouts=Timeouts(
                        connect=settings.connect_timeout, stall=settings.stall_timeout
                    ),
                    ca_files=settings.ca_files,
                )
            )
        )
        exchange = Exchange(
            http,
            Authenticator(http, credentials, host_of=locator.host),
            policy=RetryPolicy(attempts=settings.attempts),
        )
        downloader = stack.enter_context(contextlib.closing(Downloader(exchange, SegmentPolicy())))
        registry = OrasRegistry(
            exchange=exchange,
            locator=locator,
            downloader=downloader,
            uploader=Uploader(exchange, ChunkPolicy()),
            calls=calls,
            transfers=transfers,
        )
        pins = Pins()
        fetcher = BlobFetcher(registry, store)
        manifests = Manifests(registry=registry, store=store, index=index, fetcher=fetcher)
        types = ArtifactTypes(
            HttpTypeAuthority(exchange=exchange, locator=locator, blocking=calls), calls
        )
        pusher = Pusher(registry, index)
        images = StoredImages(store=store, index=index, pins=pins)
        own = Platform.parse(settings.platform or f"linux/{platform.machine()}")
        own_logins = Logins(logins, registry, calls)
        use = UseCases(
            repositories=Repositories(registry=registry, manifests=manifests, pins=pins),
            pull=Pull(
                manifests=manifests,
                fetcher=fetcher,
                store=store,
                index=index,
                pins=pins,
                types=types,
                platform=own,
            ),
            push_artifact=PushArtifact(
                pusher=pusher, store=store, index=index, pins=pins, types=types
            ),
            push_image=PushImage(
                registry=registry,
                pusher=pusher,
                fetcher=fetcher,
                manifests=manifests,
                store=store,
                index=index,
                pins=pins,
                sources=LocalImageSources(
                    packing, temporary=temporary, docker_socket=settings.docker_socket
                ),
                platform=own,
                default_registry=settings.default_registry,
            ),
            blobs=Blobs(store=store, pins=pins, images=images, blocking=disk),
            types=types,
            images=images,
            logins=own_logins,
            device_logins=DeviceLogins(DeviceFlow(http, locator, calls), own_logins),
        )
        yield Service(
            add_to_server=rpc.add_RegistryServiceServicer_to_server,
            servicer=RegistryServicer(use, default_registry=settings.default_registry),
            full_name=pb.DESCRIPTOR.services_by_name["RegistryService"].full_name,
        )


@contextlib.contextmanager
def _owned(home: Path) -> Iterator[Path]:
    """Owns the blob store below `home`; yields an empty directory for temporary files."""
    own = home / "gateway"
    for directory in (home, own):
        directory.mkdir(parents=True, exist_ok=True, mode=0o700)
    with owner_lock(own / "lock", what=f"the blob store below {home}"):
        temporary = own / "temporary"
        shutil.rmtree(temporary, ignore_errors=True)  # what a crash left
        temporary.mkdir(mode=0o700)
        yield temporary
