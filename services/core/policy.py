"""Policies: read from documents, and merged into one.

The first route that matches decides; where none does, the default verdict; `ask` where none is
written down. Of several policies each gives its own opinion on a connection: the verdict of its own
first matching route, else its default if it names one, else none. The strictest opinion wins (deny
over ask over allow), and no opinion at all is `ask`. So a default that is written down binds, and a
policy that only names what it cares about leaves the rest to others. Of budgets
the smallest holds. `merge_policies` writes that down as one flat policy, so that who enforces it
knows nothing of merging.
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import reduce
from itertools import islice
from typing import Any, Final, NamedTuple

from services.core.budgets.limits import BudgetLimit, parse_limits, smallest
from services.core.errors import LimitExceeded, RequestInvalid
from services.core.reference import MAX_REFERENCE_CHARACTERS
from services.core.route_match import RouteMatch, match_segments, path_matches
from services.core.run_plan import Policy, PolicyRoute, PolicyRule, Verdict

MAX_ROUTES: Final = 4096
_MAX_PAIRS: Final = 250_000
"""Pairs of routes that a merge looks at; a second's work."""

_Parsed = tuple[PolicyRoute, RouteMatch]


class _Part(NamedTuple):
    """A policy on its way to being merged: its routes, its default, and whose default it is."""

    routes: list[_Parsed]
    default: Verdict | None
    origin: str


_STRICTNESS: Final = {Verdict.ALLOW: 0, Verdict.ASK: 1, Verdict.DENY: 2}


def policy_of_spec(spec: Mapping[str, Any], *, origin: str) -> Policy:
    """Returns the policy of a validated `spec`, or of a validated policy file.

    Args:
        spec: `network` and `integrations`, as the schemas have them.
        origin: what its routes say they come from.

    Raises:
        RequestInvalid: the `match` of a route, or a budget, cannot be understood.
    """
    network: Mapping[str, Any] = spec.get("network", {})
    default = network.get("defaultVerdict")
    return Policy(
        default_verdict=None if default is None else Verdict(default),
        routes=tuple(_route(one, origin) for one in network.get("allowedRoutes", ())),
        integrations=_unique(
            integration_id(entry if isinstance(entry, str) else entry["ref"])
            for entry in spec.get("integrations", ())
        ),
        budgets=budgets_of_spec(spec, origin=origin),
    )


def budgets_of_spec(spec: Mapping[str, Any], *, origin: str) -> tuple[BudgetLimit, ...]:
    """Returns the budgets of a validated `spec`, or of a validated policy file.

    Raises:
        RequestInvalid: a limit cannot be understood.
    """
    return tuple(
        limit
        for integration, text in spec.get("budgets", {}).items()
        for limit in parse_limits(integration, text, origin=origin)
    )


def integration_id(reference: str) -> str:
    """Returns the id that a reference to an integration stands for.

    It is the last segment of its path, without tag and digest: `anthropic` for
    `localhost:5000/integrations/anthropic:v1`.

    Raises:
        RequestInvalid: nothing is left.
    """
    name = reference.partition("@")[0].rpartition("/")[2].partition(":")[0]
    if not name or len(reference) > MAX_REFERENCE_CHARACTERS:
        raise RequestInvalid(f"{reference[:100]!r} names no integration")
    return name


def merge_policies(policies: Sequence[Policy], *, origins: Sequence[str] = ()) -> Policy:
    """Returns the one policy that decides as the strictest of several, with its default written.

    Its order and the origins of its routes are those of the given policies. Where two routes with
    rules meet, it keeps the rules that both permit; a rule that overlaps another one only in part
    is left out, so that the merged policy is never laxer than its parts. A route that the default
    of another policy makes stricter has that policy as its origin.

    Args:
        policies: what is merged.
        origins: what each policy is called where its default decides over a route of another; as
            many as policies, or none.

    Raises:
        LimitExceeded: the merged policy would have more than `MAX_ROUTES` routes, or too many pairs
            of routes overlap.
        RequestInvalid: the `match` of a route cannot be understood.
    """
    parts = [
        _Part(
            [(route, RouteMatch.parse(route.match)) for route in policy.routes],
            policy.default_verdict,
            origin,
        )
        for policy, origin in zip(policies, origins or ("",) * len(policies), strict=True)
    ]
    merged = reduce(_merge, parts, _Part([], None, ""))
    return Policy(
        default_verdict=merged.default or Verdict.ASK,
        routes=tuple(route for route, _ in merged.routes),
        integrations=_unique(name for policy in policies for name in policy.integrations),
        budgets=smallest(limit for policy in policies for limit in policy.budgets),
    )


def strictest(*verdicts: Verdict) -> Verdict:
    """Returns the strictest of some verdicts."""
    return max(verdicts, key=_STRICTNESS.__getitem__)


def _route(route: Mapping[str, Any], origin: str) -> PolicyRoute:
    match = str(RouteMatch.parse(route["match"]))
    return PolicyRoute(
        match=match,
        verdict=Verdict(route["verdict"]),
        description=route.get("description", ""),
        rules=tuple(
            PolicyRule(method=rule["method"], path=rule["path"]) for rule in route.get("rules", ())
        ),
        origin=origin,
    )


