"""What `docs/artifacts.md` and `docs/run-plan.md` say is so."""

import json
import re

import pytest

from services.core.artifacts.documents import parse_artifact
from services.core.artifacts.families import FAMILIES, infer_family
from services.core.errors import LEAVES
from services.core.reference import Reference
from services.resolver.bundles import CAPABILITIES
from services.resolver.lock import format_lock, parse_lock
from services.resolver.problems import ProblemType
from services.resolver.sizes import BUILT_IN_CPUS, BUILT_IN_MEMORY
from tests.support.documentation import DOCS, blocks, files
from tests.support.plan_vectors import DIRECTORY

EXAMPLES = files("artifacts.md")


@pytest.mark.parametrize("path", EXAMPLES)
def test_an_example_fits_the_schema_of_the_family_that_its_path_names(path: str) -> None:
    family = infer_family(Reference.parse(f"localhost:5000/{path}:1"))

    assert parse_artifact(EXAMPLES[path].encode(), family).family is family


def test_every_family_has_an_example() -> None:
    segments = {path.partition("/")[0] for path in EXAMPLES}

    assert segments == {family.path_segment for family in FAMILIES}


def test_the_capabilities_are_those_that_are_known() -> None:
    page = (DOCS / "artifacts.md").read_text()

    (listed,) = re.findall(r"lns knows ((?:`\w+`(?:, )?)+)", page)

    assert set(re.findall(r"`(\w+)`", listed)) == CAPABILITIES


def test_the_plan_that_is_shown_is_the_golden_one() -> None:
    (shown,) = blocks("run-plan.md", "json")
    (golden,) = json.loads((DIRECTORY / "imageless.json").read_text())["plans"]

    assert json.loads(shown) == golden


def test_the_lock_that_is_shown_is_one_as_it_is_written() -> None:
    (shown,) = blocks("run-plan.md", "yaml")

    assert format_lock(parse_lock(shown.encode())) == shown.encode()


def test_every_type_of_problem_is_explained() -> None:
    page = (DOCS / "run-plan.md").read_text()
    table = page[page.index("| type | |") :]

    listed = set(re.findall(r"`([A-Z_]{4,})`", table[: table.index("\n\n")]))

    assert {one.value for one in ProblemType} <= listed
    assert listed - {one.value for one in ProblemType} <= set(LEAVES)


def test_the_built_in_size_is_the_one_that_is_documented() -> None:
    sentence = f"A machine has {BUILT_IN_CPUS} CPU and {BUILT_IN_MEMORY} MiB"

    assert sentence in (DOCS / "run-plan.md").read_text()
