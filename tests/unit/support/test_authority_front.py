"""The authority of the tests serves its schemas and refuses what does not fit them."""

import hashlib
import json
from collections.abc import Iterator
from typing import Any

import pytest
import urllib3
from jsonschema import Draft202012Validator

from services.core.artifacts.families import AGENT, FAMILIES, MODEL, Family
from tests.support.authority_front import AuthorityFront
from tests.support.http_messages import Kind, answer
from tests.support.http_peer import Exchange, HttpPeer

GOOD_MODEL = {
    "apiVersion": "lens.dev/v1alpha1",
    "kind": "Model",
    "metadata": {"name": "thinker"},
    "spec": {"provider": "anthropic", "model": "claude"},
}


class Upstream:
    """The registry behind: blobs that it is given, and the manifests that reach it."""

    def __init__(self) -> None:
        self.blobs: dict[str, bytes] = {}
        self.manifests: list[bytes] = []

    def add(self, data: bytes) -> str:
        digest = f"sha256:{hashlib.sha256(data).hexdigest()}"
        self.blobs[digest] = data
        return digest

    def serve(self, exchange: Exchange) -> None:
        request = exchange.request
        if request.kind is Kind.MANIFEST and request.method == "PUT":
            self.manifests.append(exchange.read_body())
            exchange.send(answer(201))
        elif request.digest in self.blobs:
            exchange.send(answer(200, self.blobs[request.digest]))
        else:
            exchange.send(answer(404))


@pytest.fixture
def upstream() -> Upstream:
    return Upstream()


@pytest.fixture
def front(upstream: Upstream) -> Iterator[AuthorityFront]:
    with HttpPeer(upstream.serve) as behind, AuthorityFront(behind.host) as front:
        yield front


def get_types(front: AuthorityFront, **headers: str) -> urllib3.BaseHTTPResponse:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return urllib3.request("GET", f"{front.url}/ext/v1/types", headers=named, timeout=5)


def put(
    front: AuthorityFront, upstream: Upstream, document: Any, family: Family = MODEL
) -> urllib3.BaseHTTPResponse:
    blob = document if isinstance(document, bytes) else json.dumps(document).encode()
    return put_manifest(front, manifest_of(family, upstream.add(blob)))


def manifest_of(family: Family, digest: str) -> dict[str, Any]:
    return {
        "schemaVersion": 2,
        "artifactType": family.artifact_type,
        "config": {"mediaType": family.config_media_type, "digest": digest, "size": 1},
        "layers": [],
    }


def put_manifest(front: AuthorityFront, manifest: object) -> urllib3.BaseHTTPResponse:
    url = f"{front.url}/v2/team/models/thinker/manifests/v1"
    return urllib3.request("PUT", url, body=json.dumps(manifest).encode(), timeout=5)


def test_every_family_is_listed_with_media_types_and_a_schema(front: AuthorityFront) -> None:
    types = get_types(front).json()["types"]

    assert [one["slug"] for one in types] == [family.slug for family in FAMILIES]
    agent = types[0]
    assert agent["artifactType"] == AGENT.artifact_type
    assert agent["configMediaType"] == AGENT.config_media_type
    for one in types:
        Draft202012Validator.check_schema(one["schema"])


def test_types_are_not_sent_again_to_who_has_them(front: AuthorityFront) -> None:
    tag = get_types(front).headers["ETag"]

    again = get_types(front, If_None_Match=tag)
    other = get_types(front, If_None_Match='"old"')

    assert (again.status, again.data, again.headers["ETag"]) == (304, b"", tag)
    assert (other.status, other.headers["ETag"]) == (200, tag)
    assert [request.kind for request in front.requests] == [Kind.TYPES] * 3


def test_another_schema_has_another_tag_and_decides_from_then_on(
    front: AuthorityFront, upstream: Upstream
) -> None:
    tag = get_types(front).headers["ETag"]
    assert put(front, upstream, GOOD_MODEL).status == 201

    front.replace_schema("model", {"properties": {"spec": {"required": ["licence"]}}})

    assert get_types(front, If_None_Match=tag).status == 200
    refused = put(front, upstream, GOOD_MODEL)
    assert refused.json()["errors"][0]["detail"]["path"] == "$.spec"


def test_a_fitting_artifact_reaches_the_registry_byte_for_byte(
    front: AuthorityFront, upstream: Upstream
) -> None:
    manifest = manifest_of(MODEL, upstream.add(json.dumps(GOOD_MODEL).encode()))

    assert put_manifest(front, manifest).status == 201
    assert upstream.manifests == [json.dumps(manifest).encode()]


def test_each_violation_is_an_error_with_its_path(
    front: AuthorityFront, upstream: Upstream
) -> None:
    document = {**GOOD_MODEL, "metadata": {"name": "No Name"}, "spec": {"provider": 7}}

    response = put(front, upstream, document)

    errors = response.json()["errors"]
    assert response.status == 400
    assert {error["code"] for error in errors} == {"MANIFEST_INVALID"}
    found = {(error["detail"]["path"], error["detail"]["message"]) for error in errors}
    assert found == {
        ("$.metadata.name", "'No Name' does not match '^[a-z0-9]([a-z0-9-]*[a-z0-9])?$'"),
        ("$.spec.provider", "7 is not of type 'string'"),
        ("$.spec", "'model' is a required property"),
    }
    assert upstream.manifests == []


@pytest.mark.parametrize("by", ["artifactType", "config"])
def test_either_media_type_makes_it_an_artifact(
    front: AuthorityFront, upstream: Upstream, by: str
) -> None:
    manifest = manifest_of(MODEL, upstream.add(b"{}"))
    if by == "config":
        del manifest["artifactType"]
    else:
        manifest["config"]["mediaType"] = "application/vnd.oci.image.config.v1+json"

    assert put_manifest(front, manifest).status == 400


@pytest.mark.parametrize("config", [b"{", b"\xff", b""])
def test_a_config_that_is_no_json_is_refused(
    front: AuthorityFront, upstream: Upstream, config: bytes
) -> None:
    response = put(front, upstream, config)

    assert (response.status, response.json()["errors"][0]["code"]) == (400, "MANIFEST_INVALID")


def test_an_artifact_whose_config_was_not_uploaded_is_refused(front: AuthorityFront) -> None:
    response = put_manifest(front, manifest_of(MODEL, f"sha256:{'0' * 64}"))

    assert response.json()["errors"][0]["code"] == "MANIFEST_INVALID"


@pytest.mark.parametrize(
    "manifest",
    [
        {"config": {"mediaType": "application/vnd.oci.image.config.v1+json", "digest": "x"}},
        {"manifests": []},
        ["no", "manifest"],
    ],
)
def test_what_is_no_artifact_is_left_to_the_registry(
    front: AuthorityFront, upstream: Upstream, manifest: object
) -> None:
    assert put_manifest(front, manifest).status == 201
    assert len(upstream.manifests) == 1
