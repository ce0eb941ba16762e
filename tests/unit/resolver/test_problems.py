"""How the problems of a plan are collected: all of them, in an order that does not vary."""

import pytest

from services.core.errors import ManifestUnknown, PlanInvalid, RegistryUnavailable, TooManyRequests
from services.resolver.problems import Problems
from tests.support.outcomes import passes


def test_no_problem_is_none() -> None:
    problems = Problems()
    problems.part().part()

    with passes():
        problems.raise_if_any()


def test_problems_stand_where_their_part_was_asked_for() -> None:
    problems = Problems()
    first, second = problems.part(), problems.part()
    problems.add("third", "is wrong", "X")
    second.add("second", "is wrong", "X")
    first.add_error("first", ManifestUnknown("is not there"))

    with pytest.raises(PlanInvalid, match=r"first: is not there \(and 2 more\)") as caught:
        problems.raise_if_any()

    assert [one.subject for one in caught.value.violations] == ["first", "second", "third"]


def test_one_problem_of_two_parts_is_reported_once() -> None:
    problems = Problems()
    for part in (problems.part(), problems.part()):
        part.add("same", "is wrong", "X")

    with pytest.raises(PlanInvalid) as caught:
        problems.raise_if_any()

    assert len(caught.value.violations) == 1


def test_registries_that_cannot_answer_now_are_worth_another_try() -> None:
    problems = Problems()
    problems.part().add_error("a", RegistryUnavailable("down", retry_after=3.0))
    problems.part().add_error("b", TooManyRequests("slow down"))

    with pytest.raises(RegistryUnavailable) as caught:
        problems.raise_if_any()

    assert caught.value.retry_after == 3.0
    assert [one.subject for one in caught.value.violations] == ["a", "b"]


def test_a_lasting_problem_beside_them_is_not() -> None:
    problems = Problems()
    problems.part().add_error("a", RegistryUnavailable("down"))
    problems.add("b", "is wrong", "X")

    with pytest.raises(PlanInvalid):
        problems.raise_if_any()
