"""Descriptors."""

import dataclasses

import pytest

from services.core.descriptor import (
    DOCKER_INDEX,
    DOCKER_MANIFEST,
    OCI_INDEX,
    OCI_LAYER_GZIP,
    OCI_MANIFEST,
    Descriptor,
)
from services.core.digest import Digest
from services.core.errors import RequestInvalid


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
