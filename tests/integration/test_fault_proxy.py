"""The fault proxy before the real registry, and what faults leave of an upload there."""

import hashlib
import json
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import urllib3

from tests.support import faults
from tests.support.eventually import eventually
from tests.support.fault_proxy import Fault, FaultProxy, Match
from tests.support.http_messages import Kind
from tests.support.registry import RunningRegistry

BLOB = bytes(range(256)) * 4096
DIGEST = f"sha256:{hashlib.sha256(BLOB).hexdigest()}"


@pytest.fixture
def proxy(registry: RunningRegistry) -> Iterator[FaultProxy]:
    with FaultProxy(registry.host) as proxy:
        yield proxy


@pytest.fixture
def uploads(proxy: FaultProxy, registry: RunningRegistry) -> str:
    path = registry.new_repository().partition("/")[2]
    return f"{proxy.url}/v2/{path}/blobs/uploads/"


def start(uploads: str) -> str:
    session = urllib3.request("POST", uploads, retries=False, timeout=10)
    assert session.status == 202
    return session.headers["Location"]


def patch(location: str, data: bytes) -> urllib3.BaseHTTPResponse:
    headers = {"Content-Type": "application/octet-stream"}
    return urllib3.request("PATCH", location, body=data, headers=headers, retries=False, timeout=10)


def write_layout(folder: Path) -> None:
    """Writes an OCI layout of one image with one layer that is no archive: skopeo does not mind."""
    blobs = folder / "blobs" / "sha256"
    blobs.mkdir(parents=True)

    def put(data: bytes, media_type: str) -> dict[str, object]:
        digest = hashlib.sha256(data).hexdigest()
        (blobs / digest).write_bytes(data)
        return {"mediaType": media_type, "digest": f"sha256:{digest}", "size": len(data)}

    kind = "application/vnd.oci.image"
    config = {
        "architecture": "amd64",
        "os": "linux",
        "rootfs": {"type": "layers", "diff_ids": [DIGEST]},
    }
    manifest = {
        "schemaVersion": 2,
        "mediaType": f"{kind}.manifest.v1+json",
        "config": put(json.dumps(config).encode(), f"{kind}.config.v1+json"),
        "layers": [put(BLOB, f"{kind}.layer.v1.tar")],
    }
    root = put(json.dumps(manifest).encode(), f"{kind}.manifest.v1+json")
    (folder / "index.json").write_text(json.dumps({"schemaVersion": 2, "manifests": [root]}))
    (folder / "oci-layout").write_text('{"imageLayoutVersion": "1.0.0"}')


def test_an_independent_client_pushes_and_pulls_through_it(
    proxy: FaultProxy, registry: RunningRegistry, tmp_path: Path
) -> None:
    write_layout(tmp_path / "there")
    path = registry.new_repository().partition("/")[2]
    copy = ["skopeo", "copy", "--quiet", "--preserve-digests"]
    remote = f"docker://{proxy.host}/{path}:v1"

    push = [*copy, "--dest-tls-verify=false", f"oci:{tmp_path}/there", remote]
    subprocess.run(push, check=True, timeout=50)
    pull = [*copy, "--src-tls-verify=false", remote, f"oci:{tmp_path}/back"]
    subprocess.run(pull, check=True, timeout=50)

    assert (tmp_path / "back/blobs" / DIGEST.replace(":", "/")).read_bytes() == BLOB
    (fetched,) = proxy.select(Match(method="GET", digest=DIGEST))
    assert (fetched.repository, fetched.sent_bytes) == (path, len(BLOB))
    manifest = Match(method="PUT", kind=Kind.MANIFEST, reference="v1", repository=path)
    assert proxy.count(manifest) == 1


def test_upload_goes_on_after_a_cut_between_two_chunks(proxy: FaultProxy, uploads: str) -> None:
    location = patch(start(uploads), BLOB[:1000]).headers["Location"]
    proxy.script(Match(method="PATCH"), faults.Reset(), times=1)

    with pytest.raises(urllib3.exceptions.ProtocolError):
        patch(location, BLOB[1000:])
    status = urllib3.request("GET", location, retries=False, timeout=10)

    assert (status.status, status.headers["Range"]) == (204, "0-999")
    location = patch(status.headers["Location"], BLOB[1000:]).headers["Location"]
    done = urllib3.request("PUT", f"{location}&digest={DIGEST}", retries=False, timeout=10)
    assert done.status == 201


@pytest.mark.parametrize("fault", [faults.CutUpload(after=100_000), faults.DropAnswer()])
async def test_upload_session_is_lost_when_the_registry_has_more_than_it_acknowledged(
    proxy: FaultProxy, uploads: str, fault: Fault
) -> None:
    location = start(uploads)
    proxy.script(Match(method="PATCH"), fault, times=1)

    with pytest.raises(urllib3.exceptions.ProtocolError):
        patch(location, BLOB)

    def code() -> str:
        reply = urllib3.request("GET", location, retries=False, timeout=10)
        return str(reply.json()["errors"][0]["code"]) if reply.status == 404 else ""

    # The registry may not yet have seen that the client is gone.
    await eventually(lambda: code() == "BLOB_UPLOAD_INVALID")
