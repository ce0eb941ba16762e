"""The vault: whose credential is used, where it may go, when it is had anew."""

import asyncio
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from services.core.errors import CredentialUnusable, RequestInvalid
from services.core.integrations.catalogue import shipped_catalogue
from services.core.integrations.definitions import (
    InjectionKind,
    InjectionRule,
    IntegrationDefinition,
    OAuthClient,
)
from services.vm_runner.credentials.credential import (
    CredentialKey,
    Missing,
    SecretValue,
)
from services.vm_runner.credentials.ports import Tokens
from services.vm_runner.credentials.vault import Vault
from tests.fakes.credentials import START, Clock, Commands, Issuer, Records

ANTHROPIC = shipped_catalogue().get("anthropic")
OAUTH = replace(
    ANTHROPIC,
    id="tracker",
    oauth=OAuthClient(
        device_authorization_endpoint="https://i.example/device",
        token_endpoint="https://i.example/token",
        client_id="lns",
    ),
)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def commands() -> Commands:
    return Commands()


@pytest.fixture
def issuer(clock: Clock) -> Issuer:
    return Issuer(clock)


@pytest.fixture
def records() -> Records:
    return Records()


@pytest.fixture
def vault(records: Records, commands: Commands, issuer: Issuer, clock: Clock) -> Vault:
    return Vault(records, commands, issuer, now=clock)


def key(project: str = "", integration: str = "anthropic") -> CredentialKey:
    return CredentialKey(integration=integration, project=project)


async def test_a_projects_credential_goes_before_the_users(vault: Vault) -> None:
    await vault.put_value(key(), ANTHROPIC, "user")
    await vault.put_value(key("/p"), ANTHROPIC, "project")

    assert await vault.secret(ANTHROPIC, "/p") == SecretValue("project")
    assert await vault.secret(ANTHROPIC, "/other") == SecretValue("user")
    assert await vault.secret(ANTHROPIC, "") == SecretValue("user")


async def test_what_is_not_stored_is_missing_with_the_way_out(vault: Vault) -> None:
    found = await vault.secret(ANTHROPIC, "")

    assert isinstance(found, Missing)
    assert found.how == "lns connect anthropic"
    assert not await vault.is_connected(ANTHROPIC, "")


def sent_to(definition: IntegrationDefinition, *domains: str) -> IntegrationDefinition:
    assert definition.credential is not None
    rules = tuple(InjectionRule(kind=InjectionKind.BEARER, domain=one) for one in domains)
    return replace(definition, credential=replace(definition.credential, injections=rules))


async def test_a_secret_goes_only_where_it_was_stored_for(vault: Vault) -> None:
    await vault.put_value(key(), sent_to(ANTHROPIC, "*.a.example"), "secret")

    narrower = sent_to(ANTHROPIC, "api.a.example")
    wider = sent_to(ANTHROPIC, "api.a.example", "evil.example")
    assert await vault.secret(narrower, "") == SecretValue("secret")
    found = await vault.secret(wider, "")
    assert isinstance(found, Missing)
    assert "it was stored for other hosts than" in found.why
    assert not await vault.is_connected(wider, "")


async def test_an_integration_without_a_credential_takes_none(vault: Vault) -> None:
    with pytest.raises(RequestInvalid, match="needs no credential"):
        await vault.put_value(key(), replace(ANTHROPIC, credential=None), "secret")


async def test_a_command_runs_once_for_ten_who_need_it_and_again_when_its_output_ends(
    vault: Vault, commands: Commands, clock: Clock
) -> None:
    await vault.put_command(key(), ANTHROPIC, "op")
    commands.runs = 0

    found = await asyncio.gather(*(vault.secret(ANTHROPIC, "") for _ in range(10)))

    assert commands.runs == 1
    assert {one.value for one in found if isinstance(one, SecretValue)} == {"op-1"}
    clock.now += timedelta(seconds=269)
    await vault.secret(ANTHROPIC, "")
    assert commands.runs == 1
    clock.now += timedelta(seconds=2)
    await vault.secret(ANTHROPIC, "")
    assert commands.runs == 2


async def test_a_command_that_fails_is_not_stored(
    vault: Vault, commands: Commands, records: Records
) -> None:
    commands.fails = True

    with pytest.raises(CredentialUnusable):
        await vault.put_command(key(), ANTHROPIC, "op")

    assert records.kept == {}


async def test_a_command_that_fails_later_is_missing_with_the_reason(
    vault: Vault, commands: Commands, clock: Clock
) -> None:
    await vault.put_command(key(), ANTHROPIC, "op")
    commands.fails = True
    clock.now += timedelta(hours=1)

    found = await vault.secret(ANTHROPIC, "")

    assert isinstance(found, Missing)
    assert "the command ended with status 1" in found.why


async def test_tokens_are_renewed_before_their_end_and_the_new_ones_kept(
    vault: Vault, issuer: Issuer, clock: Clock, records: Records
) -> None:
    first = Tokens(access=SecretValue("access-0", START + timedelta(hours=1)), refresh="refresh-0")
    await vault.put_tokens(key(integration="tracker"), OAUTH, first)

    assert await vault.secret(OAUTH, "") == SecretValue("access-0", START + timedelta(hours=1))
    clock.now += timedelta(minutes=59, seconds=40)
    found = await asyncio.gather(*(vault.secret(OAUTH, "") for _ in range(10)))

    assert issuer.refreshed == ["refresh-0"]
    assert {one.value for one in found if isinstance(one, SecretValue)} == {"access-1"}
    assert records.kept[key(integration="tracker")].secret == "refresh-1"


async def test_who_follows_gets_each_change_once(vault: Vault) -> None:
    following = vault.follow(ANTHROPIC, "")
    seen: list[Any] = [await anext(following)]
    await vault.put_value(key(), ANTHROPIC, "one")
    seen.append(await anext(following))
    await vault.put_value(key("/elsewhere"), ANTHROPIC, "not here")
    await vault.put_value(key(), ANTHROPIC, "two")
    seen.append(await anext(following))
    await vault.remove(key())
    seen.append(await anext(following))

    assert isinstance(seen[0], Missing)
    assert seen[1:3] == [SecretValue("one"), SecretValue("two")]
    assert isinstance(seen[3], Missing)


async def test_what_is_listed_and_removed(vault: Vault) -> None:
    await vault.put_value(key(), ANTHROPIC, "one")

    (listed,) = await vault.list()
    assert listed.domains == ("api.anthropic.com",)
    assert await vault.remove(key())
    assert not await vault.remove(key())
    assert await vault.list() == ()
