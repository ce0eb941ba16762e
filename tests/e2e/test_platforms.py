"""An image of another architecture: refused with the way out, and run by emulation as asked for."""

import json
import platform
import subprocess
from pathlib import Path

import pytest

from services.core.descriptor import OCI_IMAGE_CONFIG, OCI_LAYER_TAR, OCI_MANIFEST
from services.core.digest import Digest
from services.vm_runner.architectures import Architecture
from tests.support.images import Built, blob_descriptor, upload
from tests.support.lns_command import Lns
from tests.support.microvm import Tree, require_foreign
from tests.support.registry import RunningRegistry

OWN = Architecture(platform.machine())
(FOREIGN,) = OWN.others
PROGRAM = """
#include <stdio.h>
#include <sys/utsname.h>
int main(void) { struct utsname name; uname(&name); puts(name.machine); return 7; }
"""


@pytest.fixture(scope="module")
def foreign_image(registry: RunningRegistry, tmp_path_factory: pytest.TempPathFactory) -> str:
    """An image of one static program, for the other architecture alone."""
    require_foreign()
    folder: Path = tmp_path_factory.mktemp("foreign")
    (folder / "says.c").write_text(PROGRAM)
    compiler = f"{FOREIGN}-linux-gnu-gcc".replace("_", "-")
    command = [compiler, "-static", "-Os", "-s", "-o", "says", "says.c"]
    subprocess.run(command, cwd=folder, check=True, timeout=60)
    tree = Tree()
    tree.file("says", (folder / "says").read_bytes(), 0o755)
    layer = tree.bytes()
    config = json.dumps(
        {
            "architecture": FOREIGN.debian,
            "os": "linux",
            "config": {"Cmd": ["/says"]},
            "rootfs": {"type": "layers", "diff_ids": [Digest.of(layer)]},
        }
    ).encode()
    manifest = {
        "schemaVersion": 2,
        "mediaType": OCI_MANIFEST,
        "config": blob_descriptor(config, OCI_IMAGE_CONFIG),
        "layers": [blob_descriptor(layer, OCI_LAYER_TAR)],
    }
    built = Built(
        raw=json.dumps(manifest).encode(),
        media_type=OCI_MANIFEST,
        blobs={Digest.of(one): one for one in (config, layer)},
    )
    path = registry.new_repository("images/foreign").partition("/")[2]
    return f"{registry.host}/{upload(registry.url, path, built, '1')}"


@pytest.mark.timeout(400)
def test_an_image_of_another_architecture_is_run_by_emulation_where_that_is_asked_for(
    lns: Lns, foreign_image: str
) -> None:
    """One microVM, booted without a snapshot."""
    name = f"linux/{FOREIGN.debian}"

    refused = lns.run("run", "--rm", foreign_image)
    assert refused.returncode == 125
    assert f"is made for {name}, not for linux/{OWN.debian}" in refused.stderr
    assert f"`--platform {name}` takes that one, in an emulated guest" in refused.stderr

    plan = lns.ok("resolve", "--platform", name, foreign_image)
    assert f"is made for {name}: its guest is emulated" in plan

    # Resolved alone: what takes it without a platform is told by the environment.
    willing = Lns(home=lns.home, user=lns.user, variables={"LNS_FOREIGN": "emulate"})
    assert f"is made for {name}: its guest is emulated" in willing.ok("resolve", foreign_image)

    result = lns.run(
        *("run", "--rm", "--cold", "-m", "256m", "--platform", name, foreign_image), within=360
    )
    assert (result.stdout, result.returncode) == (f"{FOREIGN}\n", 7), result.stderr
    assert f"made for {name}: its guest is emulated" in result.stderr
    assert f"({FOREIGN.debian} emulated: see lns doctor)" in result.stderr
