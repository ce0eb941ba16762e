"""The files of credentials and integrations: private, whole, and never overwritten when strange."""

import json
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from services.chassis.blocking import Blocking
from services.core.errors import ArtifactInvalid, CredentialUnusable, SettingsInvalid
from services.core.integrations.user_file import UserFile
from services.vm_runner.adapters.credentials.credential_file import CredentialFile
from services.vm_runner.adapters.credentials.integration_file import IntegrationFile
from services.vm_runner.credentials.credential import Credential, CredentialKey, Source

CREDENTIAL = Credential(
    key=CredentialKey(integration="anthropic", project="/home/me/a project"),
    source=Source.OAUTH,
    domains=("api.anthropic.com",),
    create_time=datetime(2026, 1, 1, tzinfo=UTC),
    secret="refresh",
    access_token="access",
    expire_time=datetime(2026, 1, 2, tzinfo=UTC),
)
DOCUMENT: dict[str, Any] = {
    "apiVersion": "lens.dev/v1alpha1",
    "kind": "Integration",
    "metadata": {"name": "tracker"},
    "spec": {
        "authKind": "credential",
        "routes": [{"match": "a.example"}],
        "credential": {
            "envVar": "TOKEN",
            "placeholder": "placeholder",
            "injections": [{"kind": "bearer_header", "domain": "a.example"}],
        },
    },
}


class MemoryKeyring:
    """A keyring in memory."""

    def __init__(self) -> None:
        self.kept: dict[str, str] = {}

    def find(self, name: str) -> str | None:
        return self.kept.get(name)

    def put(self, name: str, secret: str) -> None:
        self.kept[name] = secret

    def remove(self, name: str) -> None:
        self.kept.pop(name, None)


@pytest.fixture
def blocking() -> Iterator[Blocking]:
    with Blocking(2) as threads:
        yield threads


def credential_file(path: Path, blocking: Blocking) -> CredentialFile:
    return CredentialFile(path, blocking=blocking, keyring=lambda: None)


async def test_what_is_stored_is_found_as_it_was(tmp_path: Path, blocking: Blocking) -> None:
    path = tmp_path / "deep" / "credentials.json"
    store = credential_file(path, blocking)

    await store.put(CREDENTIAL)

    assert await credential_file(path, blocking).find(CREDENTIAL.key) == CREDENTIAL
    assert await store.list() == [CREDENTIAL]
    assert await store.find(CredentialKey(integration="anthropic")) is None
    assert path.stat().st_mode & 0o7777 == 0o600
    assert await store.remove(CREDENTIAL.key)
    assert not await store.remove(CREDENTIAL.key)
    assert "refresh" not in path.read_text()


async def test_the_keyring_has_the_secret_and_the_file_has_not(
    tmp_path: Path, blocking: Blocking
) -> None:
    keyring = MemoryKeyring()
    path = tmp_path / "credentials.json"
    store = CredentialFile(path, blocking=blocking, keyring=lambda: keyring, prefer_keyring=True)

    stored = await store.put(CREDENTIAL)

    assert stored.stored_in == "keyring"
    assert "refresh" not in path.read_text()
    assert "access" not in json.loads(path.read_text())["credentials"].values()
    found = await store.find(CREDENTIAL.key)
    assert found is not None
    assert found.secret == "refresh"
    keyring.kept.clear()
    with pytest.raises(CredentialUnusable, match="locked"):
        await store.find(CREDENTIAL.key)
    assert await store.remove(CREDENTIAL.key)


async def test_without_a_keyring_its_use_is_refused(tmp_path: Path, blocking: Blocking) -> None:
    store = CredentialFile(
        tmp_path / "c.json", blocking=blocking, keyring=lambda: None, prefer_keyring=True
    )

    with pytest.raises(CredentialUnusable, match="no OS keyring"):
        await store.put(CREDENTIAL)

    assert not (tmp_path / "c.json").exists()


STRANGE = [
    "",
    "{",
    "[]",
    "{}",
    '{"version": 2, "credentials": {}}',
    '{"version": 1, "credentials": []}',
    '{"version": 1, "credentials": {"a": "secret"}}',
    '{"version": 1, "credentials": {"a": {"source": "magic", "domains": []}}}',
    '{"version": 1, "credentials": {"a": {"source": "value", "domains": [1]}}}',
    '{"version": 1, "credentials": {"a": {"source": "value", "domains": [], "create_time": "x"}}}',
    (
        '{"version": 1, "credentials": {"a": {"source": "value", "domains": [], "create_time":'
        ' "2026-01-01T00:00:00+00:00", "secret": 1}}}'
    ),
]


@pytest.mark.parametrize("text", STRANGE)
async def test_a_strange_file_is_refused_and_left_as_it_is(
    tmp_path: Path, blocking: Blocking, text: str
) -> None:
    path = tmp_path / "c.json"
    path.write_text(text)
    path.chmod(0o600)
    store = credential_file(path, blocking)

    for use in (store.list(), store.find(CREDENTIAL.key), store.put(CREDENTIAL)):
        with pytest.raises(SettingsInvalid, match="is not a file of credentials of this lns"):
            await use

    assert path.read_text() == text


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o666])
async def test_a_file_that_others_can_read_is_refused(
    tmp_path: Path, blocking: Blocking, mode: int
) -> None:
    path = tmp_path / "c.json"
    await credential_file(path, blocking).put(CREDENTIAL)
    path.chmod(mode)

    with pytest.raises(SettingsInvalid, match="can be read by others") as caught:
        await credential_file(path, blocking).find(CREDENTIAL.key)

    assert caught.value.hint == f"chmod 600 {path}"


async def test_a_link_is_never_followed(tmp_path: Path, blocking: Blocking) -> None:
    path = tmp_path / "c.json"
    path.symlink_to(tmp_path / "elsewhere")

    with pytest.raises(SettingsInvalid, match="is a symbolic link"):
        await credential_file(path, blocking).put(CREDENTIAL)

    assert not (tmp_path / "elsewhere").exists()


async def test_integrations_are_added_replaced_and_removed(
    tmp_path: Path, blocking: Blocking
) -> None:
    records = IntegrationFile(tmp_path / "i.yaml", blocking=blocking)

    assert await records.read() == UserFile()
    await records.put("tracker", DOCUMENT)
    await records.put("tracker", DOCUMENT)

    assert (await records.read()).documents == {"tracker": DOCUMENT}
    assert await records.remove("tracker")
    assert not await records.remove("tracker")


async def test_prices_of_the_users_stay_when_integrations_change(
    tmp_path: Path, blocking: Blocking
) -> None:
    path = tmp_path / "i.yaml"
    path.write_text(
        "version: 1\nintegrations: []\n"
        "prices:\n  anthropic:\n    claude-*: {input: 0.1, output: 2}\n"
    )
    records = IntegrationFile(path, blocking=blocking)

    await records.put("tracker", DOCUMENT)
    await records.remove("tracker")

    assert await records.read() == UserFile(
        prices={"anthropic": {"claude-*": {"input": 0.1, "output": 2}}}
    )


@pytest.mark.parametrize("text", ["version: 2\nintegrations: []\n", "[", "integrations: {}\n"])
async def test_a_strange_file_of_integrations_is_left_as_it_is(
    tmp_path: Path, blocking: Blocking, text: str
) -> None:
    path = tmp_path / "i.yaml"
    path.write_text(text)

    with pytest.raises(ArtifactInvalid):
        await IntegrationFile(path, blocking=blocking).put("tracker", DOCUMENT)

    assert path.read_text() == text
