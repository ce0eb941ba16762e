"""Layers and layouts written by hand, as builders write them that cannot be had here."""

import contextlib
import gzip
import hashlib
import io
import json
import os
import tarfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import zstandard

from tests.support.images import blob_descriptor

NAME = "it"
MANIFEST = "application/vnd.oci.image.manifest.v1+json"
CONFIG = "application/vnd.oci.image.config.v1+json"
LAYER = "application/vnd.oci.image.layer.v1.tar"


def write_layout(
    layout: Path, config: bytes, layers: Sequence[bytes], pack: Callable[[bytes], bytes]
) -> None:
    """Writes a layout with one image of plain layers, each packed."""
    blobs = layout / "blobs" / "sha256"
    blobs.mkdir(parents=True)

    def put(data: bytes, media_type: str) -> dict[str, Any]:
        (blobs / hashlib.sha256(data).hexdigest()).write_bytes(data)
        return blob_descriptor(data, media_type)

    manifest = {
        "schemaVersion": 2,
        "mediaType": MANIFEST,
        "config": put(config, CONFIG),
        "layers": [
            put(packed, LAYER if packed == one else f"{LAYER}+gzip")
            for one in layers
            for packed in (pack(one),)
        ],
    }
    named = put(json.dumps(manifest).encode(), MANIFEST)
    named["annotations"] = {"org.opencontainers.image.ref.name": NAME}
    index = {"schemaVersion": 2, "manifests": [named]}
    (layout / "index.json").write_text(json.dumps(index), "utf-8")
    (layout / "oci-layout").write_text('{"imageLayoutVersion":"1.0.0"}', "utf-8")


def config_of(command: Sequence[str], layers: Sequence[bytes]) -> bytes:
    """The config of an image for this machine."""
    diff_ids = ["sha256:" + hashlib.sha256(one).hexdigest() for one in layers]
    document = {
        "architecture": "amd64" if os.uname().machine == "x86_64" else "arm64",
        "os": "linux",
        "config": {"Cmd": list(command)},
        "rootfs": {"type": "layers", "diff_ids": diff_ids},
    }
    return json.dumps(document).encode()


def archive_of_tree(
    root: Path,
    named: Callable[[str], str],
    linked: Callable[[str], str],
    *,
    mtime: int | None = None,
) -> bytes:
    """The tree as one archive, members and hard link targets spelled as a builder spells them."""
    output = io.BytesIO()
    with tarfile.open(fileobj=output, mode="w", format=tarfile.GNU_FORMAT) as tar:
        for path in [root, *sorted(root.rglob("*"))]:
            name = str(path.relative_to(root)) if path != root else ""
            info = tar.gettarinfo(path, arcname=name or ".")
            if info.type == tarfile.LNKTYPE:
                info.linkname = linked(info.linkname)
            info.name = named(name)
            info.uname = info.gname = ""
            if mtime is not None:
                info.mtime = mtime
            with path.open("rb") if info.isreg() else contextlib.nullcontext() as data:
                tar.addfile(info, data)
    return output.getvalue()


def archive_of(files: Mapping[str, bytes]) -> bytes:
    """An archive of files by name."""
    output = io.BytesIO()
    with tarfile.open(fileobj=output, mode="w", format=tarfile.GNU_FORMAT) as tar:
        for name, data in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return output.getvalue()


def estargz(layer: bytes) -> tuple[bytes, bytes]:
    """A layer as eStargz's specification lays it out: its bytes, and what they expand to."""
    members: list[bytes] = []
    entries: list[dict[str, Any]] = []
    offset = 0

    def add(data: bytes) -> int:
        nonlocal offset
        at, packed = offset, gzip.compress(data, mtime=0)
        members.append(packed)
        offset += len(packed)
        return at

    landmark = _members(archive_of({".no.prefetch.landmark": b"\x0f"}))
    for info, data in [*landmark, *_members(layer)]:
        at = add(data)
        kinds = {tarfile.DIRTYPE: "dir", tarfile.SYMTYPE: "symlink", tarfile.LNKTYPE: "hardlink"}
        entries.append(
            {
                "name": info.name,
                "type": kinds.get(info.type, "reg"),
                "size": info.size,
                "offset": at,
                "linkName": info.linkname,
                "mode": info.mode,
                "uid": info.uid,
                "gid": info.gid,
            }
        )
    table = json.dumps({"version": 1, "entries": entries}).encode()
    at = add(archive_of({"stargz.index.json": table}))
    extra = b"SG" + (22).to_bytes(2, "little") + b"%016xSTARGZ" % at
    head = b"\x1f\x8b\x08\x04" + bytes(4) + b"\0\xff" + len(extra).to_bytes(2, "little") + extra
    members.append(head + b"\x01\x00\x00\xff\xff" + bytes(8))
    packed = b"".join(members)
    return packed, gzip.decompress(packed)


def _members(layer: bytes) -> list[tuple[tarfile.TarInfo, bytes]]:
    """Each member of an archive with its bytes, header and padding included."""
    with tarfile.open(fileobj=io.BytesIO(layer)) as tar:
        infos = tar.getmembers()
    starts = [info.offset for info in infos]
    ends = [*starts[1:], infos[-1].offset_data + -(-infos[-1].size // 512) * 512]
    return [(info, layer[start:end]) for info, start, end in zip(infos, starts, ends, strict=True)]


def named_entry(layout: Path) -> dict[str, Any]:
    """The only entry of a layout's index."""
    (entry,) = json.loads((layout / "index.json").read_bytes())["manifests"]
    assert isinstance(entry, dict)
    return entry


def blob_of(layout: Path, digest: str) -> bytes:
    """A blob of a layout."""
    return (layout / "blobs" / digest.replace(":", "/")).read_bytes()


def uncompressed(data: bytes) -> bytes:
    """What a layer expands to: gzip, zstd or neither."""
    if data[:2] == b"\x1f\x8b":
        return gzip.decompress(data)
    if data[:4] == b"\x28\xb5\x2f\xfd":
        reader = zstandard.ZstdDecompressor().stream_reader(data, read_across_frames=True)
        return reader.read()
    return data
