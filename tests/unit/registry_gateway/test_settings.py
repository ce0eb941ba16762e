"""The gateway's settings come from a file and the environment, and are checked."""

import dataclasses
from pathlib import Path

import pytest

from services.chassis.settings import SECTIONS
from services.chassis.settings_tree import load
from services.core.errors import SettingsInvalid
from services.registry_gateway.settings import GatewayProcess, GatewaySettings

HOME = {"HOME": "/home/me", "LNS_HOME": "/state"}


def loaded(tmp_path: Path, text: str = "", **environment: str) -> GatewaySettings:
    file = tmp_path / "lns.yaml"
    file.write_text(text or "{}")
    process = load(
        GatewayProcess,
        file=file,
        environment=HOME | environment,
        foreign=SECTIONS - {"registry_gateway"},
    )
    return process.registry_gateway


@pytest.mark.parametrize("text", ["", "registry_gateway: {attempts: 3}"])
def test_the_files_of_logins_are_this_user_s(tmp_path: Path, text: str) -> None:
    settings = loaded(tmp_path, text)

    assert settings.auth_path == Path("/home/me/.lns-registry-auth.json")
    assert settings.docker_config == Path("/home/me/.docker/config.json")
    assert settings.auth_file == Path("/home/me/.config/containers/auth.json")
    assert settings.docker_socket == Path("/var/run/docker.sock")


def test_the_variables_of_other_tools_are_heeded(tmp_path: Path) -> None:
    settings = loaded(
        tmp_path,
        LNS_REGISTRY_AUTH_PATH="/a/logins.json",
        LNS_REGISTRY_PLAIN_HTTP="a.example, b.example:5000",
        DOCKER_CONFIG="/d",
        REGISTRY_AUTH_FILE="/r/auth.json",
        DOCKER_HOST="unix:///run/user/1/docker.sock",
    )

    assert settings.auth_path == Path("/a/logins.json")
    assert settings.plain_http == ("a.example", "b.example:5000")
    assert settings.docker_config == Path("/d/config.json")
    assert settings.auth_file == Path("/r/auth.json")
    assert settings.docker_socket == Path("/run/user/1/docker.sock")


def test_podman_s_logins_are_looked_for_where_it_keeps_them(tmp_path: Path) -> None:
    settings = loaded(tmp_path, XDG_RUNTIME_DIR="/run/user/1", DOCKER_HOST="tcp://10.0.0.1:2376")

    assert settings.auth_file == Path("/run/user/1/containers/auth.json")
    assert settings.docker_socket == Path("/var/run/docker.sock")


@pytest.mark.parametrize(
    "setting",
    [
        "plain_http: [a/b]",
        "plain_http: ['user@a.example']",
        "loopback_tls: ['']",
        "default_registry: a b",
        "mirrors: {docker.io: [a/b]}",
        "mirrors: {a/b: [mirror.example]}",
        "platform: a/b/c/d",
        "attempts: 0",
        "parallel_blobs: 65",
        "upload_chunk: 1B",
        "range_size: 2GiB",
        "unknown: 1",
    ],
)
def test_a_setting_that_cannot_be_is_refused(tmp_path: Path, setting: str) -> None:
    with pytest.raises(SettingsInvalid):
        loaded(tmp_path, f"registry_gateway: {{{setting}}}")


def test_a_callers_variables_count_as_if_it_had_started_the_gateway() -> None:
    own = {"HOME": "/own", "DOCKER_CONFIG": "/own/docker", "HTTPS_PROXY": "http://own:1"}
    settings = GatewaySettings.of_environment(own)
    caller = {
        "HOME": "/caller",
        "LNS_REGISTRY_AUTH_PATH": "/caller/x.json",
        "LNS_REGISTRY_PLAIN_HTTP": "a.example, b.example:5000",
        "REGISTRY_AUTH_FILE": "/caller/auth.json",
        "https_proxy": "http://caller:1",
        "NO_PROXY": "a.example,.b.example",
    }

    found = settings.of_caller(own, caller)

    assert found.auth_path == Path("/caller/x.json")
    assert found.plain_http == ("a.example", "b.example:5000")
    assert found.docker_config == Path("/caller/.docker/config.json")
    assert found.auth_file == Path("/caller/auth.json")
    assert (found.https_proxy, found.http_proxy) == ("http://caller:1", "")
    assert found.no_proxy == ("a.example", ".b.example")


def test_what_a_file_of_settings_says_stays_where_no_variable_wins() -> None:
    settings = dataclasses.replace(
        GatewaySettings.of_environment({"HOME": "/own"}),
        docker_config=Path("/file/config.json"),
        https_proxy="http://file:1",
        auth_path=Path("/file/logins.json"),
    )

    kept = settings.of_caller({"HOME": "/own"}, {"HOME": "/own", "HTTPS_PROXY": "http://x:1"})
    won = settings.of_caller({"HOME": "/own"}, {"LNS_REGISTRY_AUTH_PATH": "/caller.json"})

    assert (kept.docker_config, kept.https_proxy) == (Path("/file/config.json"), "http://file:1")
    assert kept.auth_path == Path("/file/logins.json")
    assert won.auth_path == Path("/caller.json")
