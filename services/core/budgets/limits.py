"""Limits of budgets as users write them, and which of several holds.

    anthropic=5USD|200k-tokens|1000-requests

An amount is a number with a unit: `5USD`, `0.50USD`, `200k-tokens`, `1000-requests`, `20M-bytes`;
`k`, `M` and `G` are powers of 1000. Several limits of one integration are separated by `|` or `,`;
the first that is reached refuses. Of several limits in one unit, wherever they come from, the
smallest holds.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from decimal import ROUND_DOWN, Decimal
from enum import StrEnum
from typing import Final

from services.core.errors import RequestInvalid

AMOUNT_MOST: Final = 1 << 62
LIMITS_MOST: Final = 256
PICO: Final = 10**12
"""Picodollars in a USD: costs are counted in these, so that no price is rounded."""

_MICRO: Final = 10**6
"""Picodollars in the finest limit."""

_NAME = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?\Z")
_AMOUNT = re.compile(
    r"([0-9]{1,15}(?:\.[0-9]{1,12})?)(?:(USD)|([kMG]?)-(tokens|requests|bytes))\Z", re.ASCII
)
_POWERS: Final = {"": 1, "k": 10**3, "M": 10**6, "G": 10**9}
_HOW: Final = "write for example anthropic=5USD|200k-tokens|1000-requests, in quotes"


class BudgetUnit(StrEnum):
    """What is counted."""

    COST = "USD"
    TOKENS = "tokens"
    REQUESTS = "requests"
    BYTES = "bytes"

    @property
    def needs_reports(self) -> bool:
        """Whether it can only be counted where replies say what they used."""
        return self in (BudgetUnit.COST, BudgetUnit.TOKENS)


@dataclass(frozen=True, slots=True, kw_only=True)
class BudgetLimit:
    """The most that a run may use of one integration.

    Attributes:
        integration: its id.
        unit: what is counted.
        amount: the most, above 0; of `COST` in picodollars.
        origin: where it stands, for users: a policy's file or reference, or `--budget`.
    """

    integration: str
    unit: BudgetUnit
    amount: int
    origin: str = ""

    @property
    def text(self) -> str:
        """The limit as it can be written."""
        return format_amount(self.unit, self.amount)


def parse_budget(text: str, *, origin: str = "") -> tuple[BudgetLimit, ...]:
    """Returns the limits of `INTEGRATION=LIMIT[|LIMIT…]`.

    Raises:
        RequestInvalid: it is not of this form.
    """
    name, equals, limits = text.partition("=")
    if not equals:
        raise _invalid(text, "names no limit")
    return parse_limits(name, limits, origin=origin)


def parse_limits(integration: str, text: str, *, origin: str = "") -> tuple[BudgetLimit, ...]:
    """Returns the limits of one integration, `5USD|200k-tokens`.

    Raises:
        RequestInvalid: they are not of this form.
    """
    if not _NAME.match(integration):
        raise _invalid(integration, "is not the id of an integration")
    return smallest(_limit(integration, part.strip(" "), origin) for part in re.split("[|,]", text))


def smallest(limits: Iterable[BudgetLimit]) -> tuple[BudgetLimit, ...]:
    """Returns one limit of each integration and unit: the smallest, of equal ones the first."""
    found: dict[tuple[str, BudgetUnit], BudgetLimit] = {}
    for limit in limits:
        known = found.setdefault((limit.integration, limit.unit), limit)
        if limit.amount < known.amount:
            found[limit.integration, limit.unit] = limit
    return tuple(found.values())


def format_amount(unit: BudgetUnit, amount: int) -> str:
    """Returns an amount of a unit for users; costs have at least cents and are never rounded up."""
    if unit is BudgetUnit.COST:
        whole = str((Decimal(amount) / PICO).quantize(Decimal("0.000001"), rounding=ROUND_DOWN))
        cents, rest = whole[:-4], whole[-4:].rstrip("0")
        return f"{cents}{rest}USD"
    return f"{amount}-{unit}"


def _limit(integration: str, text: str, origin: str) -> BudgetLimit:
    match = _AMOUNT.match(text)
    if match is None:
        raise _invalid(text, "is not a limit")
    unit = BudgetUnit.COST if match[2] else BudgetUnit(match[4])
    amount = Decimal(match[1]) * (PICO if match[2] else _POWERS[match[3]])
    if amount % (_MICRO if match[2] else 1):
        raise _invalid(text, f"is finer than {'a millionth' if match[2] else 'one'}")
    if not 0 < amount <= AMOUNT_MOST:
        raise _invalid(text, "is nothing" if not amount else "is too much to be counted")
    return BudgetLimit(integration=integration, unit=unit, amount=int(amount), origin=origin)


def _invalid(text: str, why: str) -> RequestInvalid:
    return RequestInvalid(f"the budget {text[:80]!r} {why}", hint=_HOW)
