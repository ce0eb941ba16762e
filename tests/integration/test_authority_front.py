"""The authority front before the real registry."""

import hashlib
import json
from collections.abc import Iterator

import pytest
import urllib3

from services.core.artifacts.families import MODEL
from tests.support.authority_front import AuthorityFront
from tests.support.registry import RunningRegistry

MANIFEST_TYPE = "application/vnd.oci.image.manifest.v1+json"


@pytest.fixture
def front(registry: RunningRegistry) -> Iterator[AuthorityFront]:
    with AuthorityFront(registry.host) as front:
        yield front


@pytest.mark.parametrize(("name", "status"), [("thinker", 201), ("Not A Name", 400)])
def test_it_passes_artifacts_that_fit_and_keeps_others_out(
    front: AuthorityFront, registry: RunningRegistry, name: str, status: int
) -> None:
    repository = f"{front.url}/v2/{registry.new_repository().partition('/')[2]}"
    document = {
        "apiVersion": "lens.dev/v1alpha1",
        "kind": "Model",
        "metadata": {"name": name},
        "spec": {"provider": "anthropic", "model": "claude"},
    }
    config = json.dumps(document).encode()
    digest = f"sha256:{hashlib.sha256(config).hexdigest()}"
    session = urllib3.request("POST", f"{repository}/blobs/uploads/").headers["Location"]
    assert urllib3.request("PUT", f"{session}&digest={digest}", body=config).status == 201
    manifest = json.dumps(
        {
            "schemaVersion": 2,
            "mediaType": MANIFEST_TYPE,
            "artifactType": MODEL.artifact_type,
            "config": {
                "mediaType": MODEL.config_media_type,
                "digest": digest,
                "size": len(config),
            },
            "layers": [],
        }
    ).encode()

    put = urllib3.request(
        "PUT", f"{repository}/manifests/v1", body=manifest, headers={"Content-Type": MANIFEST_TYPE}
    )
    got = urllib3.request("GET", f"{repository}/manifests/v1", headers={"Accept": MANIFEST_TYPE})

    assert put.status == status
    assert (got.data == manifest) is (status == 201)
