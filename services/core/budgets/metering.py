"""What replies of a service say of their use, and what that costs. Pure.

Costs are those of a table of list prices: an account's own terms, prices of tools that are billed
apart, surcharges for long prompts and discounts for batches are not in it.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from decimal import Decimal
from enum import StrEnum
from functools import cache
from typing import Any, Final

_PICO_PER_MILLION: Final = 10**6
"""Picodollars a token, for each dollar a million tokens."""


class UsageApi(StrEnum):
    """In whose words replies say what they used."""

    ANTHROPIC = "anthropic"
    OPENAI = "openai"
    GOOGLE = "google"


@dataclass(frozen=True, slots=True, kw_only=True)
class Tokens:
    """Tokens of one reply, each counted once.

    Attributes:
        input: read anew.
        output: written, with those that are not shown.
        cache_read: read from a cache.
        cache_write: read, and kept in a cache for minutes.
        cache_write_long: read, and kept in a cache for an hour.
    """

    input: int = 0
    output: int = 0
    cache_read: int = 0
    cache_write: int = 0
    cache_write_long: int = 0

    @property
    def total(self) -> int:
        """All of them."""
        return self.input + self.output + self.cache_read + self.cache_write + self.cache_write_long


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelPrice:
    """Picodollars for one token of each kind; kinds without a price of their own cost as input."""

    input: int
    output: int
    cache_read: int
    cache_write: int
    cache_write_long: int

    def cost(self, tokens: Tokens) -> int:
        """Returns what tokens cost, in picodollars."""
        return (
            tokens.input * self.input
            + tokens.output * self.output
            + tokens.cache_read * self.cache_read
            + tokens.cache_write * self.cache_write
            + tokens.cache_write_long * self.cache_write_long
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Metering:
    """How the use of a service is counted.

    Attributes:
        api: in whose words its replies speak.
        free: path patterns of requests that use nothing and say so by saying nothing.
        prices: by pattern of the model's name, `*` for any text; the first that fits counts.
        own_prices: how many of them, the first, are of this machine's user.
    """

    api: UsageApi
    free: tuple[str, ...] = ()
    prices: tuple[tuple[str, ModelPrice], ...] = ()
    own_prices: int = 0

    def price(self, model: str) -> ModelPrice | None:
        """Returns the price of a model, or None where the table has none."""
        return next((price for pattern, price in self.prices if _fits(pattern, model)), None)

    def with_own_prices(self, table: Mapping[str, Any]) -> "Metering":
        """Returns this with the prices of a user's validated table before its own."""
        own = _prices(table)
        others = (one for one in self.prices if one[0] not in table)
        return replace(self, prices=(*own, *others), own_prices=len(own))


def metering_of_spec(spec: Mapping[str, Any] | None) -> Metering | None:
    """Returns the metering of an integration's validated `spec.usage`."""
    if spec is None:
        return None
    return Metering(
        api=UsageApi(spec["api"]),
        free=tuple(spec.get("free", ())),
        prices=_prices(spec.get("prices", {})),
    )


def _prices(table: Mapping[str, Any]) -> tuple[tuple[str, ModelPrice], ...]:
    return tuple((pattern, _price(one)) for pattern, one in table.items())


def _price(entry: Mapping[str, Any]) -> ModelPrice:
    first = entry["input"]
    return ModelPrice(
        input=_pico(first),
        output=_pico(entry["output"]),
        cache_read=_pico(entry.get("cacheRead", first)),
        cache_write=_pico(entry.get("cacheWrite", first)),
        cache_write_long=_pico(entry.get("cacheWriteLong", entry.get("cacheWrite", first))),
    )


def dollars_per_million(pico: int) -> str:
    """Returns a price as tables have it: USD for a million tokens, such as `0.3`."""
    return f"{Decimal(pico) / _PICO_PER_MILLION:f}"


def _pico(dollars: float) -> int:
    """Returns picodollars a token; through text, since 0.1 is how users write a tenth."""
    return int(Decimal(str(dollars)) * _PICO_PER_MILLION)


def _fits(pattern: str, model: str) -> bool:
    return bool(_compiled(pattern).fullmatch(model))


@cache
def _compiled(pattern: str) -> "re.Pattern[str]":
    return re.compile(".*".join(map(re.escape, pattern.split("*"))), re.DOTALL)
