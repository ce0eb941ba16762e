"""Decisions about connections: whose opinion wins, why, and what would change it.

Numbers in brackets are rows of the ways out.
"""

import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.core.egress.compiled import PolicySource
from services.core.egress.decisions import Cause, Policies
from services.core.egress.hosts import Host, parse_host
from services.core.route_match import RouteMatch
from services.core.run_plan import Policy, PolicyRoute, PolicyRule, Verdict

ALLOW, DENY, ASK = Verdict.ALLOW, Verdict.DENY, Verdict.ASK


def source(
    *routes: tuple[str, Verdict] | PolicyRoute,
    default: Verdict | None = None,
    name: str = "lns-policy.yaml",
    editable: bool = True,
    lines: tuple[int, ...] = (),
) -> PolicySource:
    return PolicySource(
        policy=Policy(
            default_verdict=default,
            routes=tuple(
                one if isinstance(one, PolicyRoute) else PolicyRoute(match=one[0], verdict=one[1])
                for one in routes
            ),
        ),
        name=name,
        editable=editable,
        lines=lines,
    )


def verdict(sources: list[PolicySource], host: str, port: int = 443) -> Verdict:
    return Policies(sources).decide(parse_host(host), port).verdict


@pytest.mark.parametrize(
    ("routes", "host", "port", "expected"),
    [
        ([("api.a.com", ALLOW)], "api.a.com", 443, ALLOW),
        ([("api.a.com", ALLOW)], "API.A.com.", 443, ALLOW),  # [6]
        ([("api.a.com", ALLOW)], "a.com", 443, DENY),  # [1]
        ([("*.a.com", ALLOW)], "a.com.evil.com", 443, DENY),  # [8]
        ([("*.a.com", ALLOW)], "a.com", 443, DENY),  # [9]
        ([("*.a.com", ALLOW)], "c.b.a.com", 443, ALLOW),
        ([("api.a.com:443", ALLOW)], "api.a.com", 22, DENY),  # [10]
        ([("*.a.com:443", ALLOW)], "b.a.com", 8443, DENY),
        ([("bücher.example", ALLOW)], "xn--bcher-kva.example", 443, ALLOW),  # [7]
        ([("github.com", ALLOW)], "gıthub.com", 443, DENY),
        ([("api.a.com", ALLOW)], "140.82.121.4", 443, DENY),  # [2]
        ([("140.82.112.0/20", ALLOW)], "140.82.121.4", 443, ALLOW),
        ([("140.82.112.0/20", ALLOW)], "0x8c527904", 443, ALLOW),  # [5]
        ([("140.82.112.0/20", ALLOW)], "::ffff:140.82.121.4", 443, ALLOW),  # [4]
        ([("::ffff:140.82.112.0/116", ALLOW)], "140.82.121.4", 443, ALLOW),
        ([("2606:4700::/32", ALLOW)], "2606:4700::1111", 443, ALLOW),  # [3]
        ([("[2606:4700::/32]:443", ALLOW)], "2606:4700::1111", 80, DENY),
        ([("a.com", DENY), ("a.com", ALLOW)], "a.com", 443, DENY),
        ([("*.a.com", ALLOW), ("b.a.com", DENY)], "b.a.com", 443, ALLOW),
        ([("b.a.com", DENY), ("*.a.com", ALLOW)], "b.a.com", 443, DENY),
        ([("10.0.0.0/8", DENY), ("0.0.0.0/0", ALLOW)], "1.1.1.1", 443, ALLOW),
        ([("*.com", ASK), ("a.com", ALLOW)], "a.com", 443, ASK),
    ],
)
def test_the_first_route_that_matches_decides(
    routes: list[tuple[str, Verdict]], host: str, port: int, expected: Verdict
) -> None:
    assert verdict([source(*routes, default=DENY)], host, port) is expected


@pytest.mark.parametrize(
    ("sources", "expected"),
    [
        ([], ASK),
        ([source()], ASK),
        ([source(default=ALLOW)], ALLOW),
        ([source(("a.com", ALLOW)), source()], ALLOW),
        ([source(("a.com", ALLOW)), source(default=DENY)], DENY),
        ([source(("a.com", ALLOW)), source(default=ASK)], ASK),
        ([source(("a.com", ALLOW)), source(("a.com", DENY))], DENY),
        ([source(("a.com", ALLOW), default=DENY), source(("a.com", ALLOW), default=DENY)], ALLOW),
        ([source(("a.com", ASK)), source(("b.com", DENY))], ASK),
    ],
)
def test_the_strictest_opinion_wins_and_none_is_ask(
    sources: list[PolicySource], expected: Verdict
) -> None:
    assert verdict(sources, "a.com") is expected


