"""The harness compares fairly and says honestly what came out."""

import json

import pytest

from tests.benchmarks.harness import (
    Comparison,
    Contender,
    Figure,
    Form,
    Quantity,
    Sample,
    Unavailable,
    run_comparison,
)
from tests.benchmarks.report import format_result, to_json

MIB = 1 << 20


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tests.benchmarks.harness._settle", lambda: None)


def taking(name: str, *samples: Sample | Exception, order: list[str] | None = None) -> Contender:
    """Returns a contender that takes the given samples, one after the other."""
    left = iter(samples)

    def take() -> Sample:
        if order is not None:
            order.append(name)
        sample = next(left)
        if isinstance(sample, Exception):
            raise sample
        return sample

    return Contender(name=name, take=take)


def walls(*seconds: float) -> list[Sample]:
    return [Sample(wall=one) for one in seconds]


def test_contenders_take_turns_and_every_round_goes_the_other_way() -> None:
    order: list[str] = []
    comparison = Comparison(
        title="work",
        contenders=[
            taking("a", *walls(1, 1, 1), order=order),
            taking("b", *walls(1, 1, 1), order=order),
        ],
    )

    run_comparison("x", comparison, samples=3)

    assert order == ["a", "b", "b", "a", "a", "b"]


@pytest.mark.parametrize(
    ("figure", "value", "is_reached"),
    [
        (Figure(contender="lns", against="other", limit=0.5), 0.5, True),
        (Figure(contender="lns", against="other", limit=0.49), 0.5, False),
        (Figure(contender="lns", against="other", limit=0.0, form=Form.EXCESS), -2.0, True),
        (Figure(contender="lns", limit=1.0), 2.0, False),
        (Figure(contender="lns", limit=200 * MIB, quantity=Quantity.BYTES), 100 * MIB, True),
        (Figure(contender="lns", limit=1.0, quantity=Quantity.CPU), None, None),
        (Figure(contender="lns", against="nobody", limit=1.0), None, None),
    ],
)
def test_figures_are_made_of_medians(
    figure: Figure, value: float | None, is_reached: bool | None
) -> None:
    ours = [Sample(wall=wall, bytes=100 * MIB) for wall in (2.0, 90.0, 1.0)]
    comparison = Comparison(
        title="work",
        contenders=[taking("lns", *ours), taking("other", *walls(4.0, 0.1, 50.0))],
        figures=[figure],
    )

    (reached,) = run_comparison("x", comparison, samples=3).figures

    assert (reached.value, reached.is_reached) == (value, is_reached)


def test_a_contender_that_fails_is_left_out_and_the_others_go_on() -> None:
    broken = taking("broken", Sample(wall=1), OSError("no disk"), Sample(wall=1))
    absent = taking("absent", Unavailable("not installed"))
    comparison = Comparison(
        title="work", contenders=[broken, absent, taking("lns", *walls(1, 2, 3))]
    )

    result = run_comparison("x", comparison, samples=3)

    assert [len(one.samples) for one in result.series] == [1, 0, 3]
    assert [one.problem for one in result.series] == ["OSError: no disk", "not installed", ""]


def test_the_table_has_a_row_for_each_contender_and_a_verdict_for_each_figure() -> None:
    comparison = Comparison(
        title="moving a thing",
        contenders=[
            taking("lns", Sample(wall=0.5, cpu=0.25, bytes=10 * MIB)),
            taking("other", Sample(wall=2.0)),
            taking("third", Unavailable("third is not installed")),
        ],
        figures=[
            Figure(contender="lns", against="other", limit=0.2),
            Figure(contender="lns", limit=20 * MIB, quantity=Quantity.BYTES),
            Figure(contender="lns", against="third", limit=1),
        ],
        work=(100, "MiB"),
        notes=["be fair"],
    )

    lines = format_result(run_comparison("group/name", comparison, samples=1)).splitlines()

    assert lines[1] == "group/name: moving a thing"
    rows = [line.split() for line in lines[3:7]]
    assert rows == [
        ["wall", "s", "MiB/s", "cpu", "s", "peak", "MiB"],
        ["lns", "0.500", "200", "0.250", "10.0"],
        ["other", "2.00", "50", "-", "-"],
        ["third", "-", "-", "-", "-"],
    ]
    assert [line.strip() for line in lines[7:]] == [
        "third: third is not installed",
        "wall of lns ÷ other: 0.25 (at most 0.20): NOT REACHED",
        "peak of lns: 10.0 MiB (at most 20.0 MiB): reached",
        "wall of lns ÷ third: not measured (at most 1.00)",
        "note: be fair",
    ]


def test_json_has_every_sample_and_figure() -> None:
    comparison = Comparison(
        title="work",
        contenders=[taking("lns", *walls(1, 3))],
        figures=[Figure(contender="lns", limit=1.5)],
    )

    document = json.loads(to_json([run_comparison("group/name", comparison, samples=2)]))

    (result,) = document["results"]
    (contender,) = result["contenders"]
    assert [one["wall"] for one in contender["samples"]] == [1, 3]
    assert contender["medians"]["wall"] == 2
    assert result["figures"][0]["reached"] is False
    assert result["figures"][0]["value"] == 2
