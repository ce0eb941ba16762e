"""The registries that other tests stand on are what they say they are."""

import base64
import hashlib
import json
import ssl
import subprocess
from collections.abc import Mapping
from urllib.parse import urlencode

import docker
import pytest
import urllib3

from tests.support.registry import IMAGE, OWNER_LABEL, RunningRegistry, owner_of, remove_orphans

EMPTY_CONFIG = b"{}"


def basic(registry: RunningRegistry) -> dict[str, str]:
    secret = f"{registry.username}:{registry.password}".encode()
    return {"Authorization": "Basic " + base64.b64encode(secret).decode()}


def get(
    url: str, *, fields: dict[str, str] | None = None, headers: Mapping[str, str] | None = None
) -> urllib3.BaseHTTPResponse:
    return urllib3.request("GET", url, fields=fields, headers=headers, retries=False, timeout=10)


def test_plain_registry_answers_without_credentials(registry: RunningRegistry) -> None:
    assert get(f"{registry.url}/v2/").status == 200


def test_each_test_gets_a_repository_of_its_own(registry: RunningRegistry) -> None:
    first, second = registry.new_repository("agents/a"), registry.new_repository("agents/a")

    assert first != second
    assert first.startswith(f"{registry.host}/")
    assert first.endswith("/agents/a")


def test_basic_registry_refuses_strangers_and_accepts_its_user(
    basic_registry: RunningRegistry,
) -> None:
    refused = get(f"{basic_registry.url}/v2/")
    accepted = get(f"{basic_registry.url}/v2/", headers=basic(basic_registry))

    assert (refused.status, accepted.status) == (401, 200)
    assert refused.headers["WWW-Authenticate"].startswith("Basic ")


def test_token_registry_accepts_a_token_for_the_scope_it_asked_for(
    token_registry: RunningRegistry,
) -> None:
    server = token_registry.token_server
    assert server is not None
    uploads = f"{token_registry.url}/v2/a/b/blobs/uploads/"

    refused = urllib3.request("POST", uploads, retries=False, timeout=10)
    question = {"service": server.service, "scope": "repository:a/b:pull,push"}
    answer = get(server.realm, fields=question, headers=basic(token_registry)).json()
    bearer = {"Authorization": f"Bearer {answer['token']}"}
    accepted = urllib3.request("POST", uploads, headers=bearer, retries=False, timeout=10)

    assert (refused.status, accepted.status) == (401, 202)
    assert f'realm="{server.realm}"' in refused.headers["WWW-Authenticate"]
    assert server.requests[-1]["scope"] == ["repository:a/b:pull,push"]


def test_token_server_refuses_a_wrong_password(token_registry: RunningRegistry) -> None:
    server = token_registry.token_server
    assert server is not None
    stranger = urllib3.make_headers(basic_auth="lns:wrong")

    assert get(server.realm, headers=stranger).status == 401


def test_token_server_exchanges_a_refresh_token(token_registry: RunningRegistry) -> None:
    server = token_registry.token_server
    assert server is not None
    question = {"service": server.service, "offline_token": "true"}
    refresh_token = get(server.realm, fields=question, headers=basic(token_registry)).json()[
        "refresh_token"
    ]

    def exchange(token: str) -> int:
        form = {"grant_type": "refresh_token", "service": server.service, "refresh_token": token}
        headers = {"Content-Type": "application/x-www-form-urlencoded"}
        return urllib3.request(
            "POST", server.realm, body=urlencode(form), headers=headers, retries=False, timeout=10
        ).status

    assert (exchange(refresh_token), exchange("invented")) == (200, 401)


def test_tls_registry_is_trusted_through_its_private_ca_only(tls_registry: RunningRegistry) -> None:
    trusting = ssl.create_default_context(cafile=str(tls_registry.ca_file))
    with urllib3.PoolManager(ssl_context=trusting) as pool:
        assert pool.request("GET", f"{tls_registry.url}/v2/", timeout=10).status == 200

    with pytest.raises(urllib3.exceptions.SSLError):
        get(f"{tls_registry.url}/v2/")


@pytest.mark.parametrize(("variant", "status"), [("registry", 405), ("deletable_registry", 202)])
def test_only_the_deletable_registry_deletes(
    variant: str, status: int, request: pytest.FixtureRequest
) -> None:
    registry: RunningRegistry = request.getfixturevalue(variant)
    if registry.container is None:
        pytest.skip("what LNS_TEST_REGISTRY allows is not known")
    repository = registry.new_repository().removeprefix(f"{registry.host}/")
    base = f"{registry.url}/v2/{repository}"
    digest = "sha256:" + hashlib.sha256(EMPTY_CONFIG).hexdigest()
    session = urllib3.request("POST", f"{base}/blobs/uploads/").headers["Location"]
    urllib3.request("PUT", f"{session}&digest={digest}", body=EMPTY_CONFIG)
    config = {
        "mediaType": "application/vnd.oci.empty.v1+json",
        "digest": digest,
        "size": len(EMPTY_CONFIG),
    }
    media_type = "application/vnd.oci.image.manifest.v1+json"
    manifest = {"schemaVersion": 2, "mediaType": media_type, "config": config, "layers": []}
    body = json.dumps(manifest).encode()
    pushed = urllib3.request(
        "PUT", f"{base}/manifests/a", body=body, headers={"Content-Type": media_type}
    )
    assert pushed.status == 201

    deleted = urllib3.request(
        "DELETE", f"{base}/manifests/sha256:{hashlib.sha256(body).hexdigest()}"
    )

    assert deleted.status == status


def test_orphans_of_dead_test_runs_are_removed_and_our_own_containers_are_not(
    registry: RunningRegistry,
) -> None:
    if registry.container is None:
        pytest.skip("LNS_TEST_REGISTRY: nothing of ours to keep")
    with subprocess.Popen(["sleep", "60"]) as dead:
        owner = owner_of(dead.pid)
        dead.kill()
    client = docker.from_env()
    try:
        orphan = client.containers.create(IMAGE, labels={OWNER_LABEL: owner})

        remove_orphans()

        names = {container.id for container in client.containers.list(all=True)}
        assert orphan.id not in names
        assert registry.container.get_container_id() in names
    finally:
        client.close()
