"""A real registry that advertises a device login takes what the login ends with."""

import contextlib
import re
from collections.abc import Iterator
from urllib.parse import urlencode

import pytest
import urllib3

from tests.support.oidc_issuer import (
    DEVICE_CODE_GRANT,
    DISCOVERY_PATH,
    OidcIssuer,
    run_oidc_registry,
)
from tests.support.prerequisites import Prerequisite, missing
from tests.support.registry import RegistryUnavailable, RunningRegistry


@pytest.fixture
def oidc_registry() -> Iterator[tuple[RunningRegistry, OidcIssuer]]:
    with contextlib.ExitStack() as stack:
        try:
            running = stack.enter_context(run_oidc_registry())
        except RegistryUnavailable as error:
            missing(Prerequisite.REGISTRY, str(error))
        yield running


def post(url: str, **form: str) -> dict[str, str]:
    headers = {"Content-Type": "application/x-www-form-urlencoded"}
    answered = urllib3.request("POST", url, body=urlencode(form).encode(), headers=headers)
    assert answered.status == 200
    return dict(answered.json())


def test_device_login_leads_from_the_challenge_to_a_token_that_the_registry_accepts(
    oidc_registry: tuple[RunningRegistry, OidcIssuer],
) -> None:
    registry, issuer = oidc_registry
    challenge = urllib3.request("GET", f"{registry.url}/v2/").headers["WWW-Authenticate"]
    parameters = dict(re.findall(r'(\w+)="([^"]*)"', challenge))
    origin = "/".join(parameters["realm"].split("/")[:3])
    document = urllib3.request("GET", origin + DISCOVERY_PATH).json()
    assert document["issuer"] == origin

    form = {"client_id": "lns", "scope": "openid offline_access"}
    started = post(document["device_authorization_endpoint"], **form)
    issuer.approve()
    granted = post(
        document["token_endpoint"],
        client_id="lns",
        grant_type=DEVICE_CODE_GRANT,
        device_code=started["device_code"],
    )
    token = post(
        parameters["realm"],
        grant_type="refresh_token",
        refresh_token=granted["refresh_token"],
        service=parameters["service"],
        client_id="lns",
    )["access_token"]

    def status_with(token: str) -> int:
        headers = {"Authorization": f"Bearer {token}"}
        return urllib3.request("GET", f"{registry.url}/v2/", headers=headers).status

    assert (status_with(token), status_with(granted["access_token"])) == (200, 401)