def _unique(names: Iterable[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(names))


def _merge(one: _Part, two: _Part) -> _Part:
    merged = list(islice(_iter_merged(one, two), MAX_ROUTES + 1))
    if len(merged) > MAX_ROUTES:
        raise _too_large()
    named = [part for part in (one, two) if part.default is not None]
    if not named:
        return _Part(merged, None, "")
    strict = max(named, key=lambda part: _STRICTNESS[part.default or Verdict.ASK])
    return _Part(merged, strict.default, strict.origin)


def _iter_merged(one: _Part, two: _Part) -> Iterator[_Parsed]:
    """Yields the routes of all connections that two lists match, and of those that one matches.

    A connection whose first matches are `one.routes[i]` and `two.routes[j]` must meet their
    combination first. It can only be matched by combinations of later ones besides, so any order
    that puts (i, j) before all (i' ≥ i, j' ≥ j) will do; the other's default is the last of its
    list, for it stands for "no match".
    """
    index = _Index([match for _, match in two.routes])
    covered: set[int] = set()
    pairs = 0
    for route, match in one.routes:
        is_covered = False
        candidates = index.candidates(match)
        pairs += len(candidates)
        if pairs > _MAX_PAIRS:
            raise _too_large()
        for position in candidates:
            other, other_match = two.routes[position]
            both = match.intersect(other_match)
            if both is None:
                continue
            yield _combine(route, other, both), both
            is_covered = is_covered or both == match
            if both == other_match:
                covered.add(position)
        if not is_covered:
            yield _under_default(route, two), match
    for position, (route, match) in enumerate(two.routes):
        if position not in covered:
            yield _under_default(route, one), match


def _under_default(route: PolicyRoute, other: _Part) -> PolicyRoute:
    """Returns a route as it is where the other policy has only its default to say."""
    if other.default is None or strictest(route.verdict, other.default) is route.verdict:
        return route
    return replace(
        route,
        verdict=other.default,
        description=f"by the default verdict of {other.origin or 'another policy'}",
        rules=() if other.default is Verdict.DENY else route.rules,
        origin=other.origin or route.origin,
    )


def _too_large() -> LimitExceeded:
    return LimitExceeded(
        f"the policies cannot be merged into at most {MAX_ROUTES} routes",
        hint="use fewer or simpler policies",
    )


class _Index:
    """Finds the matches that may share a connection with a given one."""

    def __init__(self, matches: Sequence[RouteMatch]) -> None:
        self._below: dict[str, list[int]] = defaultdict(list)
        self._wildcards: dict[str, list[int]] = defaultdict(list)
        self._networks: list[int] = []
        for position, match in enumerate(matches):
            if match.network is not None:
                self._networks.append(position)
                continue
            for suffix in _suffixes(match.name):
                self._below[suffix].append(position)
            if match.is_wildcard:
                self._wildcards[match.name].append(position)

    def candidates(self, match: RouteMatch) -> list[int]:
        """Returns positions in ascending order."""
        if match.network is not None:
            return self._networks
        found = set(self._below.get(match.name, ()))
        for suffix in _suffixes(match.name):
            found.update(self._wildcards.get(suffix, ()))
        return sorted(found)


def _suffixes(name: str) -> list[str]:
    labels = name.split(".")
    return [".".join(labels[start:]) for start in range(len(labels))]


def _combine(one: PolicyRoute, two: PolicyRoute, match: RouteMatch) -> PolicyRoute:
    verdict = strictest(one.verdict, two.verdict)
    source = one if one.verdict is verdict else two
    if verdict is Verdict.DENY:
        return replace(source, match=str(match), rules=())
    rules = one.rules or two.rules
    if one.rules and two.rules:
        rules = _unique_rules(_common(first, second) for first in one.rules for second in two.rules)
        if not rules:
            return replace(
                source,
                match=str(match),
                verdict=Verdict.DENY,
                description=f"the rules of {one.origin} and {two.origin} have nothing in common",
                rules=(),
            )
    return replace(source, match=str(match), rules=rules)


def _unique_rules(rules: Iterable[PolicyRule | None]) -> tuple[PolicyRule, ...]:
    return tuple(dict.fromkeys(rule for rule in rules if rule is not None))


def _common(one: PolicyRule, two: PolicyRule) -> PolicyRule | None:
    """Returns the rule for the requests that two rules permit, if one path is within the other."""
    if "*" not in (one.method, two.method) and one.method != two.method:
        return None
    method = two.method if one.method == "*" else one.method
    for narrow, wide in ((one, two), (two, one)):
        if _covers(wide.path, narrow.path):
            return PolicyRule(method=method, path=narrow.path)
    return None


def _covers(wide: str, narrow: str) -> bool:
    """Says whether every path of the pattern `narrow` certainly fits the pattern `wide`."""
    return match_segments(wide, narrow, _covers_segment)


def _covers_segment(wide: str, narrow: str) -> bool:
    if narrow == "**":
        return False
    return wide in ("*", narrow) or ("*" not in narrow and path_matches(wide, narrow))