@given(st.data())
def test_the_index_finds_the_route_that_a_walk_through_all_finds(data: st.DataObject) -> None:
    hosts = ["a.com", "b.a.com", "c.b.a.com", "com", "8.8.8.8", "8.8.4.4", "2606:4700::1"]
    matches = ["a.com", "*.a.com", "*.b.a.com", "*.com", "com", "8.8.8.0/24", "8.0.0.0/8",
               "8.8.8.8", "::/0", "2606:4700::/32"]  # fmt: skip
    ports = ["", ":80", ":443"]
    routes = data.draw(
        st.lists(
            st.tuples(
                st.sampled_from(
                    [
                        f"[{match}]{port}" if ":" in match and port else match + port
                        for match in matches
                        for port in ports
                    ]
                ),
                st.sampled_from(Verdict),
            ),
            max_size=8,
        )
    )
    host = data.draw(st.sampled_from(hosts))
    port = data.draw(st.sampled_from([80, 443]))

    decision = Policies([source(*routes)]).decide(parse_host(host), port)

    walked = next(
        (
            (index, one)
            for index, (match, one) in enumerate(routes)
            if RouteMatch.parse(match).matches(host, port)
        ),
        None,
    )
    if walked is None:
        assert decision.cause is Cause.NO_OPINION
    else:
        assert decision.opinion is not None
        assert (decision.opinion.index, decision.verdict) == walked


def test_a_route_that_cannot_be_understood_opens_nothing_behind_it() -> None:
    broken = source(("a.com", ALLOW), ("https://b.com/", ALLOW), ("c.com", ALLOW), default=ALLOW)

    assert verdict([broken], "a.com") is ALLOW
    assert verdict([broken], "b.com") is DENY
    assert verdict([broken], "c.com") is DENY


def test_a_decision_says_what_decided_and_what_would_change_it() -> None:
    sources = [
        source(("*.a.com", ALLOW), name="registry/policies/house:1", editable=False),
        source(("b.com", ALLOW), ("evil.a.com", DENY), lines=(4, 9)),
    ]
    decision = Policies(sources).decide(parse_host("evil.a.com"), 443)

    assert decision.verdict is DENY
    assert decision.place == "lns-policy.yaml:9 $.network.allowedRoutes[1]"
    assert decision.text == (
        "evil.a.com:443 is denied by the rule evil.a.com: "
        "lns-policy.yaml:9 $.network.allowedRoutes[1]"
    )
    assert decision.how_to_allow == "lns policy allow evil.a.com:443"
    assert [opinion.verdict for opinion in decision.opinions] == [ALLOW, DENY]


def test_what_a_bundles_policy_denies_is_not_said_to_be_the_projects_to_allow() -> None:
    house = source(default=DENY, name="registry/policies/house:1", editable=False)
    decision = Policies([source(("a.com", ALLOW)), house]).decide(parse_host("a.com"), 443)

    assert decision.cause is Cause.DEFAULT
    assert decision.place == "registry/policies/house:1 $.network.defaultVerdict"
    assert decision.how_to_allow.startswith("run it with --policy FILE")


def test_the_rules_of_every_policy_that_has_some_come_along() -> None:
    def ruled(match: str, path: str, name: str) -> PolicySource:
        rules = (PolicyRule(method="GET", path=path),)
        return source(PolicyRoute(match=match, verdict=ALLOW, rules=rules), name=name)

    sources = [ruled("a.com", "/x/**", "one"), source(("a.com", ALLOW)), ruled("*.com", "/**", "2")]
    decision = Policies(sources).decide(parse_host("a.com"), 443)

    assert [rules.source for rules in decision.rules] == ["one", "2"]
    assert Policies([*sources, source(default=DENY)]).decide(parse_host("a.com"), 443).rules == ()


@pytest.mark.parametrize(
    ("routes", "port", "expected"),
    [
        ([], 11434, DENY),
        ([("host.lns.internal:11434", ALLOW)], 11434, ALLOW),
        ([("host.lns.internal:11434", ASK)], 11434, ASK),
        ([("host.lns.internal:11434", ALLOW)], 22, DENY),  # [34]
        ([("host.lns.internal", ALLOW)], 11434, DENY),
        ([("*.lns.internal:11434", ALLOW)], 11434, DENY),
        ([("127.0.0.1:11434", ALLOW)], 11434, DENY),
        ([("host.lns.internal:11434", DENY), ("host.lns.internal:11434", ALLOW)], 11434, DENY),
    ],
)
def test_a_port_of_the_machine_is_reached_only_where_a_rule_names_exactly_it(
    routes: list[tuple[str, Verdict]], port: int, expected: Verdict
) -> None:
    assert verdict([source(*routes, default=ALLOW)], "host.lns.internal", port) is expected


