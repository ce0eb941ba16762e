"""Images of the builders that can be had on one machine: each makes the same program its own way.

What they need is installed by `scripts/setup/apt test`: docker, buildah, umoci, skopeo, busybox.
"""

import contextlib
import gzip
import json
import os
import shutil
import subprocess
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import oras.client

from tests.support.layer_writers import (
    CONFIG,
    LAYER,
    NAME,
    archive_of,
    archive_of_tree,
    blob_of,
    config_of,
    named_entry,
    uncompressed,
    write_layout,
)
from tests.support.layer_writers import (
    estargz as estargz_layer,
)

BUSYBOX = Path("/bin/busybox")
"""A program that needs nothing else: Debian's busybox-static."""

SAYS = "built"
COMMAND = ["/bin/busybox", "echo", SAYS]
TOOLS = ("docker", "buildah", "umoci", "skopeo")


def missing_tools() -> list[str]:
    """What of the builders is not installed here."""
    absent = [tool for tool in TOOLS if shutil.which(tool) is None]
    return absent + ([] if BUSYBOX.exists() else [str(BUSYBOX)])


@dataclass(frozen=True, slots=True)
class Workshop:
    """Where one image is made.

    Attributes:
        place: a folder of its own.
        reference: where the image may be pushed, a registry that speaks plain HTTP.
    """

    place: Path
    reference: str

    def run(self, *arguments: object, data: bytes | None = None, **environment: str) -> bytes:
        """Runs a tool in `place`; returns what it prints."""
        done = subprocess.run(
            list(map(str, arguments)),
            input=data,
            capture_output=True,
            check=False,
            cwd=self.place,
            env={**os.environ, **environment},
        )
        assert done.returncode == 0, done.stderr.decode(errors="replace")
        return done.stdout

    def tree(self) -> Path:
        """The files of every image: modes, owners, links, an attribute, an empty directory."""
        root = self.place / "tree"
        (root / "bin").mkdir(parents=True)
        shutil.copy(BUSYBOX, root / "bin" / "busybox")
        (root / "bin" / "setuid").write_bytes(b"#!/bin/busybox sh\n")
        (root / "bin" / "setuid").chmod(0o4755)
        (root / "etc" / "empty").mkdir(parents=True)
        (root / "etc" / "passwd").write_text("root:x:0:0::/:/bin/sh\n", "utf-8")
        (root / "etc" / "shadow").write_text("root:*::0:::::\n", "utf-8")
        (root / "etc" / "shadow").chmod(0o640)
        os.chown(root / "etc" / "shadow", 0, 42)
        os.setxattr(root / "etc" / "passwd", "user.note", b"an attribute")
        (root / "bin" / "sh").symlink_to("busybox")
        (root / "bin" / "hard").hardlink_to(root / "bin" / "busybox")
        return root

    def layout(self, source: str) -> str:
        """The image that `source` names to skopeo as a layout, as umoci names it."""
        if source.startswith("oci:") and self._is_plain(source):
            return source.removeprefix("oci:")
        self.run("skopeo", "copy", "-q", "--src-tls-verify=false", source, "oci:reference:raw")
        return f"{self._plain(self.place / 'reference')}:{NAME}"

    def _is_plain(self, source: str) -> bool:
        blobs = Path(source.removeprefix("oci:").rpartition(":")[0]) / "blobs" / "sha256"
        return not any(one.read_bytes()[:4] == b"\x28\xb5\x2f\xfd" for one in blobs.iterdir())

    def _plain(self, layout: Path) -> Path:
        """A layout with its layers uncompressed: umoci reads no zstd."""
        manifest = json.loads(blob_of(layout, named_entry(layout)["digest"]))
        config = blob_of(layout, manifest["config"]["digest"])
        layers = [uncompressed(blob_of(layout, one["digest"])) for one in manifest["layers"]]
        target = self.place / "plain"
        write_layout(target, config, layers, lambda data: data)
        return target


@dataclass(frozen=True, slots=True, kw_only=True)
class Made:
    """What a builder made.

    Attributes:
        source: a source of `lns push`; empty where the builder pushed the image itself.
        layout: the same as umoci names it.
    """

    source: str
    layout: str


Builder = Callable[[Workshop], Made]


