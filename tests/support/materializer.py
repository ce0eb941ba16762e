"""A served materializer on a store of its own, and images to put into that store."""

import bz2
import contextlib
import gzip
import json
import lzma
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import zstandard
from lns.materializer.v1 import materializer_service_pb2 as pb
from lns.materializer.v1 import materializer_service_pb2_grpc as rpc

from services.chassis.channel import open_channel
from services.chassis.server import running_server
from services.chassis.settings import PeerSettings, ServerSettings
from services.core.artifacts.families import Family
from services.core.descriptor import OCI_IMAGE_CONFIG, OCI_LAYER_GZIP, OCI_LAYER_ZSTD, OCI_MANIFEST
from services.core.digest import Digest
from services.materializer.bootstrap import open_materializer
from services.materializer.settings import MaterializerSettings
from tests.support.documents import document


class BlobDirectory:
    """The blobs of a state directory, as the gateway keeps them."""

    def __init__(self, home: Path) -> None:
        self.path = home / "blobs" / "sha256"
        self.path.mkdir(parents=True, exist_ok=True)

    def put(self, data: bytes, *, algorithm: str = "sha256") -> Digest:
        """Stores bytes."""
        digest = Digest.of(data, algorithm=algorithm)
        directory = self.path.with_name(algorithm)
        directory.mkdir(exist_ok=True)
        (directory / digest.hex).write_bytes(data)
        return digest

    def put_json(self, document: dict[str, Any], *, algorithm: str = "sha256") -> Digest:
        """Stores a document."""
        return self.put(json.dumps(document).encode(), algorithm=algorithm)

    def descriptor(
        self, data: bytes, media_type: str, *, algorithm: str = "sha256"
    ) -> dict[str, Any]:
        """Stores bytes; returns their descriptor."""
        digest = self.put(data, algorithm=algorithm)
        return {"mediaType": media_type, "digest": digest, "size": len(data)}

    def image(
        self,
        *layers: bytes,
        compression: str = "gzip",
        diff_ids: Sequence[str] | None = None,
        media_type: str = "",
        algorithm: str = "sha256",
    ) -> Digest:
        """Stores an image of these uncompressed layers; returns its manifest's digest."""
        known: list[str] = [Digest.of(layer, algorithm=algorithm) for layer in layers]
        config = {
            "rootfs": {"type": "layers", "diff_ids": diff_ids if diff_ids is not None else known}
        }
        packed = [_compress(layer, compression) for layer in layers]
        kind = media_type or (OCI_LAYER_ZSTD if compression == "zstd" else OCI_LAYER_GZIP)
        return self.put_json(
            {
                "schemaVersion": 2,
                "mediaType": OCI_MANIFEST,
                "config": self.descriptor(
                    json.dumps(config).encode(), OCI_IMAGE_CONFIG, algorithm=algorithm
                ),
                "layers": [self.descriptor(one, kind, algorithm=algorithm) for one in packed],
            },
            algorithm=algorithm,
        )

    def artifact(self, family: Family, spec: dict[str, Any], *layers: bytes) -> Digest:
        """Stores an artifact with layers as they are given; returns its manifest's digest."""
        config = json.dumps(document(family, "thing", spec)).encode()
        return self.put_json(
            {
                "schemaVersion": 2,
                "mediaType": OCI_MANIFEST,
                "artifactType": family.artifact_type,
                "config": self.descriptor(config, family.config_media_type),
                "layers": [self.descriptor(layer, OCI_LAYER_GZIP) for layer in layers],
            }
        )


def _compress(data: bytes, compression: str) -> bytes:
    compressors: dict[str, Callable[[bytes], bytes]] = {
        "gzip": lambda plain: gzip.compress(plain, 1, mtime=0),
        "zstd": zstandard.compress,
        "xz": lzma.compress,
        "bzip2": bz2.compress,
        "none": bytes,
    }
    return compressors[compression](data)


@dataclass(slots=True)
class Made:
    """What a Materialize call answered."""

    image: pb.Image = field(default_factory=pb.Image)
    warnings: list[str] = field(default_factory=list)
    already_existed: bool = False
    stages: list[tuple[str, int]] = field(default_factory=list)


@dataclass(slots=True)
class Client:
    """A materializer's stub with its store."""

    stub: rpc.MaterializerServiceStub
    home: Path
    blobs: BlobDirectory

    async def materialize(self, manifest: Digest | str, *mounts: pb.Mount) -> Made:
        """Makes an image; the call's progress as pairs of digest and stage."""
        made = Made()
        request = pb.MaterializeRequest(manifest_digest=manifest, mounts=mounts)
        async for response in self.stub.Materialize(request):
            if response.WhichOneof("event") == "progress":
                made.stages.append((response.progress.digest, response.progress.stage))
            else:
                made.image = response.result.image
                made.warnings = list(response.result.warnings)
                made.already_existed = response.result.already_existed
        assert made.image.composefs_digest
        return made

    async def read(self, image: str, file: pb.ImageFile, **more: Any) -> bytes:
        """The bytes of a file of an image."""
        request = pb.ReadImageFileRequest(image=image, file=file, **more)
        return b"".join([response.data async for response in self.stub.ReadImageFile(request)])

    async def dump(self, image: str) -> list[str]:
        """The lines of an image's dump."""
        return (await self.read(image, pb.IMAGE_FILE_DUMP)).decode().splitlines()

    def stored(self) -> dict[str, list[str]]:
        """What lies in the store, by directory."""
        return {
            name: sorted(path.name for path in (self.home / name).iterdir())
            for name in ("layers", "images", "materializer/work")
        }


@contextlib.asynccontextmanager
async def served(home: Path, settings: MaterializerSettings | None = None) -> AsyncIterator[Client]:
    """Serves a materializer of the store at `home`, in this process."""
    address = f"unix:{home}/materializer.sock"
    async with (
        open_materializer(home, settings or MaterializerSettings(workers=2)) as service,
        running_server(ServerSettings(listen=(address,), grace=0.2), [service]),
        open_channel(PeerSettings(target=address, timeout=30), pb.DESCRIPTOR) as channel,
    ):
        yield Client(rpc.MaterializerServiceStub(channel), home, BlobDirectory(home))
