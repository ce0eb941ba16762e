"""oras-py as it comes, as a program: `oras_transfer.py push|pull HOST/REPOSITORY:TAG LAYOUT`.

It does with the library's own methods what `skopeo copy` does between an OCI layout and a registry.
"""

import json
import sys
from pathlib import Path

from oras.container import Container
from oras.provider import Registry


def main(action: str, reference: str, layout: str) -> None:
    """Copies in one direction."""
    container = Container(reference)
    registry = Registry(hostname=container.registry, insecure=True)
    if action == "push":
        push(registry, container, Path(layout))
    else:
        pull(registry, container, Path(layout))


def push(registry: Registry, container: Container, layout: Path) -> None:
    """Uploads the blobs of a layout, one after the other, and its manifest."""
    index = json.loads((layout / "index.json").read_bytes())
    manifest = json.loads(blob(layout, index["manifests"][0]["digest"]).read_bytes())
    for descriptor in [*manifest["layers"], manifest["config"]]:
        path = str(blob(layout, descriptor["digest"]))
        check(registry.upload_blob(path, container, descriptor))
    check(registry.upload_manifest(manifest, container))


def pull(registry: Registry, container: Container, layout: Path) -> None:
    """Downloads the blobs of a manifest, one after the other; nothing is verified."""
    manifest = registry.get_manifest(container)
    (layout / "blobs/sha256").mkdir(parents=True)
    for descriptor in [manifest["config"], *manifest["layers"]]:
        registry.download_blob(
            container, descriptor["digest"], str(blob(layout, descriptor["digest"]))
        )


def blob(layout: Path, digest: str) -> Path:
    """Where a layout keeps a blob."""
    return layout / "blobs" / digest.replace(":", "/")


def check(response: object) -> None:
    """Raises for an answer that is a refusal."""
    status = getattr(response, "status_code", 0)
    if not 200 <= status < 300:
        raise SystemExit(f"the registry answered {status}")


if __name__ == "__main__":
    main(*sys.argv[1:])
