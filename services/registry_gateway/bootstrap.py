"""The composition root of the gateway: settings in, a servable service out."""

import contextlib
import os
import shutil
from collections.abc import AsyncIterator, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from lns.registry.v1 import registry_service_pb2 as pb
from lns.registry.v1 import registry_service_pb2_grpc as rpc

from services.chassis.blocking import Blocking
from services.chassis.locks import owner_lock
from services.chassis.machine import own_platform
from services.chassis.server import Service
from services.registry_gateway.adapters.credentials.authenticator import Authenticator
from services.registry_gateway.adapters.credentials.credential_chain import CredentialChain
from services.registry_gateway.adapters.credentials.device_flow import DeviceFlow
from services.registry_gateway.adapters.credentials.docker_config import DockerConfig
from services.registry_gateway.adapters.credentials.login_file import LoginFile
from services.registry_gateway.adapters.credentials.os_keyring import open_keyring
from services.registry_gateway.adapters.registry.download import Downloader, SegmentPolicy
from services.registry_gateway.adapters.registry.exchange import Exchange, RetryPolicy
from services.registry_gateway.adapters.registry.mirrored_registry import MirroredRegistry
from services.registry_gateway.adapters.registry.oras_registry import OrasRegistry
from services.registry_gateway.adapters.registry.shares import Shares
from services.registry_gateway.adapters.registry.type_authority import HttpTypeAuthority
from services.registry_gateway.adapters.registry.upload import ChunkPolicy, Uploader
from services.registry_gateway.adapters.sources.image_sources import LocalImageSources
from services.registry_gateway.adapters.sources.spool import Spool
from services.registry_gateway.adapters.store.disk_store import DiskStore
from services.registry_gateway.adapters.store.sqlite_index import SqliteIndex
from services.registry_gateway.adapters.store.upload_sessions import UploadSessionFiles
from services.registry_gateway.adapters.transport.http_client import HttpClient, Timeouts
from services.registry_gateway.adapters.transport.origin import Locator
from services.registry_gateway.adapters.transport.pace import Rate
from services.registry_gateway.adapters.transport.proxies import Proxies
from services.registry_gateway.artifact_types import ArtifactTypes
from services.registry_gateway.blobs import Blobs
from services.registry_gateway.by_caller import ByCaller
from services.registry_gateway.copy_image import CopyImage
from services.registry_gateway.device_logins import DeviceLogins
from services.registry_gateway.fetch import BlobFetcher
from services.registry_gateway.login_ports import DeviceIssuer, Keyring, LoginCheck, LoginStore
from services.registry_gateway.logins import Logins
from services.registry_gateway.manifests import Manifests
from services.registry_gateway.own_namespace import OwnNamespace
from services.registry_gateway.pins import Pins
from services.registry_gateway.ports import (
    BlobStore,
    ImageSources,
    Registry,
    StoreIndex,
    TypeAuthority,
)
from services.registry_gateway.pull import Pull
from services.registry_gateway.push import Pusher
from services.registry_gateway.push_artifact import PushArtifact
from services.registry_gateway.push_image import PushImage
from services.registry_gateway.repositories import Repositories
from services.registry_gateway.servicer import RegistryServicer, UseCases
from services.registry_gateway.settings import GatewayProcess, GatewaySettings
from services.registry_gateway.stored_images import StoredImages

