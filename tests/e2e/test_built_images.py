"""Images of builders run: one of Docker's, one of buildah's, one that umoci wrote."""

from pathlib import Path

import pytest

from tests.support.builders import BUILDERS, SAYS, Workshop, missing_tools
from tests.support.lns_command import Lns
from tests.support.prerequisites import Prerequisite, missing
from tests.support.registry import RunningRegistry


@pytest.mark.usefixtures("image_layout")
@pytest.mark.parametrize("name", ["docker build, stages", "buildah, zstd:chunked", "umoci"])
def test_the_program_of_a_built_image_runs(
    lns: Lns, registry: RunningRegistry, tmp_path: Path, name: str
) -> None:
    if missing_tools():
        missing(Prerequisite.REGISTRY, f"{missing_tools()} are missing; scripts/setup/apt test")
    shop = Workshop(tmp_path, f"{registry.new_repository()}:1")
    made = BUILDERS[name](shop)
    if made.source:
        lns.ok("push", "-q", made.source, shop.reference)

    assert lns.ok("run", "--rm", "-q", shop.reference) == SAYS
