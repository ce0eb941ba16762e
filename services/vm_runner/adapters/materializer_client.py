"""The node's images, through the materializer; both share the store with their files."""

from dataclasses import dataclass
from pathlib import Path

from lns.materializer.v1 import materializer_service_pb2 as pb
from lns.materializer.v1 import materializer_service_pb2_grpc as rpc

from services.core.errors import ContentCorrupt
from services.vm_runner.ports import Image


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredImage:
    """An image of the store."""

    metadata_path: Path
    pack_paths: tuple[Path, ...]
    read_only_paths: tuple[str, ...]
    has_acl: bool


class MaterializerImages:
    """Images of the materializer.

    Args:
        stub: of its service.
        root: the store that both share; its paths are relative to it.
    """

    def __init__(self, stub: rpc.MaterializerServiceStub, *, root: Path) -> None:
        self._stub = stub
        self._root = root

    async def lease(self, run_id: str, image_digest: str) -> Image:
        """Keeps an image from being pruned for a run, until it is released."""
        request = pb.AcquireLeaseRequest(
            lease_id=_lease_id(run_id), holder=f"run {run_id}", image=image_digest
        )
        response = await self._stub.AcquireLease(request)
        image = response.image
        return StoredImage(
            metadata_path=self._path(image.metadata_path),
            pack_paths=tuple(
                self._path(layer.objects_path) for layer in image.layers if layer.objects_path
            ),
            read_only_paths=tuple(image.read_only_paths),
            has_acl=image.has_acl,
        )

    async def release(self, run_id: str) -> None:
        """Gives a run's lease up."""
        await self._stub.ReleaseLease(pb.ReleaseLeaseRequest(lease_id=_lease_id(run_id)))

    def _path(self, relative: str) -> Path:
        path = self._root / relative
        if ".." in path.parts or Path(relative).is_absolute():
            raise ContentCorrupt(f"the image store names a file outside of itself: {relative}")
        return path


def _lease_id(run_id: str) -> str:
    return f"run-{run_id}"
