"""Layers that are spelled otherwise, compared entry by entry with what umoci makes of plain ones.

`tests/integration/test_builders.py` has the images of builders themselves.
"""

import bz2
import gzip
import json
import lzma
import os
import shutil
import subprocess
import tarfile
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
import zstandard

from services.core.digest import Digest
from tests.integration.materializer.test_kernel_mounts import described, mounted_image, unpacked
from tests.support.materializer import Client, served
from tests.support.tars import archive, entry, layer, pax

pytestmark = [
    pytest.mark.integration,
    pytest.mark.skipif(os.geteuid() != 0, reason="only root can mount"),
    pytest.mark.skipif(shutil.which("umoci") is None, reason="umoci is not installed"),
]

TREE = layer(
    ("usr", {"kind": tarfile.DIRTYPE, "mode": 0o755}),
    ("usr/a", {"content": b"content " * 900, "mode": 0o755}),
    ("usr/b", {"kind": tarfile.LNKTYPE, "link": "usr/a"}),
    ("usr/s", {"kind": tarfile.SYMTYPE, "link": "/usr/a", "mode": 0o777}),
    ("usr/small", {"content": b"x"}),
    ("usr/lib", {"kind": tarfile.DIRTYPE, "mode": 0o755}),
    ("lib", {"kind": tarfile.SYMTYPE, "link": "usr/lib", "mode": 0o777}),
)


def directory(name: bytes) -> bytes:
    return entry(name, kind=b"5", mode=0o755)


def link(name: bytes, target: bytes, kind: bytes = b"1") -> bytes:
    return entry(name, kind=kind, link=target, mode=0o777)


def run(*arguments: object, data: bytes | None = None) -> bytes:
    done = subprocess.run(list(map(str, arguments)), input=data, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr.decode(errors="replace")
    return done.stdout


async def assert_mounts_as(client: Client, manifest: str, expected: Path, work: Path) -> None:
    """Holds the mounted image against a tree."""
    image = (await client.materialize(manifest)).image
    packs = [one.objects_path for one in image.layers if one.objects_path]
    mounts = work / "mounts"
    mounts.mkdir()
    with mounted_image(client.home, image.metadata_path, packs, mounts) as root:
        found = described(root)
    wanted = described(expected)
    assert found.keys() == wanted.keys()
    for name, entry_found in found.items():
        assert entry_found == wanted[name], name


def appended(data: bytes, work: Path) -> bytes:
    """What `tar --append` makes of an archive: a path twice."""
    path = work / "appended.tar"
    path.write_bytes(data)
    (work / "usr").mkdir()
    (work / "usr" / "small").write_bytes(b"x")
    run(
        *("tar", "--append", "-f", path, "-C", work, "--owner=0", "--group=0", "--mode=0644"),
        *("--mtime=@0", "usr/small"),
    )
    return path.read_bytes()


ABSOLUTE = archive(
    directory(b"/"),
    directory(b"/usr"),
    entry(b"/usr/a", b"content " * 900, mode=0o755),
    link(b"/usr/b", b"/usr/a"),
    link(b"/usr/s", b"/usr/a", b"2"),
    entry(b"usr/small", b"x"),
    pax((b"path", b"/usr/lib")),
    directory(b"x"),
    link(b"/lib", b"usr/lib", b"2"),
)
AUFS = archive(
    entry(b".wh..wh.aufs"),
    directory(b".wh..wh.plnk"),
    entry(b".wh..wh.plnk/7.1", b"content " * 900, mode=0o755),
    directory(b"usr"),
    link(b"usr/a", b".wh..wh.plnk/7.1"),
    link(b"usr/b", b".wh..wh.plnk/7.1"),
    link(b"usr/s", b"/usr/a", b"2"),
    entry(b"usr/small", b"x"),
    directory(b"usr/lib"),
    link(b"lib", b"usr/lib", b"2"),
)
THROUGH_A_LINK = archive(entry(b"lib/module", b"m" * 99))
PLAINLY = layer(("usr/lib/module", {"content": b"m" * 99}))

NO_END = TREE.rstrip(b"\0") + bytes(-len(TREE.rstrip(b"\0")) % 512)
Make = Callable[[Path], Sequence[bytes]]
Compress = Callable[[bytes], bytes]

LAYOUTS: dict[str, tuple[Make, Sequence[bytes], Compress]] = {
    "kaniko, bazel, nix: absolute names": (lambda _: [ABSOLUTE], [TREE], gzip.compress),
    "AUFS's records": (lambda _: [AUFS], [TREE], gzip.compress),
    "no end": (lambda _: [NO_END], [TREE], bytes),
    "tar --append": (lambda work: [appended(TREE, work)], [TREE], gzip.compress),
    "below a lower link": (lambda _: [TREE, THROUGH_A_LINK], [TREE, PLAINLY], gzip.compress),
    "zstd": (lambda _: [TREE], [TREE], zstandard.compress),
    "xz": (lambda _: [TREE], [TREE], lzma.compress),
    "bzip2": (lambda _: [TREE], [TREE], bz2.compress),
}  # fmt: skip


@pytest.mark.parametrize("name", LAYOUTS)
async def test_what_is_laid_out_otherwise_is_the_same_tree(
    name: str, short_directory: Path, tmp_path: Path
) -> None:
    make, plainly, compress = LAYOUTS[name]
    layers = make(tmp_path)
    (tmp_path / "umoci").mkdir()
    expected = unpacked(list(plainly), tmp_path / "umoci")

    async with served(short_directory) as client:
        config = {
            "architecture": "amd64",
            "os": "linux",
            "rootfs": {"type": "layers", "diff_ids": [Digest.of(one) for one in layers]},
        }
        media_type = "application/vnd.oci.image.layer.v1.tar"
        manifest = client.blobs.put_json(
            {
                "schemaVersion": 2,
                "config": client.blobs.descriptor(
                    json.dumps(config).encode(), "application/vnd.oci.image.config.v1+json"
                ),
                "layers": [client.blobs.descriptor(compress(one), media_type) for one in layers],
            }
        )
        await assert_mounts_as(client, manifest, expected, tmp_path)
