"""What `deploy/` says fits the services and itself."""

import re
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

from services.core.version import VERSION

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy"
COMPOSE: dict[str, Any] = yaml.safe_load((DEPLOY / "compose.yaml").read_text())
SERVICES = ("registry_gateway", "resolver", "materializer", "vm_runner")


def effective_settings(service: str, file: Path | None = None) -> dict[str, Any]:
    """What a service makes of settings, in an environment that says nothing."""
    result = subprocess.run(
        [
            sys.executable,
            "-m",
            f"services.{service}",
            "--print-config",
            "--config",
            file or DEPLOY / "config" / f"{service}.yaml",
        ],
        cwd=ROOT,
        env={"HOME": "/nonexistent", "PYTHONPATH": f"{ROOT}:{ROOT / 'protos' / 'gen'}"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    settings = yaml.safe_load(result.stdout)
    assert isinstance(settings, dict)
    return settings


@pytest.mark.parametrize("service", SERVICES)
def test_example_settings_load_and_listen_where_compose_looks(service: str) -> None:
    settings = effective_settings(service)
    container = COMPOSE["services"][service]

    assert settings["server"]["listen"] == [container["healthcheck"]["test"][-1]]
    assert settings["server"]["listen"] == [f"unix:/run/lns/{service}.sock"]
    assert container["command"] == ["--config", f"/etc/lns/{service}.yaml"]


def test_services_meet_where_they_listen() -> None:
    targets = {
        peer["target"]
        for service in SERVICES
        for peer in effective_settings(service)[service].values()
        if isinstance(peer, dict) and "target" in peer
    }
    environment = COMPOSE["services"]["lns"]["environment"]
    targets |= {value for name, value in environment.items() if name.startswith("LNS_ENDPOINT_")}

    assert targets == {f"unix:/run/lns/{service}.sock" for service in SERVICES}


def test_the_dockerfile_has_a_target_for_all_that_compose_builds() -> None:
    dockerfile = (DEPLOY / "Dockerfile").read_text()
    targets = set(re.findall(r"^FROM base AS (\w+)$", dockerfile, re.MULTILINE))

    built = {
        service["build"]["target"] for service in COMPOSE["services"].values() if "build" in service
    }

    assert built == targets == {*SERVICES, "cli"}


def test_everything_that_is_deployed_has_one_version() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    arguments = re.findall(r"^ARG VERSION=(.+)$", (DEPLOY / "Dockerfile").read_text(), re.MULTILINE)
    tags = [
        service["image"].partition(":")[2]
        for service in COMPOSE["services"].values()
        if "build" in service
    ]
    base = yaml.safe_load((DEPLOY / "kubernetes" / "base" / "kustomization.yaml").read_text())
    cluster = {image["name"]: image["newTag"] for image in base["images"]}

    assert {VERSION, *arguments, *tags, *cluster.values()} == {project}
    assert cluster.keys() == {f"lns/{service}" for service in SERVICES}


def test_compose_over_tls_listens_where_compose_alone_does_and_on_a_port() -> None:
    overlay = yaml.safe_load((DEPLOY / "compose.tls.yaml").read_text())["services"]
    ports = {}
    for service in SERVICES:
        local, network = overlay[service]["environment"]["LNS_SERVER__LISTEN"].split(",")
        settings = effective_settings(service)
        assert settings["server"]["listen"] == [local]
        assert settings["server"]["allow"] == {"*": ["client.lns"]}
        ports[service] = network.rpartition(":")[2]
    published = {
        port.split(":")[-1] for service in overlay.values() for port in service.get("ports", ())
    }

    assert published == set(ports.values())
    assert len(published) == len(SERVICES)


@pytest.mark.parametrize("name", [*SERVICES])
def test_no_container_may_do_more_than_it_must(name: str) -> None:
    container = COMPOSE["services"][name]

    assert container["cap_drop"] == ["ALL"]
    assert container["read_only"] is True
    assert "no-new-privileges:true" in container["security_opt"]
    assert "ports" not in container


def test_the_registry_is_published_on_loopback_only() -> None:
    ports = COMPOSE["services"]["registry"]["ports"]

    assert [port.split(":")[0] for port in ports] == ["127.0.0.1"]
