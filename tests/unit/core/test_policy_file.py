import pytest

from services.core.errors import ArtifactInvalid
from services.core.policy_file import parse_policy_file
from services.core.run_plan import Policy, PolicyRoute, Verdict

FLAT = b"""
network:
  defaultVerdict: deny
  allowedRoutes:
    - {match: api.example.com, verdict: allow}
integrations: [anthropic, {ref: integrations/github:1}]
"""
ARTIFACT = b"""
apiVersion: lens.dev/v1alpha1
kind: Policy
metadata: {name: base}
spec:
  network: {defaultVerdict: deny, allowedRoutes: [{match: api.example.com, verdict: allow}]}
  integrations: [{ref: integrations/anthropic}, {ref: integrations/github}]
"""


@pytest.mark.parametrize("text", [FLAT, ARTIFACT], ids=["flat", "artifact"])
def test_a_file_and_an_artifact_are_the_same_policy(text: bytes) -> None:
    assert parse_policy_file(text, name="lns-policy.yaml") == Policy(
        default_verdict=Verdict.DENY,
        routes=(
            PolicyRoute(match="api.example.com", verdict=Verdict.ALLOW, origin="lns-policy.yaml"),
        ),
        integrations=("anthropic", "github"),
    )


@pytest.mark.parametrize("text", [b"", b"  \n", b"# nothing yet\n", b"---\n", b"network: {}\n"])
def test_an_empty_file_asks(text: bytes) -> None:
    assert parse_policy_file(text, name="p").default_verdict is None


@pytest.mark.parametrize(
    ("text", "paths"),
    [
        (b"network: {defaultVerdict: maybe}", ["$.network.defaultVerdict"]),
        (b"network: {routes: []}", ["$.network.routes"]),
        (
            b"network: {allowedRoutes: [{match: 'a b', verdict: allow}, {verdict: no}]}",
            [
                "$.network.allowedRoutes[0].match",
                "$.network.allowedRoutes[1].match",
                "$.network.allowedRoutes[1].verdict",
            ],
        ),
        (
            b"network: {allowedRoutes: [{match: '*', verdict: allow}]}",
            ["$.network.allowedRoutes[0].match"],
        ),
        (b"integrations: anthropic", ["$.integrations"]),
        (b"integrations: [3]", ["$.integrations[0]"]),
        (b"[]", ["$"]),
        (b"no policy", ["$"]),
        (b"kind: Policy", ["$.apiVersion", "$.metadata", "$.spec"]),
        (b"a: &a [*a]", ["$"]),
    ],
)
def test_every_problem_of_a_file_is_named_by_its_path(text: bytes, paths: list[str]) -> None:
    with pytest.raises(ArtifactInvalid) as caught:
        parse_policy_file(text, name="lns-policy.yaml")

    assert [violation.subject for violation in caught.value.violations] == paths