@contextlib.contextmanager
def _daemon_image() -> Iterator[str]:
    """A name in the Docker daemon that is gone afterwards."""
    name = f"lns-test-{uuid.uuid4().hex}:v1"
    try:
        yield name
    finally:
        subprocess.run(["docker", "rmi", "-f", name], capture_output=True, check=False)


def _saved(shop: Workshop, name: str) -> Made:
    shop.run("docker", "save", "-o", "saved.tar", name)
    source = f"docker-archive:{shop.place}/saved.tar"
    return Made(source=source, layout=shop.layout(source))


def _build(shop: Workshop, name: str, dockerfile: str) -> None:
    context = shop.tree()
    (context / "Dockerfile").write_text(dockerfile, "utf-8")
    shop.run("docker", "build", "-q", "-t", name, context, DOCKER_BUILDKIT="0")


def _docker_build(shop: Workshop, dockerfile: str) -> Made:
    with _daemon_image() as name:
        _build(shop, name, dockerfile)
        return _saved(shop, name)


SCRATCH = f"FROM scratch\nCOPY bin /bin\nCOPY etc /etc\nCMD {json.dumps(COMMAND)}\n"
STAGES = f"""
FROM scratch AS first
COPY bin /bin
COPY etc /etc
RUN ["/bin/busybox", "rm", "-r", "/etc/empty", "/bin/hard"]
RUN ["/bin/busybox", "mkdir", "/etc/empty"]
RUN ["/bin/busybox", "ln", "/bin/busybox", "/bin/again"]
FROM scratch
COPY --from=first --chown=1000:1000 /etc /home/etc
COPY --from=first /bin /bin
USER 1000
WORKDIR /home/work
CMD {json.dumps(COMMAND)}
"""


def docker_build(shop: Workshop) -> Made:
    """Docker's first builder, one stage."""
    return _docker_build(shop, SCRATCH)


def docker_stages(shop: Workshop) -> Made:
    """Docker's first builder: stages, whiteouts, an opaque directory, owners."""
    return _docker_build(shop, STAGES)


def docker_import(shop: Workshop) -> Made:
    """A tree that the Docker daemon took as one layer."""
    with _daemon_image() as name:
        data = shop.run("tar", "-C", shop.tree(), "--xattrs", "-c", ".")
        shop.run("docker", "import", "--change", f"CMD {json.dumps(COMMAND)}", "-", name, data=data)
        return _saved(shop, name)


def docker_nothing(shop: Workshop) -> Made:
    """An image of no layers at all, which docker pushes and does not save."""
    try:
        _build(shop, shop.reference, 'FROM scratch\nCMD ["/x"]\nLABEL a=b\n')
        shop.run("docker", "push", "-q", shop.reference)
    finally:
        subprocess.run(["docker", "rmi", "-f", shop.reference], capture_output=True, check=False)
    return Made(source="", layout=shop.layout(f"docker://{shop.reference}"))


def _buildah(shop: Workshop, *pushing: str) -> Made:
    store = (
        *("--root", str(shop.place / "store"), "--runroot", str(shop.place / "run")),
        *("--storage-driver", "vfs"),
    )
    tree = shop.tree()
    container = shop.run("buildah", *store, "from", "scratch").decode().strip()
    shop.run("buildah", *store, "copy", container, tree, "/")
    command = json.dumps(COMMAND)
    shop.run("buildah", *store, "config", "--cmd", command, "--env", "A=1", container)
    image = shop.run("buildah", *store, "commit", "-q", "--rm", container).decode().strip()
    target = f"docker://{shop.reference}"
    shop.run("buildah", *store, "push", "-q", "--tls-verify=false", *pushing, image, target)
    return Made(source="", layout=shop.layout(target))


def buildah(shop: Workshop) -> Made:
    """buildah, an OCI image that it pushes itself."""
    return _buildah(shop)


def buildah_docker(shop: Workshop) -> Made:
    """buildah, with Docker's media types."""
    return _buildah(shop, "--format", "v2s2")


def buildah_chunked(shop: Workshop) -> Made:
    """buildah, layers as zstd:chunked."""
    return _buildah(shop, "--compression-format", "zstd:chunked")


