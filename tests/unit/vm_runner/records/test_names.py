import pytest

from services.core.errors import RequestInvalid
from services.vm_runner.records import names
from tests.support.outcomes import passes


@pytest.mark.parametrize("name", ["a", "agent-1", "A_b.c", "0" * 63])
def test_a_name_is_letters_digits_and_some_signs(name: str) -> None:
    with passes():
        names.check(name)


@pytest.mark.parametrize("name", ["", "-a", ".a", "a/b", "a b", "ä", "a\n", "0" * 64, "../x"])
def test_what_cannot_be_a_name_is_refused(name: str) -> None:
    with pytest.raises(RequestInvalid):
        names.check(name)


@pytest.mark.parametrize(
    ("suggestion", "taken", "expected"),
    [
        ("hermes", set(), "hermes"),
        ("hermes", {"hermes"}, "hermes-2"),
        ("hermes", {"hermes", "hermes-2"}, "hermes-3"),
        ("registry.test/Über cool", set(), "registry.test-ber-cool"),
        ("", set(), "run"),
        ("../..", set(), "run"),
        ("x" * 100, set(), "x" * 40),
    ],
)
def test_a_free_name_is_found(suggestion: str, taken: set[str], expected: str) -> None:
    name = names.choose(suggestion, taken=taken)

    assert name == expected
    names.check(name)


def test_a_name_is_found_even_among_a_thousand() -> None:
    taken = {"run", *(f"run-{number}" for number in range(2, 1000))}

    assert names.choose("run", taken=taken) not in taken
