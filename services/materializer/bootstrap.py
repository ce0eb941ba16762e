"""The composition root of the materializer."""

import contextlib
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack
from pathlib import Path

from lns.materializer.v1 import materializer_service_pb2 as pb
from lns.materializer.v1 import materializer_service_pb2_grpc as rpc
from lns.registry.v1 import registry_service_pb2

from services.chassis.blocking import Blocking
from services.chassis.channel import open_channel
from services.chassis.locks import owner_lock
from services.chassis.server import Service
from services.chassis.settings import content_target
from services.materializer.adapters.catalogue import Catalogue
from services.materializer.adapters.disk_images import DiskImages
from services.materializer.adapters.disk_layers import DiskLayers
from services.materializer.adapters.gateway_blobs import GatewayBlobs
from services.materializer.adapters.gateway_refetch import GatewayRefetch
from services.materializer.adapters.shared_blobs import SharedBlobs
from services.materializer.adapters.store_files import StoreFiles
from services.materializer.adapters.worker_composer import WorkerComposer
from services.materializer.adapters.workers import Ground, Workers
from services.materializer.library import Library
from services.materializer.materialize import Materialize
from services.materializer.pins import Pins
from services.materializer.servicer import MaterializerServicer
from services.materializer.settings import BlobAccess, MaterializerProcess, MaterializerSettings
from services.materializer.verification import Verify

SOCKET = "materializer.sock"
_FILE_THREADS = 4


@contextlib.asynccontextmanager
async def open_services(settings: MaterializerProcess) -> AsyncIterator[Sequence[Service]]:
    """Opens the materializer of a process of its own; see `open_materializer`."""
    async with open_materializer(settings.home, settings.materializer) as service:
        yield [service]


@contextlib.asynccontextmanager
async def open_materializer(home: Path, own: MaterializerSettings) -> AsyncIterator[Service]:
    """Yields the materializer's service; owns the image store below `home` until the block ends.

    Raises:
        InUse: another process owns the store.
        Internal: the store cannot be used, or was written by a newer lns.
    """
    async with AsyncExitStack() as stack:
        files = StoreFiles(home)
        stack.enter_context(
            owner_lock(files.private / "lock", what=f"the image store below {home}")
        )
        files.sweep()
        records = stack.enter_context(Blocking(1, name="catalogue"))
        blocking = stack.enter_context(Blocking(_FILE_THREADS, name="image-files"))
        catalogue = Catalogue(files.private / "catalogue.sqlite")
        stack.callback(catalogue.close)
        images = DiskImages(files, catalogue, records)
        await images.recover()
        shared = own.blobs is BlobAccess.SHARED
        ground = _ground(files, home / "blobs" if shared else None)
        workers = await stack.enter_async_context(Workers(own.worker_count, ground))
        layers = DiskLayers(files, workers, blocking, own.limits.as_limits())
        composer = WorkerComposer(files, workers)
        gateway = await stack.enter_async_context(
            open_channel(
                own.registry_gateway,
                registry_service_pb2.DESCRIPTOR,
                default_target=content_target(home),
            )
        )
        pins = Pins()
        refetch = GatewayRefetch(gateway)
        materialize = Materialize(
            blobs=SharedBlobs(home, blocking) if shared else GatewayBlobs(gateway, files),
            refetch=refetch,
            layers=layers,
            composer=composer,
            images=images,
            pins=pins,
        )
        servicer = MaterializerServicer(
            materialize=materialize,
            library=Library(layers=layers, composer=composer, images=images, pins=pins),
            verify=Verify(
                composer=composer,
                images=images,
                pins=pins,
                materialize=materialize,
                refetch=refetch,
            ),
            blocking=blocking,
        )
        yield Service(
            add_to_server=rpc.add_MaterializerServiceServicer_to_server,
            servicer=servicer,
            full_name=pb.DESCRIPTOR.services_by_name["MaterializerService"].full_name,
        )


def _ground(files: StoreFiles, blobs: Path | None) -> Ground:
    """Returns what the workers have of the store."""
    read = [files.layers, files.images]
    if blobs is not None:
        blobs.mkdir(mode=0o755, exist_ok=True)  # the gateway may come later
        read.append(blobs)
    return Ground(read=[one.absolute() for one in read], write=[files.work.absolute()])
