"""`lns policy` on files: what is written, printed and refused."""

import json
from pathlib import Path

import pytest

from cli.app import dispatch
from services.core.policy_file import parse_policy_file
from services.core.run_plan import PolicyRule, Verdict


@pytest.fixture
def policy_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path / "lns-policy.yaml"


def test_patterns_are_allowed_and_denied_in_one_file(
    policy_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert dispatch(["policy", "allow", "A.example.", "*.b.example:443"], {}) == 0
    assert dispatch(["policy", "deny", "c.b.example", "--description", "not that one"], {}) == 0

    assert capsys.readouterr().out.splitlines() == [
        "a.example: allow",
        "*.b.example:443: allow",
        "c.b.example: deny",
    ]
    policy = parse_policy_file(policy_file.read_bytes(), name="p")
    assert [(one.match, one.verdict) for one in policy.routes] == [
        ("a.example", Verdict.ALLOW),
        ("*.b.example:443", Verdict.ALLOW),
        ("c.b.example", Verdict.DENY),
    ]
    assert policy.default_verdict is Verdict.ASK


def test_rules_are_added_to_a_route(policy_file: Path) -> None:
    dispatch(["policy", "allow", "a.example", "--rule", "get /x/**"], {})
    dispatch(["policy", "allow", "a.example", "--rule", "POST /y"], {})

    (route,) = parse_policy_file(policy_file.read_bytes(), name="p").routes
    assert route.rules == (
        PolicyRule(method="GET", path="/x/**"),
        PolicyRule(method="POST", path="/y"),
    )


def test_a_narrower_route_that_decides_otherwise_is_reported(
    policy_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    del policy_file
    dispatch(["policy", "deny", "c.b.example"], {})
    dispatch(["policy", "allow", "*.b.example"], {})

    assert "c.b.example stays at deny: its route comes first" in capsys.readouterr().err


def test_the_list_names_lines_and_ends_with_the_default(
    policy_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    dispatch(["policy", "allow", "a.example"], {})
    dispatch(["policy", "default", "deny"], {})
    capsys.readouterr()

    assert dispatch(["policy", "list", "--format", "{{.Line}} {{.Match}} {{.Verdict}}"], {}) == 0

    (first, last) = capsys.readouterr().out.splitlines()
    line = policy_file.read_text().splitlines().index("    - match: a.example") + 1
    assert first == f"{line} a.example allow"
    assert last.split() == ["deny"]


def test_a_route_is_removed(policy_file: Path) -> None:
    dispatch(["policy", "allow", "a.example", "b.example"], {})
    assert dispatch(["policy", "remove", "a.example"], {}) == 0

    (route,) = parse_policy_file(policy_file.read_bytes(), name="p").routes
    assert route.match == "b.example"


def test_presets_are_listed_and_added(
    policy_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert dispatch(["policy", "presets"], {}) == 0
    assert "git-readonly" in capsys.readouterr().out
    assert dispatch(["policy", "presets", "anthropic", "git-readonly"], {}) == 0

    text = policy_file.read_text()
    policy = parse_policy_file(text.encode(), name="p")
    assert "# preset anthropic: " in text
    assert policy.integrations == ("anthropic",)
    assert len(policy.routes) == 4


def test_a_preset_of_a_package_manager_names_the_hosts_that_it_uses(
    policy_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "bin").mkdir()
    npm = tmp_path / "bin" / "npm"
    npm.write_text("#!/bin/sh\necho https://packages.corp.example:8443/npm/\n")
    npm.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:/usr/bin:/bin")

    assert dispatch(["policy", "presets", "npm"], {}) == 0

    (route,) = parse_policy_file(policy_file.read_bytes(), name="p").routes
    assert route.match == "packages.corp.example:443"
    assert PolicyRule(method="GET", path="/**") in route.rules


@pytest.mark.parametrize(
    ("arguments", "why", "way_out"),
    [
        (["allow", "https://a.example/"], "is no host", "write api.example.com"),
        (["allow", "a.example", "--rule", "GET"], "'GET' is not a rule", "--rule 'GET /repos/**'"),
        (["remove", "a.example"], "has no route for a.example", "lns policy list"),
        (["presets", "pipy"], "no preset is called 'pipy'", "presets are "),
        (["presets", "npm"], "does not say which hosts", "lns policy allow HOST"),
    ],
)
def test_what_cannot_be_done_is_reported_with_the_way_out(
    policy_file: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    arguments: list[str],
    why: str,
    way_out: str,
) -> None:
    monkeypatch.setenv("PATH", str(policy_file.parent))

    assert dispatch(["policy", *arguments], {}) == 1

    error = capsys.readouterr().err
    assert why in error
    assert way_out in error
    assert not policy_file.exists()


def test_an_invalid_file_is_named_with_the_place_and_left_as_it_is(
    policy_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    policy_file.write_text("network: {allowedRoutes: [{match: a.example, verdict: maybe}]}\n")

    assert dispatch(["policy", "allow", "b.example"], {}) == 1

    assert "lns-policy.yaml" in (error := capsys.readouterr().err)
    assert "$.network.allowedRoutes[0].verdict" in error
    assert "maybe" in policy_file.read_text()


TESTED = """\
network:
  defaultVerdict: deny
  allowedRoutes:
    - {match: api.example, verdict: allow, rules: [{method: GET, path: /repos/**}]}
    - {match: "*.ask.example", verdict: ask}
    - {match: 10.0.0.0/8, verdict: allow}
"""


@pytest.mark.parametrize(
    ("arguments", "code", "first", "more"),
    [
        (["api.example"], 0, "allow: ", "allowedRoutes[0]"),
        (["API.example.:443"], 0, "allow: ", "lns-policy.yaml:4"),
        (["api.example", "get", "/repos/a"], 0, "allow: GET /repos/a fits", ""),
        (["api.example", "POST", "/repos/a"], 1, "deny: its rules refuse it", "--rule"),
        (["api.example", "GET", "/repos/../admin"], 1, "deny: ", ""),
        (["x.ask.example:22"], 1, "ask: ", "lns policy allow"),
        (["ask.example"], 1, "deny: ", "defaultVerdict"),
        (["10.1.2.3:80"], 0, "allow: ", ""),
        (["169.254.169.254:80"], 1, "deny: ", ""),
        (["0x7f.1:80"], 1, "deny: ", ""),
    ],
)
def test_a_test_says_the_verdict_and_the_rule_that_decides(
    policy_file: Path,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    code: int,
    first: str,
    more: str,
) -> None:
    policy_file.write_text(TESTED)

    assert dispatch(["policy", "test", *arguments], {}) == code

    output = capsys.readouterr().out
    assert output.startswith(first)
    assert more in output


def test_a_test_answers_as_json(policy_file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    policy_file.write_text(TESTED)

    dispatch(["policy", "test", "api.example", "--format", "json"], {})

    answer = json.loads(capsys.readouterr().out)
    assert (answer["host"], answer["port"], answer["verdict"]) == ("api.example", 443, "allow")
