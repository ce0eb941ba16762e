"""What the kernel makes of images: mounted, and compared entry by entry with `umoci unpack`."""

import contextlib
import hashlib
import json
import os
import shutil
import stat
import subprocess
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from services.core.descriptor import OCI_IMAGE_CONFIG, OCI_LAYER_GZIP, OCI_MANIFEST
from services.core.digest import Digest
from tests.support.materializer import served
from tests.support.tars import archive, entry, layer

pytestmark = [
    pytest.mark.integration,
    pytest.mark.skipif(os.geteuid() != 0, reason="only root can mount"),
]

BASE = layer(
    ("usr", {"kind": tarfile.DIRTYPE, "mode": 0o755, "mtime": 1_700_000_000}),
    ("usr/bin", {"kind": tarfile.DIRTYPE, "mode": 0o755}),
    ("usr/bin/tool", {"content": b"\x7fELF" * 3000, "mode": 0o4755, "mtime": 1_600_000_000}),
    ("usr/bin/small", {"content": b"#!/bin/sh\n", "mode": 0o755}),
    ("usr/bin/empty", {"mode": 0o600, "uid": 70000}),
    ("usr/bin/exact", {"content": b"e" * 8192}),
    ("usr/lib", {"kind": tarfile.DIRTYPE, "mode": 0o755}),
    ("usr/lib/a", {"content": b"a" * 5000, "pax": {"mtime": "1650000000.123456789"}}),
    ("usr/lib/b", {"kind": tarfile.LNKTYPE, "link": "usr/lib/a"}),
    ("usr/lib/caps", {"content": b"c" * 99, "pax": {"SCHILY.xattr.user.note": "value="}}),
    ("lib", {"kind": tarfile.SYMTYPE, "link": "usr/lib", "mode": 0o777}),
    ("dangling", {"kind": tarfile.SYMTYPE, "link": "../../nowhere", "mode": 0o777}),
    ("tmp", {"kind": tarfile.DIRTYPE, "mode": 0o1777}),
    ("dev/null", {"kind": tarfile.CHRTYPE, "mode": 0o666, "device": (1, 3)}),
    ("dev/disk", {"kind": tarfile.BLKTYPE, "mode": 0o660, "device": (259, 7)}),
    ("run/pipe", {"kind": tarfile.FIFOTYPE, "mode": 0o600}),
    ("opt/gone", {"content": b"gone"}),
    ("opt/stays", {"content": b"s" * 70}),
    ("opaque/old", {"content": b"old"}),
    ("becomes-file/x", {"content": b"x"}),
    ("becomes-directory", {"content": b"f"}),
    ("été/" + "n" * 200, {"content": b"long name"}),
    *((f"many/{number:04d}", {"content": b"%d" % number * 20}) for number in range(600)),
)
TOP = layer(
    ("opt/.wh.gone", {}),
    ("opaque/new", {"content": b"new"}),
    ("opaque/.wh..wh..opq", {}),
    ("becomes-file", {"content": b"now a file"}),
    ("becomes-directory", {"kind": tarfile.DIRTYPE, "mode": 0o700}),
    ("becomes-directory/inside", {"content": b"i" * 4096}),
    ("usr/lib/c", {"kind": tarfile.LNKTYPE, "link": "usr/lib/b"}),
    ("usr", {"kind": tarfile.DIRTYPE, "mode": 0o711, "uid": 5}),
)
SPARSE = archive(
    entry(b"last", b"z" * 100_000),
    entry(b"large", bytes(3 << 20) + b"end"),
)


@contextlib.contextmanager
def mounted(kind: str, source: Path | str, target: Path, options: str) -> Iterator[Path]:
    """Mounts while the block runs."""
    target.mkdir()
    subprocess.run(["mount", "-t", kind, "-o", options, source, target], check=True)
    try:
        yield target
    finally:
        subprocess.run(["umount", target], check=True)


@contextlib.contextmanager
def mounted_image(home: Path, metadata: str, packs: list[str], work: Path) -> Iterator[Path]:
    """Mounts an image as the guest does: metadata over data-only packs."""
    with contextlib.ExitStack() as stack:
        image = stack.enter_context(mounted("erofs", home / metadata, work / "image", "ro,loop"))
        lower = [
            str(stack.enter_context(mounted("erofs", home / pack, work / f"pack{i}", "ro,loop")))
            for i, pack in enumerate(packs)
        ]
        if not lower:  # overlayfs wants a second layer, if only of nothing
            (work / "nothing").mkdir()
            lower = [str(work / "nothing")]
        options = f"ro,metacopy=on,redirect_dir=on,lowerdir={image}::{'::'.join(lower)}"
        yield stack.enter_context(mounted("overlay", "lns", work / "root", options))


