"""Small OCI images and artifacts, made in memory and put into registries and layouts by hand."""

import gzip
import hashlib
import io
import json
import random
import tarfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import urllib3

from services.core.descriptor import (
    OCI_IMAGE_CONFIG,
    OCI_INDEX,
    OCI_LAYER_GZIP,
    OCI_MANIFEST,
)
from services.core.digest import Digest


@dataclass(frozen=True, slots=True, kw_only=True)
class Built:
    """A manifest or index with all the bytes that it needs.

    Attributes:
        raw: the bytes of the manifest or index.
        media_type: what it is.
        blobs: configs and layers by digest.
        children: manifests that an index names.
    """

    raw: bytes
    media_type: str
    blobs: dict[Digest, bytes] = field(default_factory=dict)
    children: tuple["Built", ...] = ()

    @property
    def digest(self) -> Digest:
        """The digest of `raw`."""
        return Digest.of(self.raw)

    @property
    def descriptor(self) -> dict[str, Any]:
        """Its descriptor as JSON has it."""
        return {"mediaType": self.media_type, "digest": self.digest, "size": len(self.raw)}

    @property
    def all_blobs(self) -> dict[Digest, bytes]:
        """Its blobs and those of its children."""
        found = dict(self.blobs)
        for child in self.children:
            found |= child.all_blobs
        return found


def random_bytes(size: int, seed: int | str) -> bytes:
    """Bytes that do not compress, the same for the same seed."""
    return random.Random(seed).randbytes(size)  # noqa: S311 - test data


def tar_layer(files: dict[str, bytes]) -> tuple[bytes, str]:
    """Returns a gzip layer with these files and its diff id."""
    plain = io.BytesIO()
    with tarfile.open(fileobj=plain, mode="w") as archive:
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    data = plain.getvalue()
    return gzip.compress(data, mtime=0), f"sha256:{hashlib.sha256(data).hexdigest()}"


def blob_descriptor(data: bytes, media_type: str) -> dict[str, Any]:
    """The descriptor of a blob as JSON has it."""
    return {"mediaType": media_type, "digest": Digest.of(data), "size": len(data)}


def build_image(
    *layers: bytes,
    architecture: str = "amd64",
    variant: str = "",
    indent: int | None = None,
    **more: Any,
) -> Built:
    """Returns an image of these layers; `more` are further members of the manifest.

    Its JSON is written as no tool of ours writes it, so that a re-serialization shows.
    """
    config = json.dumps(
        {
            "architecture": architecture,
            **({"variant": variant} if variant else {}),
            "os": "linux",
            "config": {"Cmd": ["/bin/true"]},
            "rootfs": {"type": "layers", "diff_ids": [str(Digest.of(one)) for one in layers]},
        }
    ).encode()
    document = {
        "layers": [blob_descriptor(one, OCI_LAYER_GZIP) for one in layers],
        "config": blob_descriptor(config, OCI_IMAGE_CONFIG),
        "schemaVersion": 2,
        "mediaType": OCI_MANIFEST,
        **more,
    }
    return Built(
        raw=json.dumps(document, indent=indent).encode(),
        media_type=OCI_MANIFEST,
        blobs={Digest.of(one): one for one in (config, *layers)},
    )


def build_index(*children: tuple[str | None, Built]) -> Built:
    """Returns an index of images by `architecture[/variant]`; None is no platform."""
    entries = [built.descriptor | _platform(name) for name, built in children]
    document = {"manifests": entries, "schemaVersion": 2, "mediaType": OCI_INDEX}
    return Built(
        raw=json.dumps(document, indent=3).encode(),
        media_type=OCI_INDEX,
        children=tuple(built for _, built in children),
    )


def _platform(name: str | None) -> dict[str, Any]:
    if name is None:
        return {}
    architecture, _, variant = name.partition("/")
    platform = {"os": "linux", "architecture": architecture}
    return {"platform": platform | ({"variant": variant} if variant else {})}


def upload(
    url: str, path: str, built: Built, tag: str, headers: dict[str, str] | None = None
) -> str:
    """Puts an image into a registry without any code of ours; returns the reference without host.

    Args:
        url: scheme, host and port.
        path: the repository.
        built: what to put.
        tag: its tag; empty for none.
        headers: sent with every request.
    """
    http = urllib3.PoolManager()
    sent = headers or {}
    for digest, data in built.blobs.items():
        begun = http.request("POST", f"{url}/v2/{path}/blobs/uploads/", headers=sent)
        assert begun.status == 202, begun.data
        location = begun.headers["Location"]
        done = http.request("PUT", f"{location}&digest={digest}", body=data, headers=sent)
        assert done.status == 201, done.data
    for child in built.children:
        upload(url, path, child, "", headers)
    done = http.request(
        "PUT",
        f"{url}/v2/{path}/manifests/{tag or built.digest}",
        body=built.raw,
        headers={**sent, "Content-Type": built.media_type},
    )
    assert done.status == 201, done.data
    http.clear()
    return f"{path}:{tag}" if tag else f"{path}@{built.digest}"


def manifest_in(url: str, path: str, selector: str, headers: dict[str, str] | None = None) -> bytes:
    """Returns the bytes of a manifest in a registry, asked for without any code of ours."""
    http = urllib3.PoolManager()
    accept = {"Accept": f"{OCI_MANIFEST}, {OCI_INDEX}", **(headers or {})}
    answer = http.request("GET", f"{url}/v2/{path}/manifests/{selector}", headers=accept)
    http.clear()
    assert answer.status == 200, answer.data
    return answer.data


def blob_in(url: str, path: str, digest: str) -> bytes:
    """Returns a blob of a registry, asked for without any code of ours."""
    answer = urllib3.request("GET", f"{url}/v2/{path}/blobs/{digest}")
    assert answer.status == 200, answer.data
    assert Digest.of(answer.data) == digest
    return answer.data


def delete_blob(url: str, path: str, digest: str) -> None:
    """Deletes a blob of a registry that permits it, without any code of ours."""
    answer = urllib3.request("DELETE", f"{url}/v2/{path}/blobs/{digest}")
    assert answer.status == 202, answer.data


def write_layout(directory: Path, built: Built, tag: str) -> None:
    """Writes an image layout with one image."""
    blobs = directory / "blobs" / "sha256"
    blobs.mkdir(parents=True, exist_ok=True)

    def write(one: Built) -> None:
        (blobs / one.digest.hex).write_bytes(one.raw)
        for digest, data in one.blobs.items():
            (blobs / digest.hex).write_bytes(data)
        for child in one.children:
            write(child)

    write(built)
    entry = built.descriptor | {"annotations": {"org.opencontainers.image.ref.name": tag}}
    (directory / "index.json").write_text(json.dumps({"schemaVersion": 2, "manifests": [entry]}))
    (directory / "oci-layout").write_text(json.dumps({"imageLayoutVersion": "1.0.0"}))
