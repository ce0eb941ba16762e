"""The OS keyring through the keyring library, with a backend of the test's own."""

from collections.abc import Iterator

import keyring
import keyring.backend
import keyring.errors
import pytest
from keyring.backends import fail

from services.registry_gateway.adapters.credentials.os_keyring import open_keyring
from services.registry_gateway.login_ports import Credential

ME = Credential(username="me", secret="with:colons")


class Backend(keyring.backend.KeyringBackend):
    """A keyring in memory, which may be locked."""

    priority = 5  # type: ignore[assignment]  # a class property in the library

    def __init__(self) -> None:
        super().__init__()
        self.kept: dict[tuple[str, str], str] = {}
        self.locked = False

    def get_password(self, service: str, username: str) -> str | None:
        if self.locked:
            raise keyring.errors.KeyringLocked
        return self.kept.get((service, username))

    def set_password(self, service: str, username: str, password: str) -> None:
        self.kept[service, username] = password

    def delete_password(self, service: str, username: str) -> None:
        if (service, username) not in self.kept:
            raise keyring.errors.PasswordDeleteError
        del self.kept[service, username]


@pytest.fixture
def backend() -> Iterator[Backend]:
    before, made = keyring.get_keyring(), Backend()
    keyring.set_keyring(made)
    yield made
    keyring.set_keyring(before)


def test_a_credential_is_kept_by_its_host(backend: Backend) -> None:
    opened = open_keyring()
    assert opened is not None
    opened.put("a.example", ME)

    found = opened.find("a.example")
    assert found is not None
    assert (found.username, found.secret, found.stored_in) == ("me", "with:colons", "keyring")
    assert opened.find("b.example") is None
    assert backend.kept == {("lns-registry", "a.example"): "me:with:colons"}

    for _ in range(2):
        opened.remove("a.example")
    assert opened.find("a.example") is None


def test_an_identity_token_has_no_user_name(backend: Backend) -> None:
    opened = open_keyring()
    assert opened is not None
    opened.put("a.example", Credential(username="", secret="identity"))

    found = opened.find("a.example")
    assert found is not None
    assert found.is_identity_token


def test_a_locked_keyring_stops_nothing(backend: Backend) -> None:
    opened = open_keyring()
    assert opened is not None
    backend.locked = True

    assert opened.find("a.example") is None


def test_a_machine_without_a_keyring_has_none(backend: Backend) -> None:
    keyring.set_keyring(fail.Keyring())

    assert open_keyring() is None