def described(root: Path) -> dict[str, tuple[object, ...]]:
    """Every entry of a tree with everything that can be seen of it."""
    found: dict[str, tuple[object, ...]] = {}
    inodes: dict[tuple[int, int], list[str]] = {}
    for path in sorted(root.rglob("*")):
        status = path.lstat()
        name = str(path.relative_to(root))
        content = ""
        if stat.S_ISREG(status.st_mode):
            content = hashlib.sha256(path.read_bytes()).hexdigest()
            inodes.setdefault((status.st_dev, status.st_ino), []).append(name)
        elif stat.S_ISLNK(status.st_mode):
            content = str(path.readlink())
        is_directory = stat.S_ISDIR(status.st_mode)
        found[name] = (
            oct(status.st_mode),
            status.st_uid,
            status.st_gid,
            0 if is_directory else status.st_nlink,
            0 if is_directory else status.st_size,
            0 if is_directory else status.st_mtime_ns,
            status.st_rdev,
            content,
            tuple(
                (key, os.getxattr(path, key, follow_symlinks=False))
                for key in sorted(os.listxattr(path, follow_symlinks=False))
            ),
        )
    for names in inodes.values():
        for name in names:
            found[name] += (tuple(names),)
    return found


def unpacked(layers: list[bytes], work: Path) -> Path:
    """The tree that umoci makes of layers."""
    layout = work / "layout"
    blobs = layout / "blobs" / "sha256"
    blobs.mkdir(parents=True)

    def put(data: bytes, media_type: str) -> dict[str, object]:
        (blobs / hashlib.sha256(data).hexdigest()).write_bytes(data)
        return {"mediaType": media_type, "digest": str(Digest.of(data)), "size": len(data)}

    config = json.dumps(
        {
            "architecture": "amd64",
            "os": "linux",
            "rootfs": {"type": "layers", "diff_ids": [str(Digest.of(one)) for one in layers]},
        }
    )
    manifest = {
        "schemaVersion": 2,
        "mediaType": OCI_MANIFEST,
        "config": put(config.encode(), OCI_IMAGE_CONFIG),
        "layers": [put(one, OCI_LAYER_GZIP.removesuffix("+gzip")) for one in layers],
    }
    descriptor = put(json.dumps(manifest).encode(), OCI_MANIFEST)
    descriptor["annotations"] = {"org.opencontainers.image.ref.name": "it"}
    (layout / "index.json").write_text(
        json.dumps({"schemaVersion": 2, "manifests": [descriptor]}), "utf-8"
    )
    (layout / "oci-layout").write_text('{"imageLayoutVersion": "1.0.0"}', "utf-8")
    subprocess.run(
        ["umoci", "unpack", "--image", f"{layout}:it", work / "bundle"],
        check=True,
        capture_output=True,
    )
    return work / "bundle" / "rootfs"


@pytest.mark.skipif(shutil.which("umoci") is None, reason="umoci is not installed")
async def test_a_mounted_image_is_what_umoci_unpacks(short_directory: Path) -> None:
    layers = [BASE, TOP, SPARSE]
    async with served(short_directory) as client:
        image = (await client.materialize(client.blobs.image(*layers))).image
    expected = described(unpacked(layers, short_directory))
    packs = [one.objects_path for one in image.layers if one.objects_path]

    with mounted_image(short_directory, image.metadata_path, packs, short_directory) as root:
        found = described(root)

    assert found.keys() == expected.keys()
    for name, entry_found in found.items():
        assert entry_found == expected[name], name


@pytest.mark.skipif(shutil.which("fsck.erofs") is None, reason="erofs-utils is not installed")
async def test_packs_and_images_pass_the_kernel_developers_check(short_directory: Path) -> None:
    async with served(short_directory) as client:
        image = (await client.materialize(client.blobs.image(BASE, TOP, SPARSE))).image

    for path in (image.metadata_path, *(one.objects_path for one in image.layers)):
        assert problems(short_directory / path) == ""


def problems(path: Path) -> str:
    """What `fsck.erofs` says of an image; nothing if it is sound."""
    checked = subprocess.run(["fsck.erofs", path], capture_output=True, text=True, check=False)
    return checked.stdout + checked.stderr if checked.returncode else ""