def umoci(shop: Workshop) -> Made:
    """umoci: a layer, and one of what was changed in the tree."""
    layout = shop.place / "oci"
    image = f"{layout}:{NAME}"
    tree = shop.tree()
    shop.run("umoci", "init", "--layout", layout)
    shop.run("umoci", "new", "--image", image)
    shop.run("umoci", "insert", "--image", image, tree / "bin", "/bin")
    shop.run("umoci", "insert", "--image", image, tree / "etc", "/etc")
    shop.run("umoci", "unpack", "--image", image, "edited")
    root = shop.place / "edited" / "rootfs"
    (root / "bin" / "hard").unlink()
    (root / "etc" / "new").write_text("new", "utf-8")
    shop.run("umoci", "repack", "--image", image, "edited")
    shop.run("umoci", "config", "--image", image, *(f"--config.cmd={one}" for one in COMMAND))
    return Made(source=f"oci:{image}", layout=image)


def schema_1(shop: Workshop) -> Made:
    """Docker's first schema, which skopeo wrote and made an OCI image of again."""
    source = umoci(shop).source
    shop.run("skopeo", "copy", "-q", "--format", "v2s1", source, "dir:first")
    shop.run("skopeo", "copy", "-q", "--format", "oci", "dir:first", f"oci:again:{NAME}")
    again = f"{shop.place}/again:{NAME}"
    return Made(source=f"oci:{again}", layout=again)


def oci_archive(shop: Workshop) -> Made:
    """What skopeo writes as one file."""
    made = umoci(shop)
    shop.run("skopeo", "copy", "-q", made.source, "oci-archive:image.tar:app:1")
    return Made(source=f"oci-archive:{shop.place}/image.tar:app:1", layout=made.layout)


def _written(shop: Workshop, layers: Sequence[bytes], pack: Callable[[bytes], bytes]) -> Made:
    layout = shop.place / "oci"
    write_layout(layout, config_of(COMMAND, layers), layers, pack)
    image = f"oci:{layout}:{NAME}"
    return Made(source=image, layout=shop.layout(image))


def kaniko(shop: Workshop) -> Made:
    """As kaniko snapshots a tree: a member `/`, and hard links to absolute names."""
    layer = archive_of_tree(shop.tree(), lambda name: name or "/", "/{}".format)
    return _written(shop, [layer], gzip.compress)


def bazel(shop: Workshop) -> Made:
    """As bazel and distroless write it: absolute names, no owner's name, times of 1970."""
    layer = archive_of_tree(
        shop.tree(), lambda name: f"/{name}", lambda target: f"/{target}", mtime=0
    )
    return _written(shop, [layer], gzip.compress)


def nix(shop: Workshop) -> Made:
    """As nix streams it: `./` before every name, GNU's format, a layer a path."""
    layer = archive_of_tree(
        shop.tree(), lambda name: f"./{name}", lambda target: f"./{target}", mtime=1
    )
    return _written(shop, [layer, archive_of({"./nix/store/x/y": b"y"})], gzip.compress)


def estargz(shop: Workshop) -> Made:
    """eStargz: a gzip member a file, and the table of contents in the last member."""
    layer = archive_of_tree(shop.tree(), str, str)
    packed, plain = estargz_layer(layer)
    return _written(shop, [plain], lambda _: packed)


def oras_push(shop: Workshop) -> Made:
    """An image that was pushed as files, by oras."""
    layer = gzip.compress(archive_of_tree(shop.tree(), str, str))
    (shop.place / "layer.tar.gz").write_bytes(layer)
    (shop.place / "config.json").write_bytes(config_of(COMMAND, [gzip.decompress(layer)]))
    client = oras.client.OrasClient(insecure=True)
    with contextlib.chdir(shop.place):
        client.push(
            target=shop.reference,
            files=[f"layer.tar.gz:{LAYER}+gzip"],
            manifest_config=f"config.json:{CONFIG}",
        )
    return Made(source="", layout=shop.layout(f"docker://{shop.reference}"))


BUILDERS: Mapping[str, Builder] = {
    "docker build": docker_build,
    "docker build, stages": docker_stages,
    "docker import": docker_import,
    "docker build, FROM scratch alone": docker_nothing,
    "buildah": buildah,
    "buildah, Docker's types": buildah_docker,
    "buildah, zstd:chunked": buildah_chunked,
    "umoci": umoci,
    "skopeo, from schema 1": schema_1,
    "skopeo, an archive": oci_archive,
    "kaniko's spelling": kaniko,
    "bazel's spelling": bazel,
    "nix's spelling": nix,
    "eStargz": estargz,
    "oras push": oras_push,
}
