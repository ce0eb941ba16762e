"""Decisions about HTTP requests: by the rules of every policy that has some for the host."""

import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from services.core.egress.paths import normalize_pattern, path_of_target, readings
from services.core.errors import RequestInvalid
from services.core.route_match import path_matches
from services.core.run_plan import PolicyRoute

_SHOWN: Final = 1024
_LISTED: Final = 8


@dataclass(frozen=True, slots=True)
class CompiledRule:
    """One rule: a method in capitals or `*`, and a path pattern in its normal form."""

    method: str
    path: str

    def permits(self, method: str, path: str) -> bool:
        """Returns whether a request fits, by one reading of its path."""
        return self.method in ("*", method) and path_matches(self.path, path)

    def __str__(self) -> str:
        return f"{self.method} {self.path}"


@dataclass(frozen=True, slots=True, kw_only=True)
class RouteRules:
    """The rules of the route of one policy that matched.

    Attributes:
        rules: alternatives.
        match: of the route.
        place: where the route stands, for users.
        source: the policy's name.
        editable: whether it is the project's own.
    """

    rules: tuple[CompiledRule, ...]
    match: str = ""
    place: str = ""
    source: str = ""
    editable: bool = False

    @classmethod
    def of_route(
        cls, route: PolicyRoute, *, place: str = "", source: str = "", editable: bool = False
    ) -> "RouteRules":
        """Returns the rules of a route."""
        return cls(
            rules=tuple(
                CompiledRule(rule.method, normalize_pattern(rule.path)) for rule in route.rules
            ),
            match=route.match,
            place=place,
            source=source,
            editable=editable,
        )

    def rule_for(self, method: str, paths: Sequence[str]) -> CompiledRule | None:
        """Returns the rule for the first reading of a path, None if some reading fits none."""
        found: CompiledRule | None = None
        for path in paths:
            rule = next((one for one in self.rules if one.permits(method, path)), None)
            if rule is None:
                return None
            found = found or rule
        return found

    def how_to_allow(self, method: str, path: str) -> str:
        """Says what would permit a request."""
        if self.editable:
            rule = shlex.quote(f"{method} {path}")
            return f"lns policy allow {shlex.quote(self.match)} --rule {rule}"
        rule = f"{{method: {method}, path: {path}}}"
        return f"run it with --policy FILE whose route {self.match} has the rule {rule}"


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestDecision:
    """What becomes of a request.

    Attributes:
        permitted: whether it is let through.
        path: its path in the ordinary reading; empty where it has none.
        rule: the rule that permitted it, or for a refusal the route whose rules do not: with its
            place. Empty if it has no rules.
        how_to_allow: what would permit it.
        ambiguous: whether it is refused since no two servers read its path alike.
    """

    permitted: bool
    path: str = ""
    rule: str = ""
    how_to_allow: str = ""
    ambiguous: bool = False


def decide_request(
    rules: Sequence[RouteRules], method: str, target: str, *, overrides: Sequence[str] = ()
) -> RequestDecision:
    """Returns what becomes of a request, which has to fit one rule of each of `rules`.

    Args:
        rules: of each policy that has some for the host.
        method: as sent; methods differ in case.
        target: the request's target, in origin form.
        overrides: methods that a server may take in its place, since a header names them; the
            request has to be permitted with each of them, too.
    """
    path = path_of_target(target)
    if not rules:
        return RequestDecision(permitted=True, path=_shown(path))
    try:
        paths = readings(path)
    except RequestInvalid:
        return RequestDecision(
            permitted=False, path=path[:_SHOWN], rule=_refusing(rules[0]), ambiguous=True
        )
    fitting = []
    for one in rules:
        for name in (method, *overrides):
            rule = one.rule_for(name, paths)
            if rule is None:
                return RequestDecision(
                    permitted=False,
                    path=paths[0],
                    rule=_refusing(one),
                    how_to_allow=one.how_to_allow(name, paths[0]),
                )
            if name is method:
                fitting.append(f"{rule} ({one.place or one.match})")
    return RequestDecision(permitted=True, path=paths[0], rule="; ".join(fitting))


def _shown(path: str) -> str:
    try:
        return readings(path)[0]
    except RequestInvalid:
        return path[:_SHOWN]


def _refusing(rules: RouteRules) -> str:
    listed = ", ".join(str(rule) for rule in rules.rules[:_LISTED])
    left = len(rules.rules) - _LISTED
    more = f" and {left} more" if left > 0 else ""
    return f"{rules.match} permits only {listed}{more} ({rules.place or rules.source})"
