"""Device logins at a fake issuer of a real registry (docs/registry-login.md)."""

import asyncio
from collections.abc import Iterator
from typing import Any

import pytest
from lns.registry.v1 import registry_service_pb2 as pb

from services.core import errors
from tests.support.eventually import eventually
from tests.support.gateway import RunningGateway
from tests.support.oidc_issuer import OidcIssuer, Outcome, run_oidc_registry
from tests.support.registry import RunningRegistry


@pytest.fixture(scope="module")
def advertised() -> Iterator[tuple[RunningRegistry, OidcIssuer]]:
    with run_oidc_registry() as running:
        yield running


@pytest.fixture
def issuer(advertised: tuple[RunningRegistry, OidcIssuer]) -> Iterator[OidcIssuer]:
    """The issuer as it was at first."""
    _, running = advertised
    yield running
    running.advertised, running.interval, running.expires_in = True, 1, 600
    running.metadata, running.grant = {}, {}


@pytest.fixture
def host(advertised: tuple[RunningRegistry, OidcIssuer]) -> str:
    return advertised[0].host


async def start(gateway: RunningGateway, host: str) -> Any:
    return await gateway.call("StartDeviceLogin", registry=host)


async def test_a_person_agrees_elsewhere_and_the_registry_opens(
    gateway: RunningGateway, issuer: OidcIssuer, host: str
) -> None:
    started = await start(gateway, host)
    login = issuer.wait_for_login()
    finishing = asyncio.ensure_future(gateway.call("FinishDeviceLogin", login_id=started.login_id))
    await eventually(lambda: bool(login.polls))
    assert not finishing.done()
    issuer.approve()

    assert (await finishing).stored_in == "file"
    assert (started.user_code, started.verification_uri) == (
        login.user_code,
        issuer.verification_uri,
    )
    assert started.expires_in.seconds == 600
    assert login.form["service"]
    (kept,) = (await gateway.call("ListLogins")).logins
    assert (kept.registry, kept.username) == (host, "")
    with pytest.raises(errors.ManifestUnknown):  # and not: needs a login
        await gateway.pull(f"{host}/team/absent")


@pytest.mark.parametrize("ending", ["deny", "expire"])
async def test_a_login_that_is_refused_or_too_old_stores_nothing(
    gateway: RunningGateway, issuer: OidcIssuer, host: str, ending: str
) -> None:
    started = await start(gateway, host)
    getattr(issuer, ending)()

    with pytest.raises(errors.RegistryUnauthenticated):
        await gateway.call("FinishDeviceLogin", login_id=started.login_id)

    assert not gateway.settings.auth_path.exists()
    with pytest.raises(errors.RequestInvalid):
        await gateway.call("FinishDeviceLogin", login_id=started.login_id)


async def test_a_login_that_nobody_finishes_ends_by_itself(
    gateway: RunningGateway, issuer: OidcIssuer, host: str
) -> None:
    issuer.expires_in = 2
    started = await start(gateway, host)

    with pytest.raises(errors.RegistryUnauthenticated, match="too long"):
        await gateway.call("FinishDeviceLogin", login_id=started.login_id)


async def test_whoever_lost_the_connection_may_wait_again(
    gateway: RunningGateway, issuer: OidcIssuer, host: str
) -> None:
    started = await start(gateway, host)
    login = issuer.wait_for_login()
    request = pb.FinishDeviceLoginRequest(login_id=started.login_id)
    lost = asyncio.ensure_future(gateway.stub.FinishDeviceLogin(request))
    await eventually(lambda: bool(login.polls))
    lost.cancel()
    await asyncio.gather(lost, return_exceptions=True)
    issuer.approve()

    assert (await gateway.stub.FinishDeviceLogin(request)).stored_in == "file"


async def test_the_issuer_is_asked_no_more_often_than_it_wants(
    gateway: RunningGateway, issuer: OidcIssuer, host: str
) -> None:
    started = await start(gateway, host)
    login = issuer.wait_for_login()
    issuer.slow_down()
    finishing = asyncio.ensure_future(gateway.call("FinishDeviceLogin", login_id=started.login_id))
    await eventually(lambda: len(login.polls) == 1)
    issuer.approve()
    await finishing

    first, second = login.polls
    assert first.outcome is Outcome.SLOW_DOWN
    assert second.at - first.at >= 6.0


async def test_a_registry_that_advertises_none_is_not_logged_in_to(
    gateway: RunningGateway,
    issuer: OidcIssuer,
    host: str,
    registry: RunningRegistry,
    basic_registry: RunningRegistry,
) -> None:
    issuer.advertised = False
    for one in (host, registry.host, basic_registry.host):
        with pytest.raises(errors.Unimplemented, match="no device login"):
            await start(gateway, one)


@pytest.mark.parametrize(
    "change",
    [
        {"issuer": "http://127.0.0.1:1"},
        {"issuer": None},
        {"token_endpoint": "http://127.0.0.1:1/token"},
        {"token_endpoint": None},
        {"device_authorization_endpoint": "https://issuer.example/device"},
        {"device_authorization_endpoint": "file:///etc/passwd"},
    ],
    ids=str,
)
async def test_an_issuer_that_points_elsewhere_is_not_used(
    gateway: RunningGateway, issuer: OidcIssuer, host: str, change: dict[str, str | None]
) -> None:
    issuer.metadata = change

    with pytest.raises(errors.Unimplemented):
        await start(gateway, host)


@pytest.mark.parametrize("grant", [{"refresh_token": None}, {"refresh_token": "x\ny"}], ids=str)
async def test_a_grant_without_a_usable_token_stores_nothing(
    gateway: RunningGateway, issuer: OidcIssuer, host: str, grant: dict[str, object]
) -> None:
    issuer.grant = grant
    started = await start(gateway, host)
    issuer.approve()

    with pytest.raises(errors.RegistryProtocol):
        await gateway.call("FinishDeviceLogin", login_id=started.login_id)

    assert not gateway.settings.auth_path.exists()


async def test_a_token_that_the_realm_does_not_know_is_not_stored(
    gateway: RunningGateway, issuer: OidcIssuer, host: str
) -> None:
    issuer.grant = {"refresh_token": "of-another-user"}
    started = await start(gateway, host)
    issuer.approve()

    with pytest.raises(errors.RegistryUnauthenticated):
        await gateway.call("FinishDeviceLogin", login_id=started.login_id)

    assert not gateway.settings.auth_path.exists()


async def test_a_login_that_was_never_started_is_refused(gateway: RunningGateway) -> None:
    with pytest.raises(errors.RequestInvalid):
        await gateway.call("FinishDeviceLogin", login_id="x")
