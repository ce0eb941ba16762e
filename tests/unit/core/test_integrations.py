"""The catalogue of integrations: what ships, what users and bundles may add."""

import json
from dataclasses import replace
from typing import Any

import pytest

from services.core.errors import ArtifactInvalid, NameTaken, RequestInvalid
from services.core.integrations.catalogue import (
    Catalogue,
    fill_template,
    integration_of_document,
    shipped_catalogue,
    shipped_templates,
)
from services.core.integrations.definitions import (
    InjectionKind,
    InjectionRule,
    IntegrationDefinition,
    is_within,
)

SHIPPED = shipped_catalogue().all()


def document(**changes: Any) -> dict[str, Any]:
    return {
        "apiVersion": "lens.dev/v1alpha1",
        "kind": "Integration",
        "metadata": {"name": "tracker"},
        "spec": {
            "authKind": "credential",
            "routes": [{"match": "api.tracker.example:443"}],
            "credential": {
                "envVar": "TRACKER_TOKEN",
                "placeholder": "lns-placeholder-tracker",
                "injections": [{"kind": "bearer_header", "domain": "api.tracker.example"}],
            },
            **changes,
        },
    }


def definition(**changes: Any) -> IntegrationDefinition:
    return integration_of_document(json.dumps(document(**changes)).encode(), origin="test")


def test_what_the_contract_names_ships() -> None:
    assert {one.id for one in SHIPPED} >= {
        "anthropic",
        "openai",
        "google",
        "mistral",
        "groq",
        "openrouter",
        "github",
        "gitlab",
        "bitbucket",
        "huggingface",
        "aws-bedrock",
        "slack",
        "linear",
        "notion",
    }
    assert set(shipped_templates()) == {"pypi-publish", "npm-publish"}


@pytest.mark.parametrize("one", SHIPPED, ids=lambda one: one.id)
def test_every_shipped_integration_is_narrow_and_has_a_placeholder_of_its_own(one: Any) -> None:
    assert one.title
    assert one.credential is not None
    assert "lnsplaceholder" in one.credential.placeholder or one.id == "openrouter"
    for route in one.routes:
        assert "*" not in route.match
        assert route.match.endswith(":443")
    others = [other for other in SHIPPED if other is not one]
    assert all(other.credential.placeholder != one.credential.placeholder for other in others)
    assert all(other.credential.env_var != one.credential.env_var for other in others)


@pytest.mark.parametrize(
    ("identifier", "prefix", "length"),
    [
        ("anthropic", "sk-ant-api03-", 108),
        ("openai", "sk-proj-", 164),
        ("google", "AIzaSy", 39),
        ("mistral", "", 32),
        ("groq", "gsk_", 56),
        ("openrouter", "sk-or-v1-", 73),
        ("github", "ghp_", 40),
        ("gitlab", "glpat-", 26),
        ("huggingface", "hf_", 37),
        ("slack", "xoxb-", 55),
        ("linear", "lin_api_", 48),
        ("notion", "ntn_", 50),
    ],
)
def test_a_placeholder_has_the_shape_that_clients_check(
    identifier: str, prefix: str, length: int
) -> None:
    credential = shipped_catalogue().get(identifier).credential

    assert credential is not None
    assert credential.placeholder.startswith(prefix)
    assert len(credential.placeholder) == length


@pytest.mark.parametrize(
    ("identifier", "rule"),
    [
        ("anthropic", ("api_key_header", "api.anthropic.com", "x-api-key")),
        ("openai", ("bearer_header", "api.openai.com", "")),
        ("github", ("basic_x_access_token", "github.com", "")),
        ("gitlab", ("api_key_header", "gitlab.com", "PRIVATE-TOKEN")),
        ("linear", ("api_key_header", "api.linear.app", "Authorization")),
    ],
)
def test_a_secret_goes_where_the_service_reads_it(
    identifier: str, rule: tuple[str, str, str]
) -> None:
    credential = shipped_catalogue().get(identifier).credential

    kind, domain, header = rule
    wanted = InjectionRule(kind=InjectionKind(kind), domain=domain, header=header)
    assert credential is not None
    assert wanted in credential.injections


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"routes": [{"match": "*.com"}]}, r"\*\.com would catch the hosts of everybody"),
        ({"routes": [{"match": "10.0.0.0/8"}]}, "api.tracker.example is not a host of its routes"),
        ({"routes": [{"match": "other.example"}]}, "is not a host of its routes"),
        ({"routes": []}, r"\$\.spec\.routes"),
        ({"authKind": "password"}, r"\$\.spec\.authKind"),
    ],
)
def test_an_integration_that_would_send_its_secret_elsewhere_is_refused(
    changes: dict[str, Any], why: str
) -> None:
    with pytest.raises(ArtifactInvalid, match=why):
        definition(**changes)


@pytest.mark.parametrize("origin", ["the user's file", "a bundle"])
def test_the_id_of_a_shipped_integration_cannot_be_taken(origin: str) -> None:
    evil = replace(definition(), id="github", origin=origin)

    with pytest.raises(NameTaken, match=f"the integration github of {origin} has the id of one"):
        shipped_catalogue().with_more([evil])


def test_a_bundle_cannot_take_the_id_of_the_users_and_may_repeat_it() -> None:
    catalogue = shipped_catalogue().with_more([definition()])

    assert catalogue.with_more([replace(definition(), origin="bundle")]).get("tracker")
    with pytest.raises(NameTaken):
        catalogue.with_more(
            [definition(routes=[{"match": "api.tracker.example"}, {"match": "evil.example"}])]
        )


def test_an_unknown_id_is_refused_with_the_way_out() -> None:
    with pytest.raises(RequestInvalid, match="no integration is called 'githup'") as caught:
        Catalogue().get("githup")

    assert "lns integration add" in caught.value.hint


def test_a_template_gets_its_users_host() -> None:
    filled = fill_template(shipped_templates()["npm-publish"], "npm.corp.example")

    one = integration_of_document(filled, origin="f")
    assert one.domains == ("npm.corp.example",)
    assert one.routes[0].match == "npm.corp.example:443"
    with pytest.raises(ArtifactInvalid):
        fill_template(shipped_templates()["npm-publish"], "not a host")


@pytest.mark.parametrize(
    ("domain", "others", "within"),
    [
        ("a.example", ("a.example",), True),
        ("b.a.example", ("*.a.example",), True),
        ("*.b.a.example", ("*.a.example",), True),
        ("a.example", ("*.a.example",), False),
        ("*.a.example", ("a.example",), False),
        ("a.example.evil", ("a.example", "*.a.example"), False),
        ("xa.example", ("*.a.example",), False),
    ],
)
def test_a_domain_is_within_others_by_whole_labels(
    domain: str, others: tuple[str, ...], within: bool
) -> None:
    assert is_within(domain, others) is within
