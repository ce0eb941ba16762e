"""Where the secret of an integration goes."""

import pytest

from services.core.egress.hosts import parse_host
from services.core.integrations.definitions import (
    CredentialUse,
    InjectionKind,
    InjectionRule,
    IntegrationDefinition,
)
from services.vm_runner.credentials.active import ActiveIntegration


@pytest.mark.parametrize(
    ("host", "goes"),
    [
        ("api.example.com", True),
        ("API.Example.com.", True),
        ("other.example.com", False),
        ("api.example.com.evil.example", False),
        ("192.0.2.7", False),
        ("::ffff:192.0.2.7", False),
        ("lns.internal", False),
        ("host.lns.internal", False),
    ],
)
def test_a_secret_goes_to_the_names_of_its_service_and_never_to_an_address(
    host: str, goes: bool
) -> None:
    domains = ("api.example.com", "192.0.2.7", "lns.internal", "host.lns.internal")
    use = CredentialUse(
        env_var="KEY",
        placeholder="lns-placeholder",
        injections=tuple(InjectionRule(kind=InjectionKind.BEARER, domain=one) for one in domains),
    )
    definition = IntegrationDefinition(
        id="service", title="", routes=(), credential=use, oauth=None, origin=""
    )
    active = ActiveIntegration(definition=definition, credential=use, variables=("KEY",))
    assert active.goes_to(parse_host(host)) is goes
