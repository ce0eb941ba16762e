"""Logins lie in one private file that is whole or absent, and is never reached through a link."""

import json
import os
import stat
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from services.core.errors import SettingsInvalid
from services.registry_gateway.adapters.credentials.login_file import LoginFile
from services.registry_gateway.login_ports import Credential, StoredLogin

ME = Credential(username="me", secret='secret: with "quotes" and ü')
TOKEN = Credential(username="", secret="identity")


class MemoryKeyring:
    """Implements `Keyring`."""

    def __init__(self) -> None:
        self.kept: dict[str, Credential] = {}

    def find(self, host: str, repository: str = "") -> Credential | None:
        return self.kept.get(host)

    def put(self, host: str, credential: Credential) -> None:
        self.kept[host] = credential

    def remove(self, host: str) -> None:
        self.kept.pop(host, None)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "home" / "logins.json"


@pytest.fixture
def logins(path: Path) -> LoginFile:
    return LoginFile(path, None, prefer_keyring=False)


def found(logins: LoginFile, host: str) -> tuple[str, str] | None:
    credential = logins.find(host)
    return credential and (credential.username, credential.secret)


def test_without_a_file_there_are_no_logins(logins: LoginFile, path: Path) -> None:
    assert logins.find("a.example") is None
    assert logins.list_logins() == []
    assert logins.remove("a.example") is False
    assert not path.parent.exists()


def test_a_login_is_found_under_its_host_only(logins: LoginFile, path: Path) -> None:
    assert logins.put("b.example:5000", ME).stored_in == "file"
    logins.put("a.example", TOKEN)

    assert found(logins, "b.example:5000") == ("me", ME.secret)
    assert found(logins, "a.example") == ("", "identity")
    for host in ("b.example", "b.example:5001", "x.b.example:5000", ""):
        assert logins.find(host) is None
    assert logins.list_logins() == [
        StoredLogin(registry="a.example", username="", stored_in="file", location=str(path)),
        StoredLogin(registry="b.example:5000", username="me", stored_in="file", location=str(path)),
    ]


@pytest.mark.parametrize("mask", [0o000, 0o077])
def test_the_file_is_private_whatever_the_umask(logins: LoginFile, path: Path, mask: int) -> None:
    before = os.umask(mask)
    try:
        logins.put("a.example", ME)
        logins.put("b.example", ME)
    finally:
        os.umask(before)

    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert [one.name for one in path.parent.iterdir() if one.name.startswith(".tmp")] == []


def test_a_removed_login_is_gone_from_the_file(logins: LoginFile, path: Path) -> None:
    logins.put("a.example", ME)
    logins.put("b.example", TOKEN)

    assert logins.remove("a.example") is True
    assert logins.find("a.example") is None
    assert "with" not in path.read_text()
    assert found(logins, "b.example") == ("", "identity")


@pytest.mark.parametrize("target", ["real.json", "absent.json"])
def test_a_link_is_refused_and_its_target_left_alone(
    logins: LoginFile, path: Path, target: str
) -> None:
    path.parent.mkdir()
    real = path.parent / "real.json"
    real.write_text("{}")
    path.symlink_to(path.parent / target)

    for act in (lambda: logins.find("a"), lambda: logins.put("a", ME), logins.list_logins):
        with pytest.raises(SettingsInvalid, match="symbolic link"):
            act()
    assert real.read_text() == "{}"
    assert not (path.parent / "absent.json").exists()


@pytest.mark.parametrize("mode", [0o644, 0o640, 0o604, 0o660, 0o620])
def test_a_file_that_others_may_touch_is_refused(logins: LoginFile, path: Path, mode: int) -> None:
    logins.put("a.example", ME)
    path.chmod(mode)

    with pytest.raises(SettingsInvalid) as caught:
        logins.find("a.example")
    assert caught.value.hint == f"chmod 600 {path}"


@pytest.mark.parametrize("make", [Path.mkdir, os.mkfifo], ids=["directory", "fifo"])
def test_what_is_no_file_is_refused(
    logins: LoginFile, path: Path, make: Callable[[Path], object]
) -> None:
    path.parent.mkdir()
    make(path)

    with pytest.raises(SettingsInvalid):
        logins.find("a.example")


@pytest.mark.parametrize(
    "content",
    [
        "",
        "{",
        "[]",
        "{}",
        '{"version": 2, "logins": {}}',
        '{"version": 1, "logins": []}',
        '{"version": 1, "logins": {"a": "b"}}',
        '{"version": 1, "logins": {"a": {}}}',
        '{"version": 1, "logins": {"a": {"username": 1, "secret": "x"}}}',
        '{"version": 1, "logins": {"a": {"username": "x", "secret": 1}}}',
        "[" * 100_000,
        "\0",
    ],
    ids=lambda text: text[:40],
)
def test_a_file_of_something_else_is_refused_and_kept(
    logins: LoginFile, path: Path, content: str
) -> None:
    path.parent.mkdir()
    path.write_text(content)
    path.chmod(0o600)

    with pytest.raises(SettingsInvalid):
        logins.put("a.example", ME)
    assert path.read_text() == content


def test_two_writers_lose_nothing(path: Path) -> None:
    def write(number: int) -> None:
        LoginFile(path, None, prefer_keyring=False).put(f"host{number}.example", ME)

    threads = [threading.Thread(target=write, args=(number,)) for number in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert len(LoginFile(path, None, prefer_keyring=False).list_logins()) == 12


def test_a_secret_goes_to_the_keyring_where_that_is_wanted(path: Path) -> None:
    keyring = MemoryKeyring()
    logins = LoginFile(path, keyring, prefer_keyring=True)

    assert logins.put("a.example", ME).stored_in == "keyring"

    assert keyring.kept == {"a.example": ME}
    assert ME.secret not in json.dumps(json.loads(path.read_text()), ensure_ascii=False)
    assert logins.list_logins() == [
        StoredLogin(
            registry="a.example",
            username="me",
            stored_in="keyring",
            location="the keyring, service lns-registry",
        )
    ]
    assert logins.find("a.example") is None, "the keyring is asked itself"
    assert logins.remove("a.example") is True
    assert keyring.kept == {}


def test_without_a_keyring_the_file_is_used(path: Path) -> None:
    assert LoginFile(path, None, prefer_keyring=True).put("a.example", ME).location == str(path)
