"""Descriptors and platforms."""

import dataclasses

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.core.descriptor import (
    DOCKER_INDEX,
    DOCKER_MANIFEST,
    OCI_INDEX,
    OCI_LAYER_GZIP,
    OCI_MANIFEST,
    Descriptor,
    Platform,
)
from services.core.digest import Digest
from services.core.errors import PlatformUnsupported, RequestInvalid


def platform(text: str) -> Platform:
    return Platform.parse(text)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("linux/amd64", Platform(architecture="amd64")),
        ("amd64", Platform(architecture="amd64")),
        ("x86_64", Platform(architecture="amd64")),
        ("linux/aarch64", Platform(architecture="arm64")),
        ("linux/arm64/v8", Platform(architecture="arm64", variant="v8")),
        ("linux/arm/v7", Platform(architecture="arm", variant="v7")),
        ("windows/amd64", Platform(os="windows", architecture="amd64")),
        ("linux/s390x", Platform(architecture="s390x")),
    ],
)
def test_a_platform_is_written_as_os_and_architecture(text: str, expected: Platform) -> None:
    assert platform(text) == expected
    assert platform(str(expected)) == expected


@pytest.mark.parametrize("text", ["", "/", "linux/", "/amd64", "a/b/c/d", "linux//v8", "x" * 101])
def test_what_is_no_platform_is_refused(text: str) -> None:
    with pytest.raises(RequestInvalid):
        platform(text)


@given(st.text(max_size=120))
def test_any_text_is_a_platform_or_refused_with_the_typed_error(text: str) -> None:
    try:
        parsed = platform(text)
    except RequestInvalid:
        return
    assert platform(str(parsed)) == parsed


@pytest.mark.parametrize(
    ("wanted", "offered", "expected"),
    [
        ("linux/amd64", "linux/amd64", True),
        ("linux/amd64", "linux/arm64", False),
        ("linux/amd64", "windows/amd64", False),
        ("linux/arm64", "linux/arm64/v8", True),
        ("linux/arm64/v8", "linux/arm64", True),
        ("linux/arm64/v8", "linux/arm64/v9", False),
        ("linux/arm/v7", "linux/arm/v7", True),
        ("linux/arm/v7", "linux/arm", False),
        ("linux/arm", "linux/arm/v6", True),
    ],
)
def test_a_platform_accepts_images_that_run_on_it(
    wanted: str, offered: str, *, expected: bool
) -> None:
    assert platform(wanted).accepts(platform(offered)) is expected


@pytest.mark.parametrize(
    ("machine", "text"), [("x86_64", "linux/amd64"), ("aarch64", "linux/arm64")]
)
def test_the_platform_of_a_machine_is_linux_on_it(machine: str, text: str) -> None:
    assert str(Platform.of_machine(machine)) == text


@pytest.mark.parametrize("machine", ["", "riscv64", "armv7l"])
def test_lns_does_not_run_on_other_machines(machine: str) -> None:
    with pytest.raises(PlatformUnsupported):
        Platform.of_machine(machine)


def test_a_descriptor_of_a_negative_size_cannot_be_made() -> None:
    with pytest.raises(RequestInvalid):
        Descriptor(media_type=OCI_MANIFEST, digest=Digest.of(b""), size=-1)


@pytest.mark.parametrize(
    ("media_type", "is_index", "is_manifest"),
    [
        (OCI_INDEX, True, False),
        (DOCKER_INDEX, True, False),
        (OCI_MANIFEST, False, True),
        (DOCKER_MANIFEST, False, True),
        (OCI_LAYER_GZIP, False, False),
        ("", False, False),
    ],
)
def test_a_descriptor_knows_what_it_points_at(
    media_type: str, *, is_index: bool, is_manifest: bool
) -> None:
    descriptor = Descriptor(media_type=media_type, digest=Digest.of(b""), size=0)

    assert (descriptor.is_index, descriptor.is_manifest) == (is_index, is_manifest)


def test_a_descriptor_cannot_be_changed() -> None:
    descriptor = Descriptor(media_type=OCI_MANIFEST, digest=Digest.of(b""), size=0)

    with pytest.raises(dataclasses.FrozenInstanceError):
        descriptor.size = 1  # type: ignore[misc]  # what the test is about
    with pytest.raises(TypeError):
        descriptor.annotations["a"] = "b"  # type: ignore[index]  # what the test is about
