"""Edits of policy files: what is written, where, and what stays as it was."""

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from services.core.errors import ArtifactInvalid, RequestInvalid
from services.core.policy_edit import (
    NEW_POLICY,
    placed_routes,
    put_integration,
    put_route,
    remove_route,
    set_default,
)
from services.core.policy_file import parse_policy_file
from services.core.run_plan import PolicyRoute, PolicyRule, Verdict
from tests.support.policy_oracle import decide

COMMENTED = b"""\
# ours
network:
  defaultVerdict: deny   # closed

  allowedRoutes:
    # GitHub, reading
    - match: api.github.com
      verdict: allow   # for the bot
      rules:
        - {method: GET, path: /repos/**}  # only repositories

    # everything else there stays closed
    - match: '*.github.com'
      verdict: deny
# the end
integrations:
  - anthropic  # the model
"""


def allow(match: str, *rules: tuple[str, str], description: str = "") -> PolicyRoute:
    return PolicyRoute(
        match=match,
        verdict=Verdict.ALLOW,
        description=description,
        rules=tuple(PolicyRule(method=method, path=path) for method, path in rules),
    )


def deny(match: str) -> PolicyRoute:
    return PolicyRoute(match=match, verdict=Verdict.DENY)


def added(before: bytes, after: bytes) -> list[str]:
    """The lines that an edit added, where it removed none."""
    remaining = before.decode().splitlines()
    new = []
    for line in after.decode().splitlines():
        if remaining and remaining[0] == line:
            remaining.pop(0)
        else:
            new.append(line)
    assert not remaining
    return new


def test_a_first_route_makes_the_file_with_its_explanation() -> None:
    edited = put_route(b"", allow("packages.example"))

    assert edited.text.decode().startswith(NEW_POLICY.removesuffix(" []\n"))
    assert (
        decide(parse_policy_file(edited.text, name="p"), "packages.example", 443)[0]
        is Verdict.ALLOW
    )


def test_a_new_route_is_the_last_and_nothing_else_changes() -> None:
    edited = put_route(COMMENTED, allow("packages.example", description="packages: read, install"))

    assert added(COMMENTED, edited.text) == [
        "    - match: packages.example",
        "      verdict: allow",
        '      description: "packages: read, install"',
    ]


def test_a_route_goes_above_the_comment_of_the_broader_one_that_would_decide_for_it() -> None:
    edited = put_route(COMMENTED, allow("gist.github.com:443", ("POST", "/**")), comment="gists")

    assert added(COMMENTED, edited.text) == [
        "    # gists",
        '    - match: "gist.github.com:443"',
        "      verdict: allow",
        "      rules:",
        "        - {method: POST, path: /**}",
    ]
    lines = edited.text.decode().splitlines()
    assert lines.index("    # gists") < lines.index("    # everything else there stays closed")
    policy = parse_policy_file(edited.text, name="p")
    assert decide(policy, "gist.github.com", 443)[0] is Verdict.ALLOW
    assert decide(policy, "www.github.com", 443)[0] is Verdict.DENY


def test_a_broader_route_leaves_the_narrower_ones_first_and_says_so() -> None:
    edited = put_route(COMMENTED, allow("*.github.com"))

    assert edited.remark == ""
    edited = put_route(edited.text, deny("*.com"))
    assert edited.remark == (
        "api.github.com stays at allow: its route comes first;"
        " *.github.com stays at allow: its route comes first"
    )


def test_a_route_that_exists_is_changed_in_its_place() -> None:
    edited = put_route(COMMENTED, allow("API.github.com.", ("GET", "/repos/**"), ("PUT", "/x")))

    assert added(COMMENTED, edited.text) == ["        - {method: PUT, path: /x}"]


def test_a_denied_host_loses_its_rules() -> None:
    edited = put_route(COMMENTED, deny("api.github.com"))

    (first, _) = placed_routes(edited.text, name="p")
    assert first.route.verdict is Verdict.DENY
    assert first.route.rules == ()


def test_a_removed_route_takes_only_its_own_comment_along() -> None:
    edited = remove_route(COMMENTED, "*.github.com")

    gone = set(COMMENTED.decode().splitlines()) - set(edited.text.decode().splitlines())
    assert gone == {
        "    # everything else there stays closed",
        "    - match: '*.github.com'",
        "      verdict: deny",
    }


