"""What is kept of a run's budgets on the disk, as JSON. Pure."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Final

from services.core.budgets.metering import Tokens
from services.core.budgets.spending import Spending

_VERSION: Final = 1


@dataclass(slots=True, kw_only=True)
class BudgetRecord:
    """What a run has used, and what is under way.

    Attributes:
        spending: by the id of the integration.
        owed: numbers of requests that were let through and whose use was not reported yet, with
            the integrations that they count for.
        warned: limits that the run's notices spoke of.
    """

    spending: dict[str, Spending] = field(default_factory=dict)
    owed: dict[int, tuple[str, ...]] = field(default_factory=dict)
    warned: set[str] = field(default_factory=set)

    def of(self, integration: str) -> Spending:
        """Returns what was used of an integration."""
        return self.spending.get(integration, Spending())

    def encode(self) -> bytes:
        """Returns its text."""
        document = {
            "version": _VERSION,
            "spending": {name: asdict(one) for name, one in self.spending.items()},
            "owed": {str(number): list(names) for number, names in self.owed.items()},
            "warned": sorted(self.warned),
        }
        return json.dumps(document, indent=1).encode() + b"\n"


def decode_record(data: bytes) -> BudgetRecord:
    """Returns what a text says; nothing for an empty one.

    Raises:
        ValueError: it is no such text.
    """
    if not data.strip():
        return BudgetRecord()
    document = json.loads(data)
    if not isinstance(document, dict) or document.get("version") != _VERSION:
        raise ValueError("not a record of budgets of this version")
    try:
        return BudgetRecord(
            spending={name: _spending(one) for name, one in document["spending"].items()},
            owed={int(number): tuple(names) for number, names in document["owed"].items()},
            warned=set(document["warned"]),
        )
    except (AttributeError, KeyError, TypeError) as error:
        raise ValueError("a record of budgets lacks a field") from error


def _spending(values: Mapping[str, Any]) -> Spending:
    return Spending(**{**values, "tokens": Tokens(**values["tokens"])})