@pytest.mark.parametrize(
    ("host", "port", "expected"),
    [
        ("lns.internal", 80, ALLOW),
        ("lns.internal", 443, DENY),
        ("other.lns.internal", 80, DENY),
    ],
)
def test_the_pages_of_a_run_are_served_whatever_the_policy_says(
    host: str, port: int, expected: Verdict
) -> None:
    assert verdict([source(default=DENY)], host, port) is expected
    assert verdict([source(default=ALLOW)], host, port) is expected


@pytest.mark.parametrize(
    ("address", "routes", "refused"),
    [
        ("140.82.121.4", [], False),
        ("127.0.0.1", [], True),  # [31]
        ("169.254.169.254", [], True),  # [32]
        ("100.64.1.1", [], True),
        ("10.0.0.1", [("0.0.0.0/0", ALLOW)], True),
        ("10.0.0.1", [("10.0.0.0/8", ALLOW)], False),
        ("10.0.0.1", [("10.0.0.0/8:80", ALLOW)], True),
        ("10.0.0.1", [("10.0.0.0/8", ASK)], True),
        ("10.0.0.1", [("10.0.0.0/8", DENY)], True),
        ("169.254.169.254", [("169.254.0.0/16", ALLOW)], True),
        ("64:ff9b::7f00:1", [], True),  # [33]
        ("64:ff9b::101:101", [], False),
        ("64:ff9b::a00:1", [("10.0.0.0/8", ALLOW)], False),
        ("2002:a00:1::", [("10.0.0.0/8", ALLOW)], True),
        ("2002:a00:1::", [("10.0.0.0/8", ALLOW), ("2002::/16", ALLOW)], False),
        ("2001:0:101:101::", [], True),
        ("::ffff:10.0.0.1", [], True),
        ("fd00::1", [("::/0", ALLOW)], True),
    ],
)
def test_a_name_leads_into_a_special_range_only_where_a_rule_names_it(
    address: str, routes: list[tuple[str, Verdict]], refused: bool
) -> None:  # [30]: to be asked of each address that is dialled
    policies = Policies([source(("a.com", ALLOW), *routes)])

    decision = policies.check_address(ipaddress.ip_address(address), 443, name="a.com")

    assert (decision is not None) is refused
    if decision is not None:
        assert decision.verdict is DENY
        assert decision.cause is Cause.SPECIAL_RANGE
        assert "a.com leads to" in decision.text
        assert decision.how_to_allow.startswith("lns policy allow ")


@pytest.mark.parametrize(
    ("address", "routes", "expected"),
    [
        ("10.0.0.1", [("0.0.0.0/0", ALLOW)], DENY),
        ("10.0.0.1", [("10.0.0.0/8", ALLOW)], ALLOW),
        ("10.0.0.1", [("10.0.0.0/8", ASK)], ASK),
        ("1.1.1.1", [("0.0.0.0/0", ALLOW)], ALLOW),
        ("169.254.169.254", [("0.0.0.0/0", ALLOW)], DENY),
    ],
)
def test_an_address_that_is_asked_for_has_to_be_named_likewise(
    address: str, routes: list[tuple[str, Verdict]], expected: Verdict
) -> None:
    assert verdict([source(*routes, default=ALLOW)], address) is expected


def test_one_policy_keeps_shut_what_another_opens() -> None:
    policies = Policies([source(("10.0.0.0/8", ALLOW)), source(("10.0.0.0/16", DENY))])

    assert policies.check_address(ipaddress.ip_address("10.0.0.1"), 80, name="a") is not None
    assert policies.check_address(ipaddress.ip_address("10.1.0.1"), 80, name="a") is None


@given(st.ip_addresses(), st.integers(1, 65535))
def test_the_hint_to_allow_an_address_allows_it(
    address: ipaddress.IPv4Address | ipaddress.IPv6Address, port: int
) -> None:
    host = parse_host(str(address))
    policies = Policies([source(default=DENY)])
    routes: list[tuple[str, Verdict]] = []
    for _ in range(4):
        decision = policies.decide(host, port)
        if decision.verdict is ALLOW:
            return
        assert decision.how_to_allow.startswith("lns policy allow ")
        routes.append((decision.how_to_allow.removeprefix("lns policy allow "), ALLOW))
        policies = Policies([source(*routes, default=DENY)])
    raise AssertionError(f"{address} is still {decision.verdict}: {decision.text}")


def test_many_routes_cost_a_decision_little() -> None:
    routes = [(f"*.host{number}.example", ALLOW) for number in range(4000)]
    policies = Policies([source(*routes, default=DENY)])

    assert policies.decide(Host(name="a.host3999.example"), 443).verdict is ALLOW
    assert policies.decide(Host(name="a.host4000.example"), 443).verdict is DENY
