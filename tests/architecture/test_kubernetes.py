"""What `deploy/kubernetes` says is valid, fits the services, and grants no more than is listed."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

from tests.architecture.test_deploy import SERVICES, effective_settings
from tests.support.outcomes import passes

FOLDER = Path(__file__).parents[2] / "deploy" / "kubernetes"
FOREIGN = ("cert-manager.io/", "monitoring.coreos.com/", "kustomize.config.k8s.io/")
HOST_PATHS = {"/var/lib/lns": "the node's store", "/run/lns": "the sockets of the node"}
AS_ROOT = {"folders": "makes the two folders of the node belong to user 10001"}


def documents(pattern: str) -> Iterator[tuple[str, dict[str, Any]]]:
    for path in sorted(FOLDER.glob(pattern)):
        for document in yaml.safe_load_all(path.read_text()):
            yield f"{path.relative_to(FOLDER)}:{document.get('kind', '')}", document


FOLDERS = ["base", *sorted(f"overlays/{one.name}" for one in (FOLDER / "overlays").iterdir())]
BASE = dict(documents("base/*.yaml"))
PODS = {name: one["spec"]["template"]["spec"] for name, one in BASE.items() if "Set" in name} | {
    name: one["spec"]["template"]["spec"] for name, one in BASE.items() if "Deployment" in name
}
CONTAINERS = {
    one["name"]: one
    for pod in PODS.values()
    for one in [*pod["containers"], *pod.get("initContainers", [])]
}


@pytest.mark.parametrize("name", BASE)
def test_the_base_is_what_kubernetes_takes(name: str) -> None:
    if not BASE[name]["apiVersion"].startswith(FOREIGN):
        with passes():
            kubernetes_validate.validate(BASE[name], "1.33", strict=True)


@pytest.mark.parametrize(
    "folder", ["base", *(f"overlays/{one.name}" for one in (FOLDER / "overlays").iterdir())]
)
def test_a_kustomization_lists_the_files_that_exist(folder: str) -> None:
    here = FOLDER / folder
    kustomization = yaml.safe_load((here / "kustomization.yaml").read_text())
    patches = [one["path"] for one in kustomization.get("patches", [])]
    listed = {*kustomization["resources"], *patches}

    assert all((here / one).exists() for one in listed)
    files = {path.name for path in here.glob("*.yaml")} - {"kustomization.yaml"}
    assert files <= listed


def test_a_patch_names_what_the_base_has() -> None:
    known = {(one["kind"], one["metadata"]["name"]) for one in BASE.values() if "metadata" in one}
    patches = [one for name, one in documents("overlays/*/node.yaml")]

    assert patches
    for patch in patches:
        assert (patch["kind"], patch["metadata"]["name"]) in known
        names = {one["name"] for one in patch["spec"]["template"]["spec"]["containers"]}
        assert names <= CONTAINERS.keys()


def test_every_service_is_run_from_its_image_with_its_settings() -> None:
    assert {one["image"] for one in CONTAINERS.values()} == {f"lns/{one}" for one in SERVICES}
    for service in SERVICES:
        container = CONTAINERS[service.replace("_", "-")]
        assert container["args"] == ["--config", f"/etc/lns/{service}.yaml"]
        assert container["readinessProbe"]["exec"]["command"][-1] == f"unix:/run/lns/{service}.sock"
    assert {path.stem for path in (FOLDER / "base" / "settings").iterdir()} == set(SERVICES)


@pytest.mark.parametrize("service", SERVICES)
def test_the_settings_are_valid(service: str) -> None:
    settings = effective_settings(service, FOLDER / "base" / "settings" / f"{service}.yaml")

    assert f"unix:/run/lns/{service}.sock" in settings["server"]["listen"]
    assert settings["metrics"]["listen"].startswith("0.0.0.0:91")


@pytest.mark.parametrize("name", CONTAINERS)
def test_no_container_may_do_more_than_is_listed(name: str) -> None:
    security = CONTAINERS[name]["securityContext"]

    assert security["allowPrivilegeEscalation"] is False
    assert security["readOnlyRootFilesystem"] is True
    assert security["capabilities"]["drop"] == ["ALL"]
    assert "privileged" not in security
    assert ("add" in security["capabilities"]) == (security.get("runAsUser") == 0)
    assert (security.get("runAsUser") == 0) == (name in AS_ROOT)
    assert {"requests", "limits"} <= CONTAINERS[name]["resources"].keys()


@pytest.mark.parametrize("name", PODS)
def test_no_pod_may_do_more_than_is_listed(name: str) -> None:
    pod = PODS[name]
    paths = {one["hostPath"]["path"] for one in pod["volumes"] if "hostPath" in one}

    assert pod["automountServiceAccountToken"] is False
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert not {"hostNetwork", "hostPID", "hostIPC"} & pod.keys()
    assert paths <= HOST_PATHS.keys()
    assert not paths or name.startswith("base/node.yaml")


def test_every_secret_that_is_mounted_is_issued() -> None:
    issued = {
        one["spec"]["secretName"]
        for name, one in documents("overlays/cert-manager/*.yaml")
        if name.endswith("Certificate")
    }
    mounted = {
        one["secret"]["secretName"]
        for pod in PODS.values()
        for one in pod["volumes"]
        if "secret" in one
    }

    assert mounted < issued
    assert "lns-run-tls" in issued  # for the pods of runs


def test_only_certificates_that_are_issued_may_call() -> None:
    names = {
        dns
        for name, one in documents("overlays/cert-manager/*.yaml")
        if name.endswith("Certificate")
        for dns in one["spec"].get("dnsNames", [])
    }
    for path in (FOLDER / "base" / "settings").iterdir():
        rules = yaml.safe_load(path.read_text())["server"].get("allow", {})
        assert {one for callers in rules.values() for one in callers} <= names | {"*"}
