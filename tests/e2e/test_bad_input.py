"""Bad input: each kind answers with a clear typed error and leaves nothing behind.

Reasons are read from what `--debug` shows; texts may change, reasons may not.
"""

import hashlib
import json
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from services.core.descriptor import OCI_IMAGE_CONFIG, OCI_LAYER_GZIP, OCI_MANIFEST
from services.core.digest import Digest
from tests.support.bundles import describe_file
from tests.support.fault_proxy import FaultProxy, Kind, Match
from tests.support.faults import FlipByte, Truncate
from tests.support.images import Built, blob_descriptor, random_bytes, tar_layer, upload
from tests.support.lns_command import Lns
from tests.support.registry import RunningRegistry


def an_image(*, command: list[str] | None, files: dict[str, bytes]) -> Built:
    """Returns a small image of one layer that can be materialized, if its layer can."""
    layer, diff_id = tar_layer(files)
    config = json.dumps(
        {
            "architecture": "amd64",
            "os": "linux",
            "config": {"Cmd": command} if command else {},
            "rootfs": {"type": "layers", "diff_ids": [diff_id]},
        }
    ).encode()
    raw = json.dumps(
        {
            "schemaVersion": 2,
            "mediaType": OCI_MANIFEST,
            "config": blob_descriptor(config, OCI_IMAGE_CONFIG),
            "layers": [blob_descriptor(layer, OCI_LAYER_GZIP)],
        }
    ).encode()
    blobs = {Digest.of(one): one for one in (config, layer)}
    return Built(raw=raw, media_type=OCI_MANIFEST, blobs=blobs)


def put(registry: RunningRegistry, built: Built) -> str:
    """Puts an image into the registry and returns its reference."""
    repository = registry.new_repository("images/bad")
    path = repository.removeprefix(f"{registry.host}/")
    upload(registry.url, path, built, "1")
    return f"{repository}:1"


def failed(result: "subprocess.CompletedProcess[str]", reason: str, *parts: str) -> None:
    """Asserts that a command failed for a reason, in three lines, naming what is at fault."""
    said = result.stderr
    assert f"reason: {reason} " in said, said
    lines = said.splitlines()
    first = next(number for number, line in enumerate(lines) if line.startswith("lns: cannot "))
    assert lines[first + 1].startswith("  why: ")
    assert any(line.startswith("  try: ") for line in lines[first + 2 :])
    for part in parts:
        assert part in said, said


def nothing_is_left(lns: Lns) -> None:
    """Asserts that no run is recorded, and that the stores hold only what is whole."""
    assert lns.ok("ps", "-aq") == ""
    blobs = lns.home / "blobs"
    for blob in (blobs / "sha256").glob("*"):
        assert hashlib.sha256(blob.read_bytes()).hexdigest() == blob.name
    for layer in (lns.home / "layers").iterdir():
        assert len(layer.name) == 64, layer
    for image in (lns.home / "images").iterdir():
        assert image.suffix == ".cfs", image


@pytest.fixture(autouse=True)
def checked(lns: Lns) -> Iterator[None]:
    yield
    nothing_is_left(lns)


def test_an_unknown_reference(lns: Lns, registry: RunningRegistry) -> None:
    reference = f"{registry.new_repository('images/none')}:1"

    result = lns.run("run", "--debug", reference)

    assert result.returncode == 125
    failed(result, "MANIFEST_UNKNOWN", reference)


def test_a_reference_that_is_invalid(lns: Lns) -> None:
    failed(lns.run("pull", "--debug", "localhost:5000/Upper"), "REFERENCE_INVALID", "Upper")


def test_a_registry_that_is_down(lns: Lns) -> None:
    result = lns.run("run", "--debug", "127.0.0.1:9/images/base:1")

    assert result.returncode == 125
    failed(result, "REGISTRY_UNAVAILABLE", "127.0.0.1:9")


def test_a_digest_that_nothing_has(lns: Lns, image: str) -> None:
    pinned = f"{image}@sha256:{'0' * 64}"

    failed(lns.run("run", "--debug", pinned), "MANIFEST_UNKNOWN", "0" * 12)


def test_a_manifest_that_is_not_what_its_digest_says(lns: Lns, registry: RunningRegistry) -> None:
    built = an_image(command=["/x"], files={"x": b"flipped"})
    reference = f"{put(registry, built)}@{built.digest}"
    with FaultProxy(registry.host) as proxy:
        proxy.script(Match(method="GET", kind=Kind.MANIFEST), FlipByte(at=20))
        reference = reference.replace(registry.host, proxy.host)

        failed(lns.run("run", "--debug", reference), "CONTENT_CORRUPT")


def test_a_truncated_blob(lns: Lns, registry: RunningRegistry) -> None:
    built = an_image(command=["/x"], files={"x": random_bytes(100_000, "truncated")})
    reference = put(registry, built)
    layer = max(built.blobs, key=lambda digest: len(built.blobs[digest]))
    with FaultProxy(registry.host) as proxy:
        proxy.script(Match(method="GET", kind=Kind.BLOB, digest=layer), Truncate(after=5000))
        reference = reference.replace(registry.host, proxy.host)

        result = lns.run("run", "--debug", reference)

    assert result.returncode == 125
    assert "reason: REGISTRY_UNAVAILABLE" in result.stderr or "CONTENT_CORRUPT" in result.stderr
    assert not (lns.home / "blobs" / "sha256" / layer.hex).exists()


