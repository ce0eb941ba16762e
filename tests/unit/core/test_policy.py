"""Policies: verdicts, and that a merged policy decides as the strictest of its parts."""

from dataclasses import replace
from itertools import product
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from services.core.errors import LimitExceeded, RequestInvalid
from services.core.policy import (
    MAX_ROUTES,
    integration_id,
    merge_policies,
    policy_of_spec,
    strictest,
)
from services.core.route_match import path_matches
from services.core.run_plan import Policy, PolicyRoute, PolicyRule, Verdict
from tests.support.policy_oracle import decide, decide_request, rules_permit

ALLOW, ASK, DENY = Verdict.ALLOW, Verdict.ASK, Verdict.DENY
HOSTS = ["a.x", "b.a.x", "c.b.a.x", "x", "y", "b.y", "10.1.2.3", "10.9.0.1"]
MATCHES = [
    "a.x",
    "*.x",
    "*.a.x",
    "b.a.x",
    "*.x:443",
    "a.x:80",
    "y",
    "*.y",
    "10.0.0.0/8",
    "10.1.0.0/16",
]
PATHS = ["/", "/a", "/a/b", "/a/b/c", "/b"]
PATTERNS = ["/**", "/a/**", "/a", "/*", "/a/*", "/*/b", "/**/b", "/b"]
METHODS = ["GET", "POST"]


def route(match: str, verdict: Verdict, *rules: tuple[str, str], origin: str = "") -> PolicyRoute:
    return PolicyRoute(
        match=match,
        verdict=verdict,
        rules=tuple(PolicyRule(method=method, path=path) for method, path in rules),
        origin=origin,
    )


def opinion(policy: Policy, host: str, port: int) -> Verdict | None:
    verdict, by = decide(policy, host, port)
    return verdict if by is not None else policy.default_verdict


def test_the_first_route_that_matches_decides() -> None:
    policy = Policy(routes=(route("a.x", ALLOW), route("*.x", DENY)), default_verdict=ASK)

    assert decide(policy, "a.x", 443) == (ALLOW, policy.routes[0])
    assert decide(policy, "b.x", 443) == (DENY, policy.routes[1])
    assert decide(policy, "y", 443) == (ASK, None)


def test_a_route_with_rules_permits_only_what_fits_one() -> None:
    policy = Policy(routes=(route("a.x", ALLOW, ("GET", "/r/**"), ("*", "/open")),))

    verdicts = [
        decide_request(policy, "a.x", 443, method=method, path=path)[0]
        for method, path in [("GET", "/r/1"), ("POST", "/r/1"), ("POST", "/open"), ("GET", "/")]
    ]

    assert verdicts == [ALLOW, DENY, ALLOW, DENY]


def test_a_route_that_cannot_be_read_denies() -> None:
    damaged = Policy(routes=(route("not a host", ALLOW),), default_verdict=ALLOW)

    assert decide(damaged, "a.x", 443) == (DENY, damaged.routes[0])


@pytest.mark.parametrize(
    ("policies", "host", "verdict"),
    [
        ([[("a.x", ALLOW)], [("y", ALLOW)]], "a.x", ALLOW),
        ([[("a.x", ALLOW)], [("y", ALLOW)]], "y", ALLOW),
        ([[("a.x", ALLOW)], [("a.x", ASK)]], "a.x", ASK),
        ([[("a.x", ALLOW)], [("a.x", DENY)]], "a.x", DENY),
        ([[("a.x", DENY)], [("a.x", ALLOW)]], "a.x", DENY),
        ([[("*.x", ALLOW)], [("a.x", DENY)]], "a.x", DENY),
        ([[("*.x", ALLOW)], [("a.x", DENY)]], "b.x", ALLOW),
        ([[("a.x", ALLOW)], [("*.x", DENY)]], "a.x", DENY),
        # Inside one policy the order stays: its own exception is no conflict.
        ([[("a.x", ALLOW), ("*.x", DENY)], [("y", ALLOW)]], "a.x", ALLOW),
        ([[("a.x", ALLOW), ("*.x", DENY)], [("*.x", ALLOW)]], "a.x", ALLOW),
        ([[("a.x", ALLOW), ("*.x", DENY)], [("*.x", ALLOW)]], "b.x", DENY),
    ],
)
def test_deny_wins_over_ask_and_ask_over_allow(
    policies: list[list[tuple[str, Verdict]]], host: str, verdict: Verdict
) -> None:
    merged = merge_policies(
        [Policy(routes=tuple(route(*one) for one in routes)) for routes in policies]
    )

    assert decide(merged, host, 443)[0] is verdict


