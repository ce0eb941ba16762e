"""What one policy says, in the plainest way: merging and editing are held against it.

`services.core.egress` decides for the product; this walks the routes in their order and knows
nothing of its indices.
"""

from collections.abc import Sequence

from services.core.errors import RequestInvalid
from services.core.route_match import RouteMatch, path_matches
from services.core.run_plan import Policy, PolicyRoute, PolicyRule, Verdict


def decide(policy: Policy, host: str, port: int) -> tuple[Verdict, PolicyRoute | None]:
    """Returns the verdict on a connection and the route that gave it, None for the default.

    A route with rules permits the connection only as far as its requests fit one of them: see
    `decide_request`. A route that cannot be understood matches nothing but counts as a denial, so
    that damage never opens anything.
    """
    for route in policy.routes:
        try:
            match = RouteMatch.parse(route.match)
        except RequestInvalid:
            return Verdict.DENY, route
        if match.matches(host, port):
            return route.verdict, route
    return policy.default_verdict or Verdict.ASK, None


def decide_request(
    policy: Policy, host: str, port: int, *, method: str, path: str
) -> tuple[Verdict, PolicyRoute | None]:
    """Returns the verdict on an HTTP request, as `decide` does for its connection.

    Args:
        policy: the policy.
        host: the name or address that is connected to.
        port: its port.
        method: the request's method.
        path: its path without the query, already normalised.
    """
    verdict, route = decide(policy, host, port)
    if route is not None and not rules_permit(route.rules, method, path):
        return Verdict.DENY, route
    return verdict, route


def rules_permit(rules: Sequence[PolicyRule], method: str, path: str) -> bool:
    """Says whether a request fits one of a route's rules; without rules every request does."""
    return not rules or any(
        rule.method in ("*", method) and path_matches(rule.path, path) for rule in rules
    )
