"""What a run has used of an integration, and what its limits say of it. Pure."""

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import Final

from services.core.budgets.limits import BudgetLimit, BudgetUnit, format_amount
from services.core.budgets.metering import Tokens

WARN_PERCENT: Final = 80

_ELSEWHERE: Final = "a budget of requests or bytes does not need to know"


@dataclass(frozen=True, slots=True, kw_only=True)
class Spending:
    """What was used; only ever grows.

    Attributes:
        requests: that were let through.
        sent_bytes, received_bytes: of bodies.
        tokens: that replies reported.
        picodollars: that those cost.
        unread: why tokens are not known any more: a reply that did not say; empty while they are.
        unpriced: why the cost is not known any more; empty while it is.
    """

    requests: int = 0
    sent_bytes: int = 0
    received_bytes: int = 0
    tokens: Tokens = field(default_factory=Tokens)
    picodollars: int = 0
    unread: str = ""
    unpriced: str = ""

    def used(self, unit: BudgetUnit) -> int:
        """Returns what was used of a unit."""
        match unit:
            case BudgetUnit.COST:
                return self.picodollars
            case BudgetUnit.TOKENS:
                return self.tokens.total
            case BudgetUnit.REQUESTS:
                return self.requests
            case BudgetUnit.BYTES:
                return self.sent_bytes + self.received_bytes

    def with_request(self) -> "Spending":
        """Returns it after one more request was let through."""
        return replace(self, requests=self.requests + 1)

    def with_bytes(self, sent: int, received: int) -> "Spending":
        """Returns it after bodies passed."""
        return replace(
            self,
            sent_bytes=self.sent_bytes + sent,
            received_bytes=self.received_bytes + received,
        )

    def with_tokens(self, tokens: Tokens, picodollars: int) -> "Spending":
        """Returns it after a reply reported its use."""
        own = self.tokens
        return replace(
            self,
            tokens=Tokens(
                input=own.input + tokens.input,
                output=own.output + tokens.output,
                cache_read=own.cache_read + tokens.cache_read,
                cache_write=own.cache_write + tokens.cache_write,
                cache_write_long=own.cache_write_long + tokens.cache_write_long,
            ),
            picodollars=self.picodollars + picodollars,
        )

    def unknown(self, unit: BudgetUnit) -> str:
        """Returns why the use of a unit is not known; empty where it is."""
        if unit is BudgetUnit.COST:
            return self.unread or self.unpriced
        return self.unread if unit is BudgetUnit.TOKENS else ""


def percent_used(limit: BudgetLimit, spending: Spending) -> int:
    """Returns how much of a limit is used, in whole percent, rounded down."""
    return spending.used(limit.unit) * 100 // limit.amount


def standing_text(limit: BudgetLimit, spending: Spending) -> str:
    """Returns how a budget stands: `1.25USD of 5.00USD (25 %)`."""
    used = format_amount(limit.unit, spending.used(limit.unit))
    return f"{used} of {limit.text} ({percent_used(limit, spending)} %)"


def near_limits(limits: Iterable[BudgetLimit], spending: Spending) -> list[BudgetLimit]:
    """Returns the limits of which 80 % or more are used."""
    return [limit for limit in limits if percent_used(limit, spending) >= WARN_PERCENT]


def refusal(limits: Iterable[BudgetLimit], spending: Spending) -> tuple[str, str] | None:
    """Returns why one more request is refused and what to do about it; None where it is not.

    What cannot be known is not guessed: a limit whose unit a reply did not report refuses.
    """
    for limit in limits:
        unknown = spending.unknown(limit.unit)
        if spending.used(limit.unit) >= limit.amount:
            text = f"{standing_text(limit, spending)} is used"
            return f"the budget of {limit.integration} is spent: {text}", _more(limit)
        if unknown:
            return (
                f"the budget of {limit.integration}, {limit.text}, cannot be counted: {unknown}",
                f"{_ELSEWHERE}: {_more(limit)}",
            )
    return None


def _more(limit: BudgetLimit) -> str:
    if limit.origin in ("", "--budget"):
        return f"start another run with another --budget {limit.integration}=…"
    return f"change budgets.{limit.integration} in {limit.origin}"
