"""The main job: a bundle of typed artifacts from a real registry runs in a microVM."""

import json
import secrets

import pytest

from tests.support.bundles import push_bundle
from tests.support.lns_command import Lns
from tests.support.registry import RunningRegistry


@pytest.fixture(scope="module")
def bundle(lns: Lns, registry: RunningRegistry, image: str) -> str:
    return push_bundle(lns, registry.host, f"b{secrets.token_hex(4)}", image)


def test_a_bundle_runs_as_its_artifacts_say(lns: Lns, bundle: str) -> None:
    result = lns.run("run", "--rm", bundle)

    lines = dict(line.split(" ", 1) for line in result.stdout.splitlines())
    assert result.returncode == 7, result.stderr
    assert lines["model"] == "small-1"
    assert lines["note"] == "read me"
    assert lines["tool"] == "True"
    assert lines["cpus"] == "2"
    assert 400_000 < int(lines["kib"]) < 512 * 1024
    assert lines["devices"] == "['lo']"
    assert lines["env"] == "reporter cwd /srv uid 0"
    assert lines["notes"] == "Read-only file system"
    assert "stderr" in result.stderr.splitlines()
    phases = result.stderr.strip().splitlines()[-1].split(" · ")
    assert [phase.split(" ")[0] for phase in phases] == [
        "resolved",
        "pulled",
        "materialized",
        "started",
    ]
    assert lns.ok("ps", "-aq") == ""


def test_the_plan_of_a_bundle_is_pinned_with_its_origins(lns: Lns, bundle: str) -> None:
    plan = json.loads(lns.ok("resolve", bundle, "--format", "json", "-m", "256Mi", "-e", "X=1"))

    assert plan["resources"] == {
        "vcpus": 2,
        "cpu_millis": 2000,
        "memory_mib": 256,
        "disk_mib": 0,
    }
    assert "@sha256:" in plan["image"]["reference"]
    assert {mount["path"] for mount in plan["mounts"]} == {
        "/etc/agent/model",
        "/etc/agent/tools/greet",
        "/srv/notes",
    }
    origins = {one["path"]: one["kind"] for one in plan["origins"]}
    assert origins["resources.memory_mib"] == "ORIGIN_KIND_FLAG"
    assert origins["resources.vcpus"] == "ORIGIN_KIND_SANDBOX"
    assert origins["env.X"] == "ORIGIN_KIND_FLAG"
    table = lns.ok("run", "--dry-run", bundle)
    assert "sandbox" in table
    assert lns.ok("ps", "-aq") == ""


def test_pushing_the_same_content_twice_gives_the_same_digest(
    lns: Lns, registry: RunningRegistry
) -> None:
    file = lns.user / "filesets-notes.yaml"
    reference = f"{registry.new_repository('filesets/again')}:1"
    content = ("--content", str(lns.user / "notes"))

    first = lns.ok("push", str(file), reference, *content)
    (lns.user / "notes" / "deep" / "note.txt").touch()

    assert lns.ok("push", str(file), reference, *content) == first


def test_an_image_is_described_with_what_it_materializes_to(lns: Lns, image: str) -> None:
    described = json.loads(lns.ok("image", "inspect", image, "--format", "json"))
    lns.ok("image", "export", image, "--image", "image.cfs", "--dump", "image.dump")

    assert described["composefs_digest"].startswith("sha256:")
    assert len(described["layers"]) == 2
    assert (lns.user / "image.cfs").stat().st_size == int(described["metadata_bytes"])
    assert b"/usr/bin/python3" in (lns.user / "image.dump").read_bytes()
    assert lns.run("image", "verify", image).returncode == 0