def test_the_last_route_can_be_removed_and_another_added() -> None:
    text = put_route(b"", allow("packages.example")).text
    text = put_route(remove_route(text, "packages.example").text, allow("other.example")).text

    assert [one.route.match for one in placed_routes(text, name="p")] == ["other.example"]


def test_default_and_integrations_keep_comments() -> None:
    text = put_integration(set_default(COMMENTED, Verdict.ASK).text, "openai").text
    text = put_integration(text, "anthropic").text

    assert b"defaultVerdict: ask    # closed" in text
    assert text.endswith(b"  - anthropic  # the model\n  - openai\n")


def test_routes_are_given_with_the_line_that_they_begin_on() -> None:
    assert [(one.route.match, one.line) for one in placed_routes(COMMENTED, name="p")] == [
        ("api.github.com", 7),
        ("*.github.com", 13),
    ]


@pytest.mark.parametrize(
    "text",
    [
        b"network: {defaultVerdict: deny, allowedRoutes: [{match: a.com, verdict: deny}]}\n",
        b'{"network": {"allowedRoutes": []}}',
        b"network:\n  allowedRoutes:\n  - match: a.com\n    verdict: allow",
        b"network:\r\n  allowedRoutes:\r\n  - match: a.com\r\n    verdict: allow\r\n",
        b"integrations: [x]\n",
        b"network:\n",
        b"# only a comment\n",
        (
            b"apiVersion: lens.dev/v1alpha1\nkind: Policy\nmetadata: {name: p}\nspec:\n  network:\n"
            b"    allowedRoutes:\n    - {match: a.com, verdict: ask}\n"
        ),
    ],
)
def test_every_style_of_the_file_can_be_edited(text: bytes) -> None:
    if text == b"network:\n":
        with pytest.raises(ArtifactInvalid):
            put_route(text, allow("b.com"))
        return
    before = [one.route.match for one in placed_routes(text, name="p")]

    edited = put_route(text, allow("b.com", ("GET", "/a,b/**")))

    assert [one.route.match for one in placed_routes(edited.text, name="p")] == [*before, "b.com"]
    assert placed_routes(remove_route(edited.text, "b.com").text, name="p") == placed_routes(
        text, name="p"
    )


def test_a_file_that_is_not_a_policy_is_refused_with_the_place() -> None:
    with pytest.raises(ArtifactInvalid, match=r"\$\.network\.defaultVerdict"):
        put_route(b"network: {defaultVerdict: perhaps}", allow("a.com"))


def test_what_does_not_exist_cannot_be_removed() -> None:
    with pytest.raises(RequestInvalid, match=r"has no route for b\.com"):
        remove_route(COMMENTED, "b.com")


def test_a_denied_route_takes_no_rules() -> None:
    with pytest.raises(RequestInvalid, match="rules select requests of an allowed host"):
        put_route(b"", replace(allow("a.com", ("GET", "/")), verdict=Verdict.DENY))


MATCHES = st.sampled_from(
    ["a.com", "*.a.com", "b.a.com", "b.a.com:443", "*.com", "10.0.0.0/8", "10.1.0.0/16", "::1"]
)
TEXTS = st.text(
    st.characters(min_codepoint=32, max_codepoint=0x2FFF, exclude_characters="\x7f"), max_size=20
)


@settings(max_examples=25, deadline=None)
@given(
    edits=st.lists(
        st.tuples(MATCHES, st.sampled_from(list(Verdict)), TEXTS, st.booleans()), max_size=8
    )
)
def test_after_any_edits_the_last_word_on_a_match_holds(
    edits: list[tuple[str, Verdict, str, bool]],
) -> None:
    text, expected = COMMENTED, {"api.github.com": Verdict.ALLOW, "*.github.com": Verdict.DENY}
    for match, verdict, description, remove in edits:
        if remove and match in expected:
            text = remove_route(text, match).text
            del expected[match]
        else:
            route = PolicyRoute(match=match, verdict=verdict, description=description)
            text = put_route(text, route).text
            expected[match] = verdict

    found = {one.route.match: one.route.verdict for one in placed_routes(text, name="p")}
    assert found == expected
    assert text.startswith(b"# ours\n")
    assert b"# the end\n" in text
