"""Origins of a plan's values, kept while it is composed; and choosing by precedence."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Generic, TypeVar

from services.core.run_plan import OriginKind, ValueOrigin

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Offer(Generic[T]):
    """A value that one source offers for the plan; None from a source that says nothing."""

    value: T | None
    kind: OriginKind
    detail: str = ""


class Origins:
    """Which origin each value of a plan has."""

    def __init__(self) -> None:
        self._by_path: dict[str, ValueOrigin] = {}

    def note(self, path: str, kind: OriginKind, detail: str = "") -> None:
        """Notes where the value at `path` comes from; a later note replaces an earlier one."""
        self._by_path[path] = ValueOrigin(path=path, kind=kind, detail=detail)

    def choose(self, path: str, *offers: Offer[T]) -> Offer[T] | None:
        """Returns the first offer with a value and notes its origin; None if none has a value."""
        for offer in offers:
            if offer.value is not None:
                self.note(path, offer.kind, offer.detail)
                return offer
        return None

    def extend(self, origins: Iterable[ValueOrigin]) -> None:
        """Notes origins that were found elsewhere."""
        for origin in origins:
            self._by_path[origin.path] = origin

    def sorted(self) -> tuple[ValueOrigin, ...]:
        """Returns the origins by path."""
        return tuple(self._by_path[path] for path in sorted(self._by_path))
