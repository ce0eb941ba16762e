"""A path in all its readings, and rules that hold for each. [27] of the ways out."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.core.egress.paths import PathAmbiguous, normalize, normalize_pattern, readings
from services.core.egress.requests import RouteRules, decide_request
from services.core.run_plan import PolicyRoute, PolicyRule, Verdict


def _rules(*rules: tuple[str, str]) -> RouteRules:
    return RouteRules.of_route(
        PolicyRoute(
            match="api.github.com",
            verdict=Verdict.ALLOW,
            rules=tuple(PolicyRule(method=method, path=path) for method, path in rules),
        ),
        place="lns-policy.yaml:3",
        source="lns-policy.yaml",
        editable=True,
    )


@pytest.mark.parametrize(
    ("path", "ordinary"),
    [
        ("/", "/"),
        ("/repos/a/b", "/repos/a/b"),
        ("/repos//a", "/repos/a"),
        ("/repos/./a/../b", "/repos/b"),
        ("/a/%2e%2e/b", "/b"),
        ("/a/%2E%2e", "/"),
        ("/%72epos", "/repos"),
        ("/a%20b", "/a b"),
        ("/a/%C3%bc", "/a/%C3%BC"),
        ("/group%2Fproject", "/group%2Fproject"),
        ("/../../etc", "/etc"),
        ("/a/b/..", "/a/"),
        ("/a/.", "/a/"),
    ],
)
def test_the_ordinary_reading_is_what_most_servers_see(path: str, ordinary: str) -> None:
    assert normalize(path) == ordinary


@pytest.mark.parametrize(
    "path",
    ["", "a", "*", "http://a/b", "/%", "/%zz", "/%0", "/a\x00", "/%00", "/%0d%0a", "/a b", "/a#b",
     "/" + "a" * 9000, "/%25252525252e", "/%2500", "/é"],
)  # fmt: skip
def test_a_path_that_no_two_servers_read_alike_is_refused(path: str) -> None:
    with pytest.raises(PathAmbiguous):
        readings(path)


@pytest.mark.parametrize(
    "target",
    [
        "/repos/../admin",
        "/repos/%2e%2e/admin",
        "/repos/%2E./admin",
        "/repos/.%2e/admin",
        "/repos/..%2fadmin",
        "/repos%2f..%2fadmin",
        "/repos/%252e%252e/admin",
        "/repos/..%252fadmin",
        "/repos/..;/admin",
        "/repos/..;x=1/admin",
        "/repos/..%3b/admin",
        "/repos/..\\admin",
        "/repos/..%5cadmin",
        "/repos\\..\\admin",
        "/repos/%2e%2e%5cadmin",
        "/repos/a/..//../admin",
        "//repos/../../admin",
        "/admin/../repos/../admin",
        "/;/admin",
        "/repos/%c0%ae%c0%ae/%2e%2e/%2e%2e/admin",
        "/admin%2f..%2frepos",
        "/repos/../admin?x=/repos/",
    ],
)
def test_no_spelling_leads_past_a_rule_about_paths(target: str) -> None:
    assert not decide_request([_rules(("GET", "/repos/**"))], "GET", target).permitted


@pytest.mark.parametrize(
    "target",
    ["/repos/a", "/repos//a", "/repos/a?q=../admin", "/repos/a%20b", "/repos/group%2Fproject",
     "/repos/a;v=1", "/repos/./a", "/repos/x/../a", "/repos/", "/repos", "/%72epos/a",
     "/repos/100%25"],
)  # fmt: skip
def test_what_stays_below_in_every_reading_passes(target: str) -> None:
    assert decide_request([_rules(("GET", "/repos/**"))], "GET", target).permitted


@pytest.mark.parametrize(
    ("rules", "method", "target", "permitted"),
    [
        ([("GET", "/a")], "GET", "/a", True),
        ([("GET", "/a")], "POST", "/a", False),
        ([("GET", "/a")], "get", "/a", False),
        ([("*", "/a")], "DELETE", "/a", True),
        ([("GET", "/a"), ("GET", "/b")], "GET", "/b", True),
        ([("GET", "/a/*")], "GET", "/a/b/c", False),
        ([("GET", "/a/*.json")], "GET", "/a/x.json", True),
        ([("GET", "/a b")], "GET", "/a%20b", True),
        ([("GET", "/a%20b")], "GET", "/a%20b", True),
        ([("GET", "/ü")], "GET", "/%c3%bc", True),
        ([("GET", "/a%2Fb")], "GET", "/a%2fb", False),  # some servers read /a/b
        ([("GET", "/a%2Fb"), ("GET", "/a/b")], "GET", "/a%2fb", True),
        ([("GET", "/%2A")], "GET", "/anything", False),
        ([("OPTIONS", "/**")], "OPTIONS", "*", False),
    ],
)
def test_a_request_fits_a_rule_or_not(
    rules: list[tuple[str, str]], method: str, target: str, permitted: bool
) -> None:
    assert decide_request([_rules(*rules)], method, target).permitted is permitted


def test_a_request_has_to_fit_the_rules_of_every_policy() -> None:
    both = [_rules(("GET", "/repos/**")), _rules(("*", "/repos/mine/**"))]

    assert decide_request(both, "GET", "/repos/mine/a").permitted
    refused = decide_request(both, "GET", "/repos/other")
    assert not refused.permitted
    assert refused.rule == "api.github.com permits only * /repos/mine/** (lns-policy.yaml:3)"
    assert refused.how_to_allow == "lns policy allow api.github.com --rule 'GET /repos/other'"


@pytest.mark.parametrize("override", ["DELETE", "PUT"])
def test_a_method_that_a_header_names_has_to_be_permitted_too(override: str) -> None:  # [28]
    rules = [_rules(("POST", "/a"))]

    assert decide_request(rules, "POST", "/a").permitted
    assert not decide_request(rules, "POST", "/a", overrides=[override]).permitted


def test_without_rules_every_path_passes_and_is_shown() -> None:
    assert decide_request([], "GET", "/a/../b?c").path == "/b"
    assert decide_request([], "GET", "/%zz").permitted


@given(st.text(st.sampled_from("/.;%2ef5c\\a"), max_size=24))
def test_readings_are_bounded_and_free_of_dot_segments(text: str) -> None:
    try:
        found = readings("/" + text)
    except PathAmbiguous:
        return
    assert len(found) <= 64
    for one in found:
        assert one.startswith("/")
        assert not {"..", "."} & set(one.split("/"))


@given(st.text(st.sampled_from("/.;%2ef5c\\a*ü "), max_size=24))
def test_the_normal_form_of_a_pattern_is_stable(text: str) -> None:
    once = normalize_pattern("/" + text.replace("%", ""))

    assert normalize_pattern(once) == once
