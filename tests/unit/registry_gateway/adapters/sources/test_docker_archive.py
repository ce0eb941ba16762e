"""Archives as `docker save` and those who imitate it write them."""

import gzip
import hashlib
import io
import json
import tarfile
from pathlib import Path
from typing import Any

import pytest

from services.core.digest import Digest
from services.core.errors import ContentCorrupt, ImageUnknown, LnsError, RequestInvalid
from services.registry_gateway.adapters.sources.docker_archive import open_docker_archive
from services.registry_gateway.adapters.sources.spool import Spool
from services.registry_gateway.ports import OpenedSource
from services.registry_gateway.progress import Stop
from tests.support.tars import layer

ONE, TWO = layer(("one", {"content": b"1"})), layer(("two", {"content": b"2"}))


def config(*layers: bytes, **more: Any) -> bytes:
    rootfs = {"type": "layers", "diff_ids": [str(Digest.of(one)) for one in layers]}
    return json.dumps({"architecture": "amd64", "os": "linux", "rootfs": rootfs} | more).encode()


def manifest(*layers: str, **more: Any) -> bytes:
    return json.dumps(
        [{"Config": "c.json", "RepoTags": ["app:1"], "Layers": layers} | more]
    ).encode()


def opened(directory: Path, name: str = "", **members: bytes) -> dict[str, Any]:
    """Opens an archive of these members (`_` is a dot, `__` a slash); returns what is pushed."""
    path = directory / "image.tar"
    with tarfile.open(path, "w") as tar:
        for member, data in members.items():
            info = tarfile.TarInfo(member.replace("__", "/").replace("_", "."))
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    with open_docker_archive(path, name, spool=Spool(directory), stop=Stop()) as source:
        return contents(source)


def contents(source: OpenedSource) -> dict[str, Any]:
    document = json.loads(source.manifests[source.root.digest])
    layers = []
    for one in document["layers"]:
        with source.blobs[one["digest"]].open() as file:
            data = file.read()
        assert Digest.of(data) == one["digest"]
        assert len(data) == one["size"]
        layers.append(gzip.decompress(data))
    return {"layers": layers, "config": document["config"]["digest"]}


def test_layers_are_those_of_the_config(tmp_path: Path) -> None:
    raw = config(ONE, TWO)

    assert opened(
        tmp_path,
        manifest_json=manifest("a.tar", "b.tar"),
        c_json=raw,
        a_tar=ONE,
        b_tar=gzip.compress(TWO),
    ) == {"layers": [ONE, TWO], "config": Digest.of(raw)}


@pytest.mark.parametrize("layers", [None, []])
@pytest.mark.parametrize(
    "rootfs", [None, {}, {"type": "layers", "diff_ids": None}, {"type": "layers", "diff_ids": []}]
)
def test_an_image_of_nothing_has_no_layers_however_it_says_so(
    tmp_path: Path, layers: Any, rootfs: Any
) -> None:
    raw = config(rootfs=rootfs)

    assert opened(tmp_path, manifest_json=manifest(Layers=layers), c_json=raw) == {
        "layers": [],
        "config": Digest.of(raw),
    }


@pytest.mark.parametrize("tags", [None, [], ["app:1"]])
@pytest.mark.parametrize("name", ["", "app", "app:1", "docker.io/library/app:1"])
def test_an_only_image_is_found_by_any_of_its_names(
    tmp_path: Path, tags: list[str] | None, name: str
) -> None:
    members = {"manifest_json": manifest("a.tar", RepoTags=tags), "c_json": config(ONE)}
    if (name and name != "app" and tags) or not name:
        assert opened(tmp_path, name, a_tar=ONE, **members)["layers"] == [ONE]
        return
    with pytest.raises(ImageUnknown):
        opened(tmp_path, name, a_tar=ONE, **members)


@pytest.mark.parametrize(
    ("members", "error"),
    [
        ({}, RequestInvalid),
        ({"manifest_json": b"{}"}, RequestInvalid),
        ({"manifest_json": b"[1]"}, RequestInvalid),
        ({"manifest_json": manifest("a.tar")}, RequestInvalid),
        ({"manifest_json": manifest("a.tar"), "c_json": config(ONE)}, RequestInvalid),
        ({"manifest_json": manifest("a.tar"), "c_json": b"x", "a_tar": ONE}, RequestInvalid),
        ({"manifest_json": manifest("a.tar"), "c_json": config(), "a_tar": ONE}, RequestInvalid),
        ({"manifest_json": manifest(), "c_json": config(rootfs="x")}, RequestInvalid),
        ({"manifest_json": manifest(), "c_json": config(rootfs={"diff_ids": "x"})}, RequestInvalid),
        ({"manifest_json": manifest(), "c_json": config(rootfs={"diff_ids": [1]})}, RequestInvalid),
        (
            {"manifest_json": manifest("a.tar"), "c_json": config(rootfs={"diff_ids": ["md5:1"]}),
             "a_tar": ONE},
            LnsError,
        ),
        ({"manifest_json": manifest("a.tar"), "c_json": config(ONE), "a_tar": TWO}, ContentCorrupt),
        (
            {"manifest_json": manifest("a.tar"), "c_json": config(ONE),
             "a_tar": gzip.compress(TWO)},
            ContentCorrupt,
        ),
        (
            {"manifest_json": manifest("a.tar"), "c_json": config(ONE),
             "a_tar": gzip.compress(ONE)[:-9]},
            LnsError,
        ),
        ({"manifest_json": manifest(*["a.tar"] * 600), "c_json": config(ONE)}, RequestInvalid),
    ],
)  # fmt: skip
def test_an_archive_that_is_not_what_it_says_is_refused(
    tmp_path: Path, members: dict[str, bytes], error: type[LnsError]
) -> None:
    with pytest.raises(error):
        opened(tmp_path, **members)


def test_nothing_of_a_refused_archive_stays(tmp_path: Path) -> None:
    spool = tmp_path / "spool"
    spool.mkdir()
    path = tmp_path / "image.tar"
    with tarfile.open(path, "w") as tar:
        for name, data in (
            ("manifest.json", manifest("a.tar")),
            ("c.json", config(ONE)),
            ("a.tar", TWO),
        ):
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))

    with (
        pytest.raises(ContentCorrupt, match=hashlib.sha256(TWO).hexdigest()),
        open_docker_archive(path, "", spool=Spool(spool), stop=Stop()),
    ):
        pass

    assert list(spool.iterdir()) == []
