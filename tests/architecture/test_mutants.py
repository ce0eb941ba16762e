"""The harmful changes that `make mutants` tries can still be made."""

import ast
from collections import Counter

import pytest

from tests.mutants.records import FOLDER, ROOT, Mutant, all_mutants

MUTANTS = all_mutants()
QUICK = ("tests/unit/", "tests/contract/", "tests/behaviour/", "tests/architecture/")


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: f"{mutant.area}: {mutant.name}")
def test_a_harmful_change_fits_the_file_it_changes(mutant: Mutant) -> None:
    changed = mutant.changed((ROOT / mutant.file).read_text())

    if mutant.file.endswith(".py"):
        ast.parse(changed)
    assert mutant.new != mutant.old
    assert mutant.reason
    assert mutant.tests
    assert [test for test in mutant.tests if not test.startswith(QUICK)] == []
    assert [test for test in mutant.tests if not is_there(test)] == []


def is_there(test: str) -> bool:
    """Whether pytest would find a test: a folder, a file, or a function of one."""
    path, _, function = test.partition("::")
    if not function:
        return (ROOT / path).exists()
    return f"def {function}(" in (ROOT / path).read_text()


def test_a_record_that_no_longer_fits_says_what_to_do() -> None:
    mutant = Mutant(
        area="core", name="nothing", file="a.py", old="x", new="y", reason="", tests=("tests",)
    )

    with pytest.raises(
        ValueError, match=r"core\.toml, 'nothing': its old text is 2 times in a\.py"
    ):
        mutant.changed("x = x")


def test_every_area_has_records_and_no_two_have_one_name() -> None:
    counts = Counter((mutant.area, mutant.name) for mutant in MUTANTS)

    assert {area for area, _ in counts} == {path.stem for path in FOLDER.glob("*.toml")} != set()
    assert [name for name, count in counts.items() if count > 1] == []
