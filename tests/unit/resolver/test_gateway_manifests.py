"""The gateway's answers are checked: a plan is only as good as what it is pinned to."""

import json
from typing import Any

import pytest
from lns.registry.v1 import registry_service_pb2 as pb
from lns.types.v1 import descriptor_pb2

from services.core.descriptor import OCI_IMAGE_CONFIG, OCI_INDEX, OCI_MANIFEST
from services.core.digest import Digest
from services.core.errors import (
    ContentCorrupt,
    DeadlineExceeded,
    LnsError,
    ManifestUnknown,
    RegistryProtocol,
    ServiceUnavailable,
)
from services.resolver.adapters.gateway_manifests import GatewayManifests
from tests.fakes.manifest_source import AMD64

CONFIG = b"{}"
MANIFEST = json.dumps(
    {
        "schemaVersion": 2,
        "mediaType": OCI_MANIFEST,
        "config": {
            "mediaType": OCI_IMAGE_CONFIG,
            "digest": Digest.of(CONFIG),
            "size": len(CONFIG),
        },
        "layers": [],
    }
).encode()
INDEX = json.dumps({"mediaType": OCI_INDEX, "manifests": []}).encode()
REFERENCE = "registry.test/x:1"
PINNED = f"registry.test/x@{Digest.of(MANIFEST)}"


class Channel:
    """Stands for the channel: every call is answered alike."""

    def __init__(self, answer: pb.GetManifestResponse | LnsError) -> None:
        self._answer = answer

    def unary_unary(self, *_: Any, **__: Any) -> Any:
        async def call(request: pb.GetManifestRequest, **_: Any) -> pb.GetManifestResponse:
            assert request.include_config
            if isinstance(self._answer, LnsError):
                raise self._answer
            return self._answer

        return call

    stream_unary = unary_stream = stream_stream = unary_unary


def answer(**changes: Any) -> pb.GetManifestResponse:
    descriptor = descriptor_pb2.Descriptor(
        media_type=OCI_MANIFEST, digest=Digest.of(MANIFEST), size_bytes=len(MANIFEST)
    )
    fields = {
        "root": descriptor,
        "descriptor": descriptor,
        "manifest": MANIFEST,
        "config": CONFIG,
        "reference": REFERENCE,
        "repository": "registry.test/x",
    }
    return pb.GetManifestResponse(**(fields | changes))


async def fetch(given: pb.GetManifestResponse | LnsError, reference: str = REFERENCE) -> Any:
    source = GatewayManifests(Channel(given))  # type: ignore[arg-type]  # as much as a stub needs
    return await source.fetch(reference, platform=AMD64)


@pytest.mark.parametrize("reference", [REFERENCE, PINNED])
async def test_an_answer_that_fits_is_taken(reference: str) -> None:
    fetched = await fetch(answer(), reference)

    assert fetched.pinned == PINNED


@pytest.mark.parametrize(
    ("changes", "error"),
    [
        ({"manifest": MANIFEST + b" "}, ContentCorrupt),
        ({"config": b"[]"}, ContentCorrupt),
        ({"config": b""}, ContentCorrupt),
        ({"manifest": b"no manifest"}, RegistryProtocol),
        ({"manifest": INDEX}, RegistryProtocol),
        ({"descriptor": descriptor_pb2.Descriptor(digest="sha256:0")}, RegistryProtocol),
        ({"root": descriptor_pb2.Descriptor()}, RegistryProtocol),
    ],
)  # fmt: skip
async def test_an_answer_that_does_not_fit_is_refused(
    changes: dict[str, Any], error: type[LnsError]
) -> None:
    with pytest.raises(error):
        await fetch(answer(**changes))


async def test_another_manifest_than_the_pinned_one_is_refused() -> None:
    with pytest.raises(ContentCorrupt):
        await fetch(answer(), f"registry.test/x@sha256:{'0' * 64}")


async def test_a_gateway_that_is_gone_says_when_to_try_again() -> None:
    with pytest.raises(ServiceUnavailable) as caught:
        await fetch(ServiceUnavailable("no answer"))

    assert caught.value.retry_after


async def test_a_registry_that_does_not_answer_in_time_is_named() -> None:
    with pytest.raises(DeadlineExceeded, match=REFERENCE) as caught:
        await fetch(DeadlineExceeded("Deadline Exceeded"))

    assert "registry" in caught.value.hint


async def test_other_errors_pass_as_they_are() -> None:
    with pytest.raises(ManifestUnknown, match="it does not exist"):
        await fetch(ManifestUnknown("it does not exist"))