@pytest.mark.parametrize(
    ("defaults", "expected"),
    [
        ([], ASK),
        ([None], ASK),
        ([None, None], ASK),
        ([ALLOW], ALLOW),
        ([None, ALLOW], ALLOW),
        ([ALLOW, None], ALLOW),
        ([ALLOW, ASK], ASK),
        ([ALLOW, DENY, ASK], DENY),
        ([None, DENY, None], DENY),
    ],
)
def test_the_strictest_default_that_is_written_down_holds_where_no_route_matches(
    defaults: list[Verdict | None], expected: Verdict
) -> None:
    merged = merge_policies([Policy(default_verdict=one) for one in defaults])

    assert merged.default_verdict is expected


@pytest.mark.parametrize("turn", [list, reversed])
@pytest.mark.parametrize(
    ("opened", "default", "expected"),
    [
        (ALLOW, None, ALLOW),
        (ALLOW, ALLOW, ALLOW),
        (ALLOW, ASK, ASK),
        (ALLOW, DENY, DENY),
        (ASK, DENY, DENY),
        (ASK, ALLOW, ASK),
        (DENY, ALLOW, DENY),
    ],
)
def test_a_default_that_is_written_down_binds_the_routes_of_another_policy(
    opened: Verdict, default: Verdict | None, expected: Verdict, turn: Any
) -> None:
    policies = [Policy(routes=(route("a.x", opened),)), Policy(default_verdict=default)]

    merged = merge_policies(list(turn(policies)))

    assert decide(merged, "a.x", 443)[0] is expected


def test_who_closed_a_route_by_a_default_is_its_origin() -> None:
    opener = Policy(routes=(route("a.x", ALLOW, ("GET", "/**"), origin="policies/opener"),))
    closer = Policy(default_verdict=DENY)

    merged = merge_policies([opener, closer], origins=["policies/opener", "policies/closer"])

    (only,) = merged.routes
    assert (only.verdict, only.rules, only.origin) == (DENY, (), "policies/closer")
    assert "default verdict of policies/closer" in only.description


def test_rules_bind_also_where_another_policy_allows_by_default() -> None:
    ruled = Policy(routes=(route("a.x", ALLOW, ("GET", "/r/**")),))

    merged = merge_policies([Policy(default_verdict=ALLOW), ruled])

    verdicts = [
        decide_request(merged, "a.x", 443, method=method, path="/r/1")[0]
        for method in ("GET", "POST")
    ]
    assert verdicts == [ALLOW, DENY]


def test_order_and_origins_are_kept() -> None:
    one = Policy(routes=(route("b.y", ALLOW, origin="one"), route("a.x", ALLOW, origin="one")))
    two = Policy(routes=(route("c.z", ASK, origin="two"), route("a.x", DENY, origin="two")))

    merged = merge_policies([one, two])

    assert [(r.match, r.verdict, r.origin) for r in merged.routes] == [
        ("b.y", ALLOW, "one"),
        ("a.x", DENY, "two"),
        ("c.z", ASK, "two"),
    ]


def test_a_single_policy_stays_as_it_is_with_its_default_written_down() -> None:
    policy = Policy(routes=(route("a.x", ALLOW), route("a.x", DENY)), integrations=("b", "a"))

    assert merge_policies([policy]) == replace(policy, default_verdict=ASK)


def test_no_policies_merge_into_the_policy_that_asks() -> None:
    assert merge_policies([]) == Policy(default_verdict=ASK)