def test_an_image_where_an_artifact_is_expected(lns: Lns, image: str) -> None:
    failed(lns.run("run", "--debug", image, "--mount", image), "PLAN_INVALID", "--mount")


def test_an_artifact_that_cannot_be_run(lns: Lns, registry: RunningRegistry) -> None:
    file = describe_file(lns.user, "Model", "alone", "spec: {provider: a, model: b}\n")
    reference = f"{registry.new_repository('models/alone')}:1"
    lns.ok("push", str(file), reference)

    failed(lns.run("run", "--debug", reference), "ARTIFACT_TYPE_UNSUPPORTED", "model")


def a_model(spec: str, name: str = "m") -> str:
    """Returns the text of a model's document."""
    return f"apiVersion: lens.dev/v1alpha1\nkind: Model\nmetadata: {{name: {name}}}\nspec: {spec}\n"


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("{not json", "line 1"),
        ("a: b: c\n", "line 1"),
        (a_model("{provider: 1, model: m}"), "$.spec.provider"),
        (a_model("{provider: a, model: m, extra: 1}"), "$.spec"),
        (a_model("{provider: a, model: m}", name="Not-A-Label"), "$.metadata.name"),
    ],
    ids=["no JSON", "no YAML", "a wrong type", "an unknown field", "a bad name"],
)
def test_a_document_that_is_not_valid(
    lns: Lns, registry: RunningRegistry, text: str, part: str
) -> None:
    file = lns.user / "bad.yaml"
    file.write_text(text)
    reference = f"{registry.new_repository('models/bad')}:1"

    failed(lns.run("push", "--debug", str(file), reference), "ARTIFACT_INVALID", part)
    failed(lns.run("pull", "--debug", reference), "MANIFEST_UNKNOWN")


def test_a_layer_that_leads_out_of_the_root(lns: Lns, registry: RunningRegistry) -> None:
    reference = put(registry, an_image(command=["/x"], files={"../../escape": b"x"}))

    result = lns.run("run", "--debug", reference)

    assert result.returncode == 125
    failed(result, "LAYER_UNSAFE", "../../escape")


def test_a_fileset_without_a_place(lns: Lns, registry: RunningRegistry, image: str) -> None:
    file = describe_file(lns.user, "FileSet", "nowhere", "spec: {description: d}\n")
    reference = f"{registry.new_repository('filesets/nowhere')}:1"

    failed(lns.run("push", "--debug", str(file), reference), "ARTIFACT_INVALID", "mount")


def test_an_image_without_a_command(lns: Lns, registry: RunningRegistry) -> None:
    reference = put(registry, an_image(command=None, files={"x": b"no command"}))

    failed(lns.run("run", "--debug", reference), "PLAN_INVALID", "command")


def test_neither_reference_nor_command(lns: Lns) -> None:
    result = lns.run("run", "--debug")

    assert result.returncode == 125
    failed(result, "REQUEST_INVALID", "lns run REF")


@pytest.mark.parametrize(
    ("settings", "part"),
    [
        ("vm_runner: {qemu: /nonexistent/qemu}\n", "QEMU"),
        ("vm_runner: {kernels: /nonexistent/kernels}\n", "kernel"),
        ("vm_runner: {agent: /nonexistent/agent}\n", "agent"),
    ],
    ids=["QEMU", "kernel", "guest agent"],
)
def test_a_machine_that_lacks_something(other: Lns, image: str, settings: str, part: str) -> None:
    config = other.user / "services.yaml"
    config.write_text(settings)
    other.ok("service", "start", "--config", str(config))

    result = other.run("run", "--debug", "--", "/bin/true")

    assert result.returncode == 125
    failed(result, "HOST_UNREADY")
    assert part.lower() in result.stderr.lower()
    assert "failed" in other.run("doctor").stdout
    assert other.ok("ps", "-aq") == ""


@pytest.fixture
def small_disk(short_directory: Path) -> Iterator[Path]:
    """A file system of 24 MB, which the image's 34 MB do not fit into."""
    disk = short_directory / "disk"
    disk.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=24m,mode=700", "lns-test", disk], check=False
    )
    if mounted.returncode != 0:
        pytest.skip("only root may mount a small file system")
    yield disk
    subprocess.run(["umount", "-l", disk], check=True)


@pytest.mark.parametrize("reserve", ["256MiB", "0B"], ids=["seen coming", "met"])
def test_a_full_disk(small_disk: Path, other: Lns, image: str, reserve: str) -> None:
    user = Lns(home=small_disk / "state", user=other.user)
    config = user.user / "services.yaml"
    config.write_text(f"registry_gateway: {{reserve: {reserve}}}\n")
    user.ok("service", "start", "--config", str(config))
    try:
        result = user.run("run", "--debug", image, "--", "true")

        assert result.returncode == 125
        failed(result, "CAPACITY_EXHAUSTED")
        nothing_is_left(user)
    finally:
        user.kill_suite()
