"""What was used, what it cost, and what limits say of it."""

import re
from importlib import resources
from pathlib import Path

import pytest

from services.core.budgets.limits import PICO, parse_budget
from services.core.budgets.metering import Tokens, dollars_per_million, metering_of_spec
from services.core.budgets.spending import Spending, near_limits, refusal, standing_text
from services.core.integrations.catalogue import shipped_catalogue

BUDGETS = Path(__file__).parents[4] / "docs" / "budgets.md"
METERING = metering_of_spec(
    {
        "api": "anthropic",
        "prices": {
            "model-1-mini": {"input": 0.0375, "output": 0.1},
            "model-1*": {"input": 3, "output": 15, "cacheRead": 0.3, "cacheWrite": 3.75},
        },
    }
)


def test_costs_are_exact_to_the_smallest_price() -> None:
    assert METERING is not None
    mini, full = METERING.price("model-1-mini"), METERING.price("model-1-2026")
    assert mini is not None
    assert full is not None

    assert mini.cost(Tokens(input=1)) == 37_500
    assert full.cost(Tokens(input=10**6)) == 3 * PICO
    assert full.cost(Tokens(input=1, output=1, cache_read=1, cache_write=1)) == 22_050_000
    assert full.cost(Tokens(cache_write_long=10**6)) == 3.75 * PICO
    assert METERING.price("other") is None
    assert METERING.price("a-model-1") is None


def test_the_table_that_ships_knows_the_models_of_its_services() -> None:
    shipped = shipped_catalogue()
    for integration, model, dollars in [
        ("anthropic", "claude-sonnet-4-5-20250929", 3),
        ("anthropic", "claude-opus-4-20250514", 15),
        ("anthropic", "claude-opus-4-5", 5),
        ("openai", "gpt-4o-mini-2024-07-18", 0.15),
        ("openai", "gpt-5.1-codex-mini", 0.25),
    ]:
        metering = shipped.get(integration).metering
        assert metering is not None
        price = metering.price(model)
        assert price is not None, model
        assert price.cost(Tokens(input=10**6)) == dollars * PICO


@pytest.mark.parametrize(
    ("limits", "spending", "expected"),
    [
        ("a=2-requests", Spending(requests=1), None),
        ("a=2-requests", Spending(requests=2), "2-requests of 2-requests (100 %)"),
        ("a=10-bytes", Spending(sent_bytes=4, received_bytes=7), "11-bytes of 10-bytes (110 %)"),
        ("a=9-tokens", Spending(tokens=Tokens(cache_read=9)), "9-tokens of 9-tokens"),
        ("a=1USD", Spending(picodollars=PICO - 1), None),
        ("a=1USD", Spending(picodollars=PICO), "1.00USD of 1.00USD"),
        ("a=9-requests|1-bytes", Spending(received_bytes=1), "1-bytes of 1-bytes"),
        ("a=9-tokens", Spending(unread="a reply said nothing"), "a reply said nothing"),
        ("a=9USD", Spending(unread="a reply said nothing"), "a reply said nothing"),
        ("a=9USD", Spending(unpriced="no price"), "no price"),
        ("a=9-tokens", Spending(unpriced="no price"), None),
        ("a=9-requests|9-bytes", Spending(unread="nothing", unpriced="no price"), None),
    ],
)
def test_a_request_is_refused_where_a_limit_is_reached_or_cannot_be_known(
    limits: str, spending: Spending, expected: str | None
) -> None:
    refused = refusal(parse_budget(limits), spending)

    if expected is None:
        assert refused is None
    else:
        assert refused is not None
        assert expected in refused[0]
        assert "--budget a=" in refused[1]


def test_a_refusal_names_the_policy_that_the_limit_stands_in() -> None:
    refused = refusal(parse_budget("a=1-requests", origin="lns-policy.yaml"), Spending(requests=1))

    assert refused is not None
    assert refused[1] == "change budgets.a in lns-policy.yaml"


def test_a_limit_is_near_from_80_percent_on() -> None:
    limits = parse_budget("a=10-requests|100-bytes")

    assert near_limits(limits, Spending(requests=7, received_bytes=79)) == []
    (near,) = near_limits(limits, Spending(requests=8))
    assert standing_text(near, Spending(requests=8)) == "8-requests of 10-requests (80 %)"


def test_the_document_says_the_date_of_the_prices_that_ship() -> None:
    folder = resources.files("services.core.integrations") / "shipped"
    dates = {
        date
        for file in folder.iterdir()
        if file.name.endswith(".yaml")
        for date in re.findall(r"prices: +# list prices of (\d{4}-\d\d)", file.read_text())
    }
    (date,) = dates  # several dates: say each in the document
    assert f"list prices of {date}" in " ".join(BUDGETS.read_text().split())


def test_a_price_is_shown_as_tables_have_it() -> None:
    table = {"m": {"input": 0.0375, "output": 15, "cacheRead": 0.3, "cacheWrite": 3.75}}
    metering = metering_of_spec({"api": "anthropic", "prices": table})
    assert metering is not None
    (price,) = (one for _, one in metering.prices)
    shown = [price.input, price.output, price.cache_read, price.cache_write, price.cache_write_long]
    assert list(map(dollars_per_million, shown)) == ["0.0375", "15", "0.3", "3.75", "3.75"]