def test_integrations_are_united_in_order() -> None:
    merged = merge_policies([Policy(integrations=("b", "a")), Policy(integrations=("c", "b"))])

    assert merged.integrations == ("b", "a", "c")


def test_rules_without_anything_in_common_deny_and_say_so() -> None:
    one = Policy(routes=(route("a.x", ALLOW, ("GET", "/a"), origin="one"),))
    two = Policy(routes=(route("a.x", ALLOW, ("GET", "/b"), origin="two"),))

    (merged,) = merge_policies([one, two]).routes

    assert (merged.verdict, merged.rules) == (DENY, ())
    assert merged.description == "the rules of one and two have nothing in common"


def test_a_route_without_rules_is_narrowed_by_one_with_rules() -> None:
    one = Policy(routes=(route("*.x", ALLOW),))
    two = Policy(routes=(route("a.x", ALLOW, ("GET", "/a")),))

    merged = merge_policies([one, two])

    assert [(r.match, len(r.rules)) for r in merged.routes] == [("a.x", 1), ("*.x", 0)]


def test_policies_that_multiply_are_refused() -> None:
    count = 100
    one = Policy(routes=tuple(route(f"*.x:{port}", ALLOW) for port in range(1, count)))
    two = Policy(routes=tuple(route(f"h{number}.x", ALLOW) for number in range(count)))

    with pytest.raises(LimitExceeded, match=str(MAX_ROUTES)):
        merge_policies([one, two])


def test_policies_that_add_up_are_refused_too() -> None:
    policies = [
        Policy(routes=tuple(route(f"h{n}.p{p}.example", ALLOW) for n in range(3000)))
        for p in range(2)
    ]

    with pytest.raises(LimitExceeded, match=str(MAX_ROUTES)):
        merge_policies(policies)


def test_policies_that_are_too_much_work_are_refused_at_once() -> None:
    one = Policy(routes=tuple(route(f"10.0.{n // 256}.{n % 256}", ALLOW) for n in range(2000)))
    two = Policy(routes=tuple(route(f"10.1.{n // 256}.{n % 256}", ALLOW) for n in range(2000)))

    with pytest.raises(LimitExceeded):
        merge_policies([one, two])


def test_large_disjoint_policies_merge_in_linear_time() -> None:
    policies = [
        Policy(routes=tuple(route(f"h{n}.p{p}.example", ALLOW) for n in range(60)))
        for p in range(40)
    ]

    assert len(merge_policies(policies).routes) == 2400


@pytest.mark.parametrize(
    ("reference", "name"),
    [
        ("anthropic", "anthropic"),
        ("integrations/anthropic", "anthropic"),
        ("localhost:5000/integrations/anthropic:v1", "anthropic"),
        (f"localhost:5000/integrations/anthropic@sha256:{'0' * 64}", "anthropic"),
        (f"reg/integrations/anthropic:v1@sha256:{'0' * 64}", "anthropic"),
    ],
)
def test_an_integration_is_known_by_the_last_segment_of_its_path(reference: str, name: str) -> None:
    assert integration_id(reference) == name


def test_a_reference_without_a_name_is_no_integration() -> None:
    with pytest.raises(RequestInvalid):
        integration_id("integrations/:v1")


def test_a_spec_becomes_a_policy_with_the_origin_of_each_route() -> None:
    spec = {
        "network": {
            "defaultVerdict": "deny",
            "allowedRoutes": [
                {
                    "match": "API.example.com",
                    "verdict": "allow",
                    "description": "REST",
                    "rules": [{"method": "GET", "path": "/r/**"}],
                }
            ],
        },
        "integrations": [{"ref": "integrations/anthropic:1"}],
    }

    policy = policy_of_spec(spec, origin="policies/base@sha256:…")

    assert policy == Policy(
        default_verdict=DENY,
        routes=(
            PolicyRoute(
                match="api.example.com",
                verdict=ALLOW,
                description="REST",
                rules=(PolicyRule(method="GET", path="/r/**"),),
                origin="policies/base@sha256:…",
            ),
        ),
        integrations=("anthropic",),
    )


