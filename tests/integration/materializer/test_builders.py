"""Images as the builders in use write them, compared entry by entry with what umoci unpacks.

Where umoci does not read what a builder writes, it unpacks layers that say the same plainly.
"""

import bz2
import gzip
import hashlib
import io
import json
import lzma
import os
import shutil
import subprocess
import tarfile
import uuid
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
    pytest.mark.skipif(shutil.which("skopeo") is None, reason="skopeo is not installed"),
    pytest.mark.skipif(shutil.which("docker") is None, reason="docker is not installed"),
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


def files(work: Path) -> Path:
    """The tree on the disk, for tools that take one."""
    root = work / "tree"
    root.mkdir()
    with tarfile.open(fileobj=io.BytesIO(TREE)) as tar:
        tar.extractall(root, filter="fully_trusted")  # noqa: S202 - the test's own
    return root


def from_daemon(name: str, work: Path) -> Path:
    """The image of a docker daemon as a layout, by way of `docker save`."""
    run("docker", "save", "-o", work / "saved.tar", name)
    run("docker", "rmi", "-f", name)
    run("skopeo", "copy", f"docker-archive:{work}/saved.tar", f"oci:{work}/oci:it")
    return work / "oci"


def docker_build(work: Path) -> Path:
    context = files(work)
    (context / "Dockerfile").write_text(
        'FROM scratch\nCOPY usr /usr\nCOPY lib /lib\nENTRYPOINT ["/usr/a"]\n', "utf-8"
    )
    name = f"lns-test-{uuid.uuid4().hex}"
    run("docker", "build", "-q", "-t", name, context)
    return from_daemon(name, work)


def docker_import(work: Path) -> Path:
    name = f"lns-test-{uuid.uuid4().hex}"
    run("docker", "import", "-", name, data=TREE)
    return from_daemon(name, work)


def umoci(work: Path) -> Path:
    layout = work / "oci"
    run("umoci", "init", "--layout", layout)
    run("umoci", "new", "--image", f"{layout}:it")
    run("umoci", "insert", "--image", f"{layout}:it", files(work) / "usr", "/usr")
    run("umoci", "unpack", "--image", f"{layout}:it", work / "edited")
    (work / "edited" / "rootfs" / "usr" / "small").unlink()
    (work / "edited" / "rootfs" / "usr" / "new").write_text("new")
    run("umoci", "repack", "--image", f"{layout}:it", work / "edited")
    return layout


def skopeo(work: Path) -> Path:
    """Docker's second schema, which skopeo makes an OCI image of."""
    layout = umoci(work)
    run("skopeo", "copy", "--format", "v2s2", f"oci:{layout}:it", f"dir:{work}/dir")
    run("skopeo", "copy", f"dir:{work}/dir", f"oci:{work}/again:it")
    return work / "again"


def store(client: Client, layout: Path) -> str:
    """Puts a layout into the store; returns the digest of its manifest."""
    for blob in (layout / "blobs" / "sha256").iterdir():
        client.blobs.put(blob.read_bytes())
    index = json.loads((layout / "index.json").read_bytes())
    named = [
        one["digest"]
        for one in index["manifests"]
        if one.get("annotations", {}).get("org.opencontainers.image.ref.name") == "it"
    ]
    return str(named[0])


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


@pytest.mark.parametrize("builder", [docker_build, docker_import, umoci, skopeo])
async def test_what_a_builder_makes_is_what_umoci_unpacks(
    builder: Callable[[Path], Path], short_directory: Path, tmp_path: Path
) -> None:
    layout = builder(tmp_path)
    run("umoci", "unpack", "--image", f"{layout}:it", tmp_path / "bundle")

    async with served(short_directory) as client:
        manifest = store(client, layout)
        await assert_mounts_as(client, manifest, tmp_path / "bundle" / "rootfs", tmp_path)


def chunked(data: bytes) -> bytes:
    """How zstd:chunked lays a layer out: frames, and its tables in skippable ones."""
    skippable = b"\x50\x2a\x4d\x18" + (64).to_bytes(4, "little") + bytes(64)
    frames = [zstandard.compress(data[at : at + 4096]) for at in range(0, len(data), 4096)]
    return b"".join(frames) + skippable


def estargz(data: bytes) -> bytes:
    """How eStargz lays a layer out: a gzip member a chunk, and a footer with an extra field."""
    members = [gzip.compress(data[at : at + 4096], mtime=0) for at in range(0, len(data), 4096)]
    extra = b"SG" + (22).to_bytes(2, "little") + b"%016xSTARGZ" % 0
    head = b"\x1f\x8b\x08\x04" + bytes(4) + b"\0\xff" + len(extra).to_bytes(2, "little") + extra
    return b"".join(members) + head + b"\x01\x00\x00\xff\xff" + bytes(8)


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
    "zstd:chunked": (lambda _: [TREE], [TREE], chunked),
    "eStargz": (lambda _: [TREE], [TREE], estargz),
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


def test_the_footer_of_estargz_is_an_empty_gzip_member() -> None:
    assert gzip.decompress(estargz(b"")) == b""
    assert hashlib.sha256(gzip.decompress(estargz(TREE))).digest() == hashlib.sha256(TREE).digest()
