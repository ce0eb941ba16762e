"""The image of every builder that can be had here: pushed, pulled, mounted, and held against umoci.

umoci unpacks what skopeo makes of the same image, so no code of ours is on that side.
"""

import os
import shutil
import tempfile
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import pytest_asyncio

from tests.integration.materializer.test_kernel_mounts import described, mounted_image
from tests.support import materializer
from tests.support.builders import BUILDERS, Workshop, missing_tools
from tests.support.gateway import RunningGateway, run_gateway
from tests.support.registry import RunningRegistry

pytestmark = [
    pytest.mark.integration,
    pytest.mark.asyncio(loop_scope="module"),
    pytest.mark.skipif(os.geteuid() != 0, reason="only root can mount"),
    pytest.mark.skipif(bool(missing_tools()), reason=f"missing: {missing_tools()}"),
]


@dataclass(frozen=True, slots=True)
class Node:
    """A gateway and a materializer that share a store."""

    gateway: RunningGateway
    images: materializer.Client


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def node() -> AsyncIterator[Node]:
    home = Path(tempfile.mkdtemp(prefix="lns", dir="/tmp"))
    try:
        async with run_gateway(home) as gateway, materializer.served(home) as images:
            yield Node(gateway, images)
    finally:
        shutil.rmtree(home)


@pytest.mark.parametrize("name", BUILDERS)
async def test_the_image_of_a_builder_is_the_tree_that_umoci_unpacks(
    node: Node, registry: RunningRegistry, tmp_path: Path, name: str
) -> None:
    shop = Workshop(tmp_path, f"{registry.new_repository()}:1")
    made = BUILDERS[name](shop)
    if made.source:
        await node.gateway.push_image(made.source, shop.reference)

    pulled = await node.gateway.pull(shop.reference)

    image = (await node.images.materialize(pulled.descriptor.digest)).image
    shop.run("umoci", "unpack", "--image", made.layout, "unpacked")
    wanted = described(tmp_path / "unpacked" / "rootfs")
    packs = [one.objects_path for one in image.layers if one.objects_path]
    with mounted_image(node.gateway.home, image.metadata_path, packs, tmp_path) as root:
        found = described(root)
    assert found.keys() == wanted.keys()
    for path, entry in found.items():
        assert entry == wanted[path], path