@pytest.mark.parametrize(
    ("one", "two", "both"),
    [
        ("/**", "/*", ["/*"]),
        ("/*", "/**", ["/*"]),
        ("/a/**", "/a/*", ["/a/*"]),
        ("/**/b", "/*/b", ["/*/b"]),
        ("/*", "/*/*", None),
        ("/**/b", "/a/**", None),
        ("/a*", "/*", ["/a*"]),
        ("/*a", "/a*", None),
    ],
)
def test_of_two_rules_the_merged_policy_has_the_narrower_or_none(
    one: str, two: str, both: list[str] | None
) -> None:
    parts = [Policy(routes=(route("a.x", ALLOW, ("GET", path)),)) for path in (one, two)]

    (merged,) = merge_policies(parts).routes

    assert merged.verdict is (DENY if both is None else ALLOW)
    assert [rule.path for rule in merged.rules] == (both or [])


rules = st.lists(
    st.builds(PolicyRule, method=st.sampled_from([*METHODS, "*"]), path=st.sampled_from(PATTERNS)),
    max_size=2,
).map(tuple)
routes = st.builds(
    PolicyRoute,
    match=st.sampled_from(MATCHES),
    verdict=st.sampled_from([ALLOW, ASK, DENY]),
    rules=rules,
)
policies = st.lists(
    st.builds(
        Policy,
        default_verdict=st.sampled_from([None, ALLOW, ASK, DENY]),
        routes=st.lists(routes, max_size=5).map(tuple),
    ),
    min_size=1,
    max_size=3,
)


def without_rules(some: list[Policy]) -> list[Policy]:
    return [
        Policy(
            default_verdict=policy.default_verdict,
            routes=tuple(route(one.match, one.verdict) for one in policy.routes),
        )
        for policy in some
    ]


@given(policies.map(without_rules))
@settings(max_examples=80, deadline=None)
def test_a_merged_policy_decides_as_the_strictest_opinion(some: list[Policy]) -> None:
    merged = merge_policies(some)

    for host in HOSTS:
        for port in (80, 443):
            opinions = [one for one in (opinion(p, host, port) for p in some) if one is not None]
            assert decide(merged, host, port)[0] is strictest(*(opinions or [ASK]))


@given(policies)
@settings(max_examples=50, deadline=None)
def test_a_merged_policy_is_never_laxer_on_requests_than_its_parts(some: list[Policy]) -> None:
    merged = merge_policies(some)
    order = {ALLOW: 0, ASK: 1, DENY: 2}

    for host in HOSTS:
        for method in METHODS:
            for path in PATHS:
                request = {"method": method, "path": path}
                verdict, _ = decide_request(merged, host, 443, **request)
                parts = [decide_request(one, host, 443, **request) for one in some]
                opinions = [
                    verdict_of
                    for (verdict_of, by), one in zip(parts, some, strict=True)
                    if by is not None or one.default_verdict is not None
                ]
                strict = strictest(*(opinions or [ASK]))
                assert order[verdict] >= order[strict]


segments = st.sampled_from(["a", "b", "*", "**", "a*"])
paths = st.lists(segments, min_size=1, max_size=3).map(lambda parts: "/" + "/".join(parts))
REQUESTS = [
    "/",
    *("/" + "/".join(p) for n in (1, 2, 3) for p in product(("a", "b", "ab"), repeat=n)),
]


@given(paths, paths)
@settings(max_examples=200, deadline=None)
def test_two_rules_merged_permit_no_path_that_one_of_them_denies(one: str, two: str) -> None:
    merged = merge_policies([Policy(routes=(route("a.x", ALLOW, ("*", p)),)) for p in (one, two)])
    (both,) = merged.routes

    for path in REQUESTS if both.verdict is ALLOW else ():
        if rules_permit(both.rules, "GET", path):
            assert path_matches(one, path)
            assert path_matches(two, path)


def test_without_rules_every_request_is_permitted() -> None:
    assert rules_permit((), "GET", "/")
