"""Limits of budgets as users write them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.core.budgets.limits import (
    PICO,
    BudgetLimit,
    BudgetUnit,
    parse_budget,
    parse_limits,
    smallest,
)
from services.core.errors import ArtifactInvalid, RequestInvalid
from services.core.policy import merge_policies
from services.core.policy_file import parse_policy_file


@pytest.mark.parametrize(
    ("text", "unit", "amount", "shown"),
    [
        ("5USD", BudgetUnit.COST, 5 * PICO, "5.00USD"),
        ("0.5USD", BudgetUnit.COST, PICO // 2, "0.50USD"),
        ("0.000001USD", BudgetUnit.COST, 10**6, "0.000001USD"),
        ("200k-tokens", BudgetUnit.TOKENS, 200_000, "200000-tokens"),
        ("1.5M-tokens", BudgetUnit.TOKENS, 1_500_000, "1500000-tokens"),
        ("1000-requests", BudgetUnit.REQUESTS, 1000, "1000-requests"),
        ("2G-bytes", BudgetUnit.BYTES, 2 * 10**9, "2000000000-bytes"),
    ],
)
def test_an_amount_has_a_unit(text: str, unit: BudgetUnit, amount: int, shown: str) -> None:
    (limit,) = parse_budget(f"anthropic={text}", origin="--budget")

    assert limit == BudgetLimit(
        integration="anthropic", unit=unit, amount=amount, origin="--budget"
    )
    assert limit.text == shown


@pytest.mark.parametrize("separator", ["|", ",", " | "])
def test_several_limits_hold_together(separator: str) -> None:
    limits = parse_budget(separator.join(("anthropic=5USD", "200k-tokens", "7USD")))

    assert [limit.text for limit in limits] == ["5.00USD", "200000-tokens"]


@pytest.mark.parametrize(
    "text",
    [
        "anthropic",
        "anthropic=",
        "=5USD",
        "Anthropic=5USD",
        "anthropic=5",
        "anthropic=5 USD",
        "anthropic=5EUR",
        "anthropic=$5",
        "anthropic=0USD",
        "anthropic=-1USD",
        "anthropic=0.0000001USD",
        "anthropic=0.5-requests",
        "anthropic=1.0001k-tokens",
        "anthropic=5kUSD",
        "anthropic=99999999USD",
        "anthropic=5USD||7-requests",
        "anthropic=٣USD",
        "anthropic=1e3-tokens",
        "a" * 100_000,
    ],
)
def test_what_is_no_limit_is_refused_with_an_example(text: str) -> None:
    with pytest.raises(RequestInvalid) as caught:
        parse_budget(text)

    assert "anthropic=5USD|200k-tokens|1000-requests" in caught.value.hint
    assert len(caught.value.message) < 200


@given(st.sampled_from(BudgetUnit), st.integers(1, 1 << 40))
def test_a_limit_reads_as_it_is_written(unit: BudgetUnit, amount: int) -> None:
    limit = BudgetLimit(
        integration="a", unit=unit, amount=amount * 10**6 if unit is BudgetUnit.COST else amount
    )

    assert parse_limits("a", limit.text) == (limit,)


@given(st.lists(st.tuples(st.sampled_from("ab"), st.integers(1, 9)), max_size=8))
def test_of_several_limits_the_smallest_holds(pairs: list[tuple[str, int]]) -> None:
    limits = [
        BudgetLimit(integration=name, unit=BudgetUnit.TOKENS, amount=amount)
        for name, amount in pairs
    ]

    held = {limit.integration: limit.amount for limit in smallest(limits)}

    assert held == {
        name: min(amount for other, amount in pairs if other == name) for name, _ in pairs
    }


def test_a_policy_has_budgets_and_of_two_policies_the_smaller_holds() -> None:
    one = parse_policy_file(b"budgets: {anthropic: 5USD|9-requests}", name="one")
    two = parse_policy_file(b"budgets: {anthropic: 2USD, github: 1000-requests}", name="two")

    merged = merge_policies([one, two])

    assert [(limit.integration, limit.text, limit.origin) for limit in merged.budgets] == [
        ("anthropic", "2.00USD", "two"),
        ("anthropic", "9-requests", "one"),
        ("github", "1000-requests", "two"),
    ]


@pytest.mark.parametrize(
    ("text", "place"),
    [
        (b"budgets: {anthropic: 5}", "$.budgets.anthropic"),
        (b"budgets: {anthropic: 5 euros}", "$.budgets.anthropic"),
        (b"budgets: {An: 5USD}", "$.budgets"),
        (b"budgets: [anthropic]", "$.budgets"),
    ],
)
def test_a_policy_with_a_budget_that_is_invalid_is_refused_at_its_place(
    text: bytes, place: str
) -> None:
    with pytest.raises(ArtifactInvalid, match="is not a valid policy") as caught:
        parse_policy_file(text, name="p")

    assert place in caught.value.message
