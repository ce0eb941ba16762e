"""A user's own integrations, and prices of their own in the place of those that ship."""

import json
from typing import Any

import pytest

from services.core.budgets.limits import PICO
from services.core.budgets.metering import Tokens
from services.core.errors import ArtifactInvalid, LimitExceeded
from services.core.integrations.catalogue import Catalogue, shipped_catalogue
from services.core.integrations.user_file import UserFile, parse_user_file, with_user_file
from tests.unit.core.test_integrations import definition, document


def text_of(**members: Any) -> bytes:
    return json.dumps({"version": 1, "integrations": [], **members}).encode()


def catalogue_with(**members: Any) -> Catalogue:
    file = parse_user_file(text_of(**members), name="f")
    return with_user_file(shipped_catalogue(), file, name="f")


def dollars(catalogue: Catalogue, integration: str, model: str) -> float:
    """What a million tokens read cost."""
    metering = catalogue.get(integration).metering
    assert metering is not None
    price = metering.price(model)
    assert price is not None
    return price.cost(Tokens(input=10**6)) / PICO


def test_a_users_file_holds_documents() -> None:
    one = catalogue_with(integrations=[document()]).get("tracker")

    assert one.origin == "f"
    assert parse_user_file(b"", name="f") == UserFile()


@pytest.mark.parametrize(
    "text",
    [
        b"[]", b"{}", b'{"version": 2, "integrations": []}', b'{"version": 1}', b"x: [",
        text_of(integrations={}), text_of(price={}), text_of(prices=[]),
    ],
)  # fmt: skip
def test_a_file_that_is_not_one_is_refused(text: bytes) -> None:
    with pytest.raises(ArtifactInvalid):
        parse_user_file(text, name="f")


def test_a_users_file_is_bounded() -> None:
    with pytest.raises(LimitExceeded):
        parse_user_file(text_of(integrations=[document()] * 257), name="f")


def test_a_users_prices_go_before_those_of_a_shipped_integration() -> None:
    shipped = shipped_catalogue()
    own = {"claude-sonnet-4-5*": {"input": 2.4, "output": 12}, "mine": {"input": 1, "output": 1}}
    catalogue = catalogue_with(prices={"anthropic": own})

    assert dollars(catalogue, "anthropic", "claude-sonnet-4-5-20250929") == 2.4
    assert dollars(catalogue, "anthropic", "mine") == 1
    for model in ("claude-sonnet-4-20250514", "claude-haiku-4-5"):
        assert dollars(catalogue, "anthropic", model) == dollars(shipped, "anthropic", model)
    assert dollars(shipped, "anthropic", "claude-sonnet-4-5-20250929") == 3
    assert [one.id for one in catalogue.all()] == [one.id for one in shipped.all()]


def test_a_pattern_of_the_users_that_ships_too_is_tried_where_the_user_wrote_it() -> None:
    own = {
        "claude-opus-4-1-mine": {"input": 7, "output": 7},
        "claude-*": {"input": 9, "output": 9},
        "claude-opus-4-1*": {"input": 8, "output": 8},  # the one before fits as well
    }
    catalogue = catalogue_with(prices={"anthropic": own})

    assert dollars(catalogue, "anthropic", "claude-opus-4-1-mine") == 7
    assert dollars(catalogue, "anthropic", "claude-opus-4-1") == 9


def test_a_bundle_may_repeat_an_integration_that_a_user_has_prices_for() -> None:
    """What it means is the same: hosts, secret, and how replies speak."""
    catalogue = catalogue_with(prices={"anthropic": {"*": {"input": 1, "output": 1}}})

    repeated = catalogue.with_more([shipped_catalogue().get("anthropic")])

    assert dollars(repeated, "anthropic", "claude-sonnet-4-5") == 1


@pytest.mark.parametrize(
    ("prices", "why"),
    [
        ({"anthropics": {"*": {"input": 1, "output": 1}}}, "no integration has this id"),
        ({"github": {"*": {"input": 1, "output": 1}}}, "github: it counts no tokens"),
        ({"anthropic": {"*": {"input": 1}}}, r"\$\.prices\.anthropic"),
        ({"anthropic": {"*": {"input": -1, "output": 1}}}, r"\$\.prices\.anthropic"),
        ({"anthropic": {"*": {"input": "1", "output": 1}}}, r"\$\.prices\.anthropic"),
        ({"anthropic": {f"m{n}": {"input": 1, "output": 1} for n in range(257)}}, r"\$\.prices"),
    ],
)
def test_prices_that_cannot_be_used_are_refused(prices: dict[str, Any], why: str) -> None:
    with pytest.raises(ArtifactInvalid, match=why):
        catalogue_with(prices=prices)


def test_prices_are_for_the_users_own_integrations_too() -> None:
    counted = document(usage={"api": "openai"})
    table = {"tracker": {"*": {"input": 4, "output": 4}}}

    assert dollars(catalogue_with(integrations=[counted], prices=table), "tracker", "any") == 4
    assert definition().metering is None