SOCKET = "registry_gateway.sock"
_CALLS = 64
_CALLS_SHARE = 8
"""Small requests of one registry at a time: eight slow ones leave the others their threads."""
_TRANSFERS_FACTOR = 8
"""For so many registries, each with `parallel_blobs`, there are threads."""
_WORK = 8
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
        servicer = assemble(_open_parts(stack, home, settings), settings)
        yield Service(
            add_to_server=rpc.add_RegistryServiceServicer_to_server,
            servicer=servicer,
            full_name=pb.DESCRIPTOR.services_by_name["RegistryService"].full_name,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Parts:
    """What the gateway stands on; a test may put fakes in their places."""

    registry: Registry
    login_check: LoginCheck
    store: BlobStore
    index: StoreIndex
    sources: ImageSources
    authority: TypeAuthority
    login_store: LoginStore
    device_issuer: DeviceIssuer
    disk: Blocking
    calls: Blocking


def assemble(parts: Parts, settings: GatewaySettings) -> RegistryServicer:
    """Puts the use cases together."""
    own = own_platform(settings.platform)
    store, index, pins = parts.store, parts.index, Pins()
    registry = OwnNamespace(parts.registry, store, index)
    fetcher = BlobFetcher(registry, store)
    manifests = Manifests(registry=registry, store=store, index=index, fetcher=fetcher, machine=own)
    types = ArtifactTypes(parts.authority, parts.calls)
    pusher = Pusher(registry, index)
    images = StoredImages(store=store, index=index, pins=pins)
    logins = Logins(parts.login_store, parts.login_check, parts.calls)
    repositories = Repositories(registry=registry, manifests=manifests, pins=pins)
    use = UseCases(
        repositories=repositories,
        pull=Pull(
            manifests=manifests,
            fetcher=fetcher,
            store=store,
            index=index,
            pins=pins,
            types=types,
            platform=own,
        ),
        push_artifact=PushArtifact(pusher=pusher, store=store, index=index, pins=pins, types=types),
        copy_image=CopyImage(
            registry=registry,
            pusher=pusher,
            fetcher=fetcher,
            manifests=manifests,
            store=store,
            pins=pins,
            repositories=repositories,
        ),
        push_image=PushImage(
            pusher=pusher,
            manifests=manifests,
            store=store,
            index=index,
            pins=pins,
            sources=parts.sources,
            platform=own,
            default_registry=settings.default_registry,
        ),
        blobs=Blobs(store=store, pins=pins, images=images, blocking=parts.disk),
        types=types,
        images=images,
        logins=logins,
        device_logins=DeviceLogins(parts.device_issuer, logins),
    )
    return RegistryServicer(use, default_registry=settings.default_registry)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Shared:
    """What all callers of the gateway have in common."""

    disk: Blocking
    work: Blocking
    packing: Blocking
    calls: Shares
    transfers: Shares
    sessions: UploadSessionFiles
    spool: Spool
    keyring: Keyring | None


@dataclass(frozen=True, slots=True, kw_only=True)
class _Outside:
    """What depends on the environment of a caller: where logins are, how registries are reached."""

    registry: Registry
    login_check: LoginCheck
    login_store: LoginStore
    authority: TypeAuthority
    device_issuer: DeviceIssuer
    sources: ImageSources


def _open_parts(stack: contextlib.ExitStack, home: Path, settings: GatewaySettings) -> Parts:
    """Opens the real adapters; `stack` closes them in reverse."""

    def threads(limit: int, name: str) -> Blocking:
        return stack.enter_context(Blocking(limit, name=f"gateway-{name}"))

    temporary = stack.enter_context(_owned(home))
    index = SqliteIndex(home / "gateway" / "index.sqlite")
    stack.callback(index.close)
    blobs = settings.parallel_blobs
    shared = _Shared(
        disk=threads(_DISK, "disk"),
        work=threads(_WORK, "work"),
        packing=threads(_PACKING, "packing"),
        calls=Shares(threads(_CALLS, "calls"), share=_CALLS_SHARE),
        transfers=Shares(threads(blobs * _TRANSFERS_FACTOR, "transfers"), share=blobs),
        sessions=UploadSessionFiles(directory=home / "gateway" / "uploads"),
        spool=Spool(temporary, reserve_bytes=settings.reserve),
        keyring=open_keyring(),
    )
    shared.sessions.sweep()
    own = dict(os.environ)
    outside = ByCaller(
        stack,
        lambda closing, caller: _open_outside(
            closing, settings if caller is None else settings.of_caller(own, caller), shared
        ),
    )
    return Parts(
        registry=outside.part(lambda one: one.registry),
        login_check=outside.part(lambda one: one.login_check),
        store=DiskStore(home / "blobs", shared.disk, reserve_bytes=settings.reserve),
        index=index,
        sources=outside.part(lambda one: one.sources),
        authority=outside.part(lambda one: one.authority),
        login_store=outside.part(lambda one: one.login_store),
        device_issuer=outside.part(lambda one: one.device_issuer),
        disk=shared.disk,
        calls=shared.work,
    )


def _open_outside(
    stack: contextlib.ExitStack, settings: GatewaySettings, shared: _Shared
) -> _Outside:
    """Opens what one environment asks for."""
    locator = Locator(
        plain_http=frozenset(settings.plain_http), loopback_tls=frozenset(settings.loopback_tls)
    )
    http = _http_client(settings)
    stack.callback(http.close)
    logins = LoginFile(settings.auth_path, shared.keyring, prefer_keyring=settings.use_keyring)
    credentials = _credentials(settings, logins, shared.keyring)
    exchange = Exchange(
        http,
        Authenticator(http, credentials, host_of=locator.host),
        policy=RetryPolicy(attempts=settings.attempts),
    )
    downloader = Downloader(exchange, _segment_policy(settings))
    stack.callback(downloader.close)
    registry = OrasRegistry(
        exchange=exchange,
        locator=locator,
        downloader=downloader,
        uploader=Uploader(exchange, _chunk_policy(settings), shared.sessions),
        calls=shared.calls,
        transfers=shared.transfers,
    )
    return _Outside(
        registry=MirroredRegistry(registry, settings.mirrors) if settings.mirrors else registry,
        login_check=registry,
        login_store=logins,
        authority=HttpTypeAuthority(exchange=exchange, locator=locator, calls=shared.calls),
        device_issuer=DeviceFlow(http, locator, shared.work),
        sources=LocalImageSources(
            shared.packing, spool=shared.spool, docker_socket=settings.docker_socket
        ),
    )


def _http_client(settings: GatewaySettings) -> HttpClient:
    rate = Rate(
        window=settings.rate_window, least=settings.least_rate, total=settings.request_timeout
    )
    return HttpClient(
        timeouts=Timeouts(
            connect=settings.connect_timeout, stall=settings.stall_timeout, rate=rate
        ),
        ca_files=settings.ca_files,
        proxies=Proxies(
            by_host=settings.proxies,
            http=settings.http_proxy,
            https=settings.https_proxy,
            exceptions=settings.no_proxy,
        ),
    )


def _chunk_policy(settings: GatewaySettings) -> ChunkPolicy:
    return ChunkPolicy(least_bytes=2 * settings.upload_chunk, chunk_bytes=settings.upload_chunk)


def _segment_policy(settings: GatewaySettings) -> SegmentPolicy:
    return SegmentPolicy(
        least_bytes=4 * settings.range_size,
        least_latency=settings.range_latency,
        segment_bytes=settings.range_size,
    )


def _credentials(
    settings: GatewaySettings, logins: LoginFile, keyring: Keyring | None
) -> CredentialChain:
    return CredentialChain(
        [
            logins,
            *([keyring] if keyring else []),
            DockerConfig(settings.docker_config, name="docker"),
            DockerConfig(settings.auth_file, name="auth.json"),
        ]
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
