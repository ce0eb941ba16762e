"""The gateway's settings come from a file and the environment, and are checked."""

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
