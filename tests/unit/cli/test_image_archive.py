"""Which images an archive has, and what is written into one."""

import gzip
import io
import json
import lzma
import tarfile
from collections.abc import AsyncIterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import zstandard
from lns.registry.v1 import registry_service_pb2 as pb
from lns.types.v1 import descriptor_pb2

from cli.image_archive import Loadable, images_of, save
from services.core.digest import Digest
from services.core.errors import RequestInvalid

PACKED = {"": bytes, "gzip": gzip.compress, "zstd": zstandard.compress, "xz": lzma.compress}


def archive(path: Path, *, compress: str = "", prefix: str = "", **documents: Any) -> Path:
    output = io.BytesIO()
    with tarfile.open(fileobj=output, mode="w") as tar:
        for name, document in documents.items():
            data = json.dumps(document).encode()
            info = tarfile.TarInfo(f"{prefix}{name}.json")
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    data = output.getvalue()
    path.write_bytes(PACKED[compress](data))
    return path


NAMED = {"annotations": {"io.containerd.image.name": "r.example/i:1"}}
PODMANS = {"annotations": {"org.opencontainers.image.ref.name": "localhost/app:1"}}
TAGGED = {"annotations": {"org.opencontainers.image.ref.name": "v1"}}


@pytest.mark.parametrize("compress", PACKED)
@pytest.mark.parametrize("prefix", ["", "./", "/"])
@pytest.mark.parametrize(
    ("documents", "expected"),
    [
        (
            {"manifest": [{"RepoTags": ["a:1", "b:2"]}, {"RepoTags": ["c:3"]}]},
            [("docker-archive:{}:a:1", ("a:1", "b:2")), ("docker-archive:{}:c:3", ("c:3",))],
        ),
        ({"manifest": [{"RepoTags": None}]}, [("docker-archive:{}", ())]),
        ({"manifest": [{}]}, [("docker-archive:{}", ())]),
        ({"index": {"manifests": [NAMED]}}, [("oci-archive:{}", ("r.example/i:1",))]),
        ({"index": {"manifests": [{}]}}, [("oci-archive:{}", ())]),
        ({"index": {"manifests": [PODMANS]}}, [("oci-archive:{}", ("localhost/app:1",))]),
        ({"index": {"manifests": [TAGGED]}}, [("oci-archive:{}", ())]),
        (
            {"index": {"manifests": [{}]}, "manifest": [{"RepoTags": ["a:1"]}]},
            [("oci-archive:{}", ("a:1",))],
        ),
        (
            {"index": {"manifests": [{}, {}]}, "manifest": [{"RepoTags": ["a:1"]}]},
            [("docker-archive:{}:a:1", ("a:1",))],
        ),
    ],
)
def test_an_archive_says_what_it_has(
    tmp_path: Path,
    documents: dict[str, Any],
    expected: list[tuple[str, tuple[str, ...]]],
    prefix: str,
    compress: str,
) -> None:
    path = archive(tmp_path / "a.tar", prefix=prefix, compress=compress, **documents)

    assert images_of(path) == [
        Loadable(source=source.format(path), names=names) for source, names in expected
    ]


@pytest.mark.parametrize(
    "documents",
    [{}, {"manifest": {}}, {"manifest": []}, {"index": []}, {"index": {"manifests": []}}],
)
def test_what_has_no_image_is_refused(tmp_path: Path, documents: dict[str, Any]) -> None:
    with pytest.raises(RequestInvalid, match="no archive of images"):
        images_of(archive(tmp_path / "a.tar", **documents))


@pytest.mark.parametrize("data", [b"", b"hello" * 1000, b"\x1f\x8b\x08" + bytes(50)])
def test_what_is_no_archive_is_refused(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "a").write_bytes(data)

    with pytest.raises(RequestInvalid):
        images_of(tmp_path / "a")


class Store:
    """A gateway that has one image."""

    def __init__(self) -> None:
        self.blobs = {Digest.of(data): data for data in (b"{}", b"layer one", b"layer two")}
        config, *layers = self.blobs
        self.manifest = json.dumps(
            {
                "config": {"digest": config},
                "layers": [{"digest": one} for one in (*layers, layers[0])],
            }
        ).encode()

    async def GetManifest(  # noqa: N802 - the RPC's name
        self, request: pb.GetManifestRequest
    ) -> pb.GetManifestResponse:
        assert request.offline
        return pb.GetManifestResponse(
            manifest=self.manifest,
            descriptor=descriptor_pb2.Descriptor(digest=Digest.of(self.manifest), media_type="m"),
            reference=request.reference,
        )

    async def ReadBlob(  # noqa: N802 - the RPC's name
        self, request: pb.ReadBlobRequest
    ) -> AsyncIterator[pb.ReadBlobResponse]:
        data = self.blobs[Digest(request.digest)]
        for start in range(0, len(data), 4):
            yield pb.ReadBlobResponse(data=data[start : start + 4])


async def test_what_is_saved_is_a_layout_that_docker_reads_too(tmp_path: Path) -> None:
    store = Store()
    session: Any = SimpleNamespace(registry=store)
    output = io.BytesIO()

    await save(session, ["docker.io/library/i:1"], output)

    (tmp_path / "a.tar").write_bytes(output.getvalue())
    with tarfile.open(tmp_path / "a.tar") as tar:
        names = tar.getnames()
        members = {name: file.read() for name in names if (file := tar.extractfile(name))}
    assert len(names) == len(set(names)) == 4 + 3
    for name, data in members.items():
        if name.startswith("blobs/sha256/"):
            assert Digest.of(data).hex == name.rpartition("/")[2]
    (docker,) = json.loads(members["manifest.json"])
    assert docker["RepoTags"] == ["i:1"]
    assert [members[layer] for layer in docker["Layers"]] == [
        b"layer one",
        b"layer two",
        b"layer one",
    ]
    (entry,) = json.loads(members["index.json"])["manifests"]
    assert members["blobs/sha256/" + entry["digest"][7:]] == store.manifest
    assert images_of(tmp_path / "a.tar") == [
        Loadable(source=f"oci-archive:{tmp_path}/a.tar", names=("docker.io/library/i:1",))
    ]
