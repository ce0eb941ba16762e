"""Adapters for each environment that callers have: logins and proxies are those of the caller."""

import contextlib
import threading
from collections import OrderedDict
from collections.abc import Callable, Mapping
from typing import Any, Final, Generic, TypeVar, cast

from services.chassis import context
from services.chassis.caller_environment import decode

T = TypeVar("T")
P = TypeVar("P")

_MOST: Final = 64
"""Environments whose adapters, with their connections and tokens, are kept."""


class ByCaller(Generic[T]):
    """Makes adapters once for each environment, and picks those of the call that is served."""

    def __init__(
        self,
        stack: contextlib.ExitStack,
        make: Callable[[contextlib.ExitStack, Mapping[str, str] | None], T],
    ) -> None:
        """Makes nothing yet.

        Args:
            stack: closes, at its end, what was made.
            make: opens the adapters of an environment; None is the gateway's own. What it puts on
                the stack that it is given is closed when they are no longer kept.
        """
        self._make = make
        self._guard = threading.Lock()
        self._made: OrderedDict[Any, tuple[T, contextlib.ExitStack]] = OrderedDict()
        stack.callback(self._close)
        self.current()  # what cannot be opened fails at the start

    def current(self) -> T:
        """Returns the adapters of the call that is served.

        Raises:
            SettingsInvalid: what the caller's variables say cannot be used.
        """
        variables = decode(context.environment())
        key = None if variables is None else tuple(sorted(variables.items()))
        with self._guard:
            found = self._made.get(key)
            if found is None:
                with contextlib.ExitStack() as closing:
                    made = self._make(closing, variables)
                    found = self._made[key] = (made, closing.pop_all())
                self._forget_oldest()
            self._made.move_to_end(key)
            return found[0]

    def part(self, pick: Callable[[T], P]) -> P:
        """Returns what stands for one of the adapters: each call goes to the caller's."""
        return cast("P", _Part(lambda: pick(self.current())))

    def _forget_oldest(self) -> None:
        while len(self._made) > _MOST:
            oldest = next(key for key in self._made if key is not None)
            self._made.pop(oldest)[1].close()

    def _close(self) -> None:
        for _, closing in self._made.values():
            closing.close()


class _Part:
    """Has the attributes of whatever `pick` returns at that moment."""

    def __init__(self, pick: Callable[[], Any]) -> None:
        self._pick = pick

    def __getattr__(self, name: str) -> Any:
        return getattr(self._pick(), name)
