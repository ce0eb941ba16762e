"""Logins of other tools are read as those tools write them, and never stop anything."""

import base64
import json
import re
from pathlib import Path
from typing import Any

import pytest

from services.registry_gateway.adapters.credentials import docker_config
from services.registry_gateway.adapters.credentials.docker_config import DockerConfig
from tests.support.credential_helpers import Behaviour, Login, write_helper

HOST = "registry.example:5000"


def encoded(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


def config(path: Path, document: Any) -> DockerConfig:
    path.write_text(json.dumps(document))
    return DockerConfig(path, name="docker")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "config.json"


@pytest.mark.parametrize(
    ("entry", "expected"),
    [
        ({"auth": encoded("me:secret")}, ("me", "secret")),
        ({"auth": encoded("me:with:colons:")}, ("me", "with:colons:")),
        ({"auth": encoded("mé:ü")}, ("mé", "ü")),
        ({"auth": encoded("me:secret\0\0")}, ("me", "secret")),
        ({"username": "me", "password": "secret"}, ("me", "secret")),
        ({"auth": encoded("me:x"), "username": "other", "password": "y"}, ("me", "x")),
        ({"identitytoken": "token", "auth": encoded("0000:")}, ("", "token")),
        ({"auth": encoded("me:secret") + "\n"}, ("me", "secret")),
        ({"auth": encoded("me:secret")[:4] + "\r\n" + encoded("me:secret")[4:]}, ("me", "secret")),
        ({}, None),
        ({"auth": ""}, None),
        ({"auth": encoded("nocolon")}, None),
        ({"auth": encoded(":secret")}, None),
        ({"auth": "%%%"}, None),
        ({"auth": base64.b64encode(b"\xff\xfe:x").decode()}, None),
        ({"username": "me"}, None),
        ({"username": 1, "password": 2}, None),
        ("text", None),
        (None, None),
    ],
    ids=str,
)
def test_an_entry_is_read_in_each_of_its_forms(
    path: Path, entry: Any, expected: tuple[str, str] | None
) -> None:
    found = config(path, {"auths": {HOST: entry}}).find(HOST)

    assert (found and (found.username, found.secret)) == expected


@pytest.mark.parametrize(
    ("key", "host", "expected"),
    [
        (HOST, HOST, True),
        (f"https://{HOST}", HOST, True),
        (f"https://{HOST}/v2/", HOST, True),
        (f"{HOST}/", HOST, True),
        (f"{HOST}/v1/", HOST, True),
        (f"{HOST}/v2", HOST, True),
        (f"http://{HOST}/v1/", HOST, True),
        (f"https://{HOST}/any/path", HOST, True),
        ("https://index.docker.io/v1/", "docker.io", True),
        ("docker.io", "docker.io", True),
        ("index.docker.io", "docker.io", True),
        ("registry.example", HOST, False),
        (f"evil.{HOST}", HOST, False),
        (f"{HOST}.evil", HOST, False),
        (f"{HOST}/namespace", HOST, False),
    ],
)
def test_a_key_names_a_registry(path: Path, key: str, host: str, *, expected: bool) -> None:
    logins = config(path, {"auths": {key: {"auth": encoded("me:x")}}})

    assert (logins.find(host) is not None) is expected


@pytest.mark.parametrize(
    ("repository", "expected"),
    [
        ("", "host"),
        ("other", "host"),
        ("other/team", "host"),
        ("team", "team"),
        ("team/app", "team"),
        ("team/app/part", "team"),
        ("team/repo", "repo"),
        ("team/repo/part", "repo"),
        ("teams", "host"),
        ("tea", "host"),
    ],
)
def test_the_longest_key_with_a_path_stands_for_a_repository(
    path: Path, repository: str, expected: str
) -> None:
    auths = {
        HOST: {"auth": encoded("me:host")},
        f"{HOST}/team": {"auth": encoded("me:team")},
        f"{HOST}/team/repo": {"auth": encoded("me:repo")},
        "elsewhere.example/other": {"auth": encoded("me:elsewhere")},
    }

    found = config(path, {"auths": auths}).find(HOST, repository)

    assert found is not None
    assert found.secret == expected


def test_a_key_with_a_path_opens_nothing_beside_it(path: Path) -> None:
    logins = config(path, {"auths": {f"{HOST}/team": {"auth": encoded("me:x")}}})

    assert logins.find(HOST) is None
    assert logins.find(HOST, "team2") is None
    assert logins.find("other.example", "team") is None


def test_a_key_with_a_path_that_has_no_login_leaves_it_to_the_shorter_one(path: Path) -> None:
    auths = {f"{HOST}/team/repo": {}, f"{HOST}/team": {"auth": encoded("me:team")}}

    found = config(path, {"auths": auths}).find(HOST, "team/repo")

    assert found is not None
    assert found.secret == "team"


def test_a_path_on_the_hub_is_that_of_its_reference(path: Path) -> None:
    auths = {"docker.io/library": {"auth": encoded("me:library")}}

    assert config(path, {"auths": auths}).find("docker.io", "library/debian") is not None
    assert config(path, {"auths": auths}).find("docker.io", "me/debian") is None


@pytest.fixture
def helpers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory on PATH for helpers."""
    folder = tmp_path / "bin"
    monkeypatch.setenv("PATH", f"{folder}:/usr/bin:/bin")
    return folder


def login(username: str, secret: str) -> Login:
    return Login(username=username, secret=secret)


def test_a_helper_of_a_host_comes_before_the_store_of_all(path: Path, helpers: Path) -> None:
    write_helper(helpers, "one", logins={HOST: login("one", "1")})
    write_helper(
        helpers, "all", logins={HOST: login("all", "2"), "other.example": login("all", "3")}
    )
    logins = config(path, {"credHelpers": {HOST: "one"}, "credsStore": "all"})

    first, second = logins.find(HOST), logins.find("other.example")

    assert first is not None
    assert second is not None
    assert (first.username, first.secret) == ("one", "1")
    assert (second.username, second.secret) == ("all", "3")
    assert second.stored_in == "docker-credential-all"


def test_a_key_with_a_path_comes_before_the_helper_of_its_host(path: Path, helpers: Path) -> None:
    write_helper(helpers, "one", logins={HOST: login("one", "1")})
    auths = {f"{HOST}/team": {"auth": encoded("me:team")}}
    logins = config(path, {"credHelpers": {HOST: "one"}, "auths": auths})

    found = [logins.find(HOST, repository) for repository in ("team/app", "app")]

    assert [one and one.username for one in found] == ["me", "one"]


def test_a_helper_that_says_token_gives_an_identity_token(path: Path, helpers: Path) -> None:
    write_helper(helpers, "one", logins={HOST: Login.identity_token("identity")})
    found = config(path, {"credsStore": "one"}).find(HOST)

    assert found is not None
    assert (found.is_identity_token, found.secret) == (True, "identity")


def test_the_hub_is_asked_for_by_the_name_that_docker_gives_it(path: Path, helpers: Path) -> None:
    helper = write_helper(helpers, "one", logins={"https://index.docker.io/v1/": login("me", "x")})

    assert config(path, {"credsStore": "one"}).find("docker.io") is not None
    assert helper.calls == [("get", "https://index.docker.io/v1/")]


@pytest.mark.parametrize("behaviour", [one for one in Behaviour if one is not Behaviour.WORKS])
def test_a_helper_that_fails_is_passed_over(
    path: Path,
    helpers: Path,
    behaviour: Behaviour,
    monkeypatch: pytest.MonkeyPatch,
    log_entries: list[dict[str, object]],
) -> None:
    monkeypatch.setattr(docker_config, "_HELPER_SECONDS", 0.5)
    write_helper(helpers, "one", logins={HOST: login("me", "canary")}, behaviour=behaviour)
    entry = {"auth": encoded("me:from the file")}
    logins = config(path, {"credsStore": "one", "auths": {HOST: entry}})

    found = logins.find(HOST)

    assert found is not None
    assert found.secret == "from the file"
    assert "canary" not in repr(log_entries)


@pytest.mark.parametrize("name", ["../one", "/bin/sh", "", "-x", "a b", "x" * 100, 7, ["a"]])
def test_a_name_that_is_no_helper_is_never_run(path: Path, name: Any) -> None:
    assert config(path, {"credHelpers": {HOST: name}}).find(HOST) is None


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"\xff", b"[" * 100_000, b'{"auths": 7}'])
def test_a_file_that_is_broken_has_no_logins(path: Path, content: bytes) -> None:
    path.write_bytes(content)

    assert DockerConfig(path, name="docker").find(HOST) is None


def test_an_empty_helper_name_says_that_the_host_has_none(path: Path, helpers: Path) -> None:
    write_helper(helpers, "all", logins={HOST: login("wrong", "wrong")})
    auths = {HOST: {"auth": encoded("me:right")}}
    document = {"auths": auths, "credHelpers": {HOST: ""}, "credsStore": "all"}

    found = config(path, document).find(HOST)

    assert found is not None
    assert found.secret == "right"


@pytest.mark.parametrize(
    ("document", "reason"),
    [
        ({"credsStore": "not-there"}, "docker-credential-not-there, which .* is not installed"),
        ({"credHelpers": {HOST: "../x"}}, "a credential helper that cannot be one"),
        ({"auths": {HOST: {"auth": "%%%"}}}, "is no login"),
        ([], "not a JSON object"),
    ],
)
def test_what_kept_a_login_from_being_found_is_reported(
    path: Path, document: Any, reason: str
) -> None:
    logins = config(path, document)

    assert logins.find(HOST) is None
    (problem,) = logins.problems(HOST)
    assert re.search(reason, problem)


@pytest.mark.parametrize("content", [b"{", b"\xff", b"[" * 100_000])
def test_a_broken_file_is_reported_as_one(path: Path, content: bytes) -> None:
    path.write_bytes(content)

    assert DockerConfig(path, name="docker").problems(HOST) == [f"{path} is not JSON"]


def test_what_is_merely_absent_is_no_problem(path: Path, helpers: Path) -> None:
    write_helper(helpers, "one", logins={})

    assert config(path, {"credsStore": "one"}).problems(HOST) == []
    assert DockerConfig(path.with_name("none"), name="docker").problems(HOST) == []


def test_a_file_that_does_not_exist_has_no_logins(path: Path) -> None:
    assert DockerConfig(path, name="docker").find(HOST) is None


def test_a_change_of_the_file_shows_at_once(path: Path) -> None:
    logins = config(path, {})
    assert logins.find(HOST) is None
    config(path, {"auths": {HOST: {"auth": encoded("me:x")}}})
    assert logins.find(HOST) is not None
