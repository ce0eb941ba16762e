"""Shipped presets: each is a valid policy, narrow, and goes into any policy file."""

import pytest

from services.core.errors import RequestInvalid
from services.core.policy_edit import put_integration, put_route
from services.core.policy_file import parse_policy_file
from services.core.presets import NAMES, load_preset
from services.core.run_plan import Verdict
from tests.support.policy_oracle import decide, decide_request


@pytest.mark.parametrize("name", NAMES)
def test_every_preset_only_allows_what_it_names(name: str) -> None:
    preset = load_preset(name)

    assert 0 < len(preset.summary) <= 100
    assert preset.policy.routes
    assert all(route.verdict is Verdict.ALLOW for route in preset.policy.routes)
    assert all(route.description for route in preset.policy.routes)
    assert decide(preset.policy, "other.example", 443)[0] is Verdict.ASK


@pytest.mark.parametrize("name", NAMES)
def test_every_preset_can_be_put_into_a_policy_file_twice(name: str) -> None:
    text = b""
    for _ in range(2):
        for route in load_preset(name).policy.routes:
            text = put_route(text, route, comment=f"preset {name}").text
        for integration in load_preset(name).policy.integrations:
            text = put_integration(text, integration).text

    policy = parse_policy_file(text, name="p")
    assert [(one.match, one.rules) for one in policy.routes] == [
        (one.match, one.rules) for one in load_preset(name).policy.routes
    ]


@pytest.mark.parametrize(
    ("preset", "host", "method", "path", "verdict"),
    [
        ("git-readonly", "github.com", "GET", "/a/b.git/info/refs", Verdict.ALLOW),
        ("git-readonly", "github.com", "POST", "/a/b.git/git-upload-pack", Verdict.ALLOW),
        ("git-readonly", "github.com", "POST", "/a/b.git/git-receive-pack", Verdict.DENY),
        ("git-readonly", "api.github.com", "GET", "/", Verdict.ASK),
        ("pypi", "index.pip.invalid", "GET", "/simple/lns/", Verdict.ALLOW),
        ("pypi", "index.pip.invalid", "POST", "/legacy/", Verdict.DENY),
        ("pypi", "upload.pip.invalid", "POST", "/legacy/", Verdict.ASK),
        ("npm", "registry.npm.invalid", "GET", "/left-pad", Verdict.ALLOW),
        ("npm", "registry.npm.invalid", "PUT", "/left-pad", Verdict.DENY),
    ],
)
def test_presets_for_reading_refuse_writing(
    preset: str, host: str, method: str, path: str, verdict: Verdict
) -> None:
    policy = load_preset(preset).policy

    assert decide_request(policy, host, 443, method=method, path=path)[0] is verdict


def test_an_unknown_preset_is_refused_with_the_list() -> None:
    with pytest.raises(RequestInvalid, match="no preset is called 'pipy'") as caught:
        load_preset("pipy")

    assert "pypi" in caught.value.hint
