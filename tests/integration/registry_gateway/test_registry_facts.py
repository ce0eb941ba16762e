"""What registries do beyond the plain cases: paging, the referrers API, Docker's types."""

import json
import time
from pathlib import Path
from typing import Any

import prometheus_client
import pytest

from services.core import errors
from services.core.descriptor import DOCKER_INDEX, DOCKER_MANIFEST, OCI_INDEX, OCI_MANIFEST
from tests.support.fault_proxy import FaultProxy, Kind, Match
from tests.support.faults import Answer, ReplaceHeaders, server_error
from tests.support.gateway import RunningGateway
from tests.support.images import Built, build_image, random_bytes, upload
from tests.support.registry import RunningRegistry

TAGS = Match(kind=Kind.TAGS)


def page(*tags: object, link: str | None = None) -> Answer:
    """One page of a list of tags."""
    headers = {"Content-Type": "application/json"} | ({"Link": link} if link else {})
    return Answer(status=200, body=json.dumps({"tags": list(tags)}).encode(), headers=headers)


async def tags_of(gateway: RunningGateway, host: str) -> list[str]:
    return list((await gateway.call("ListTags", repository=f"{host}/team/app")).tags)


@pytest.mark.parametrize("absolute", [False, True])
async def test_pages_of_tags_are_followed(
    gateway: RunningGateway, proxy: FaultProxy, *, absolute: bool
) -> None:
    base = proxy.url if absolute else ""
    for number, tags in enumerate((["c", "a"], ["b"], [])):
        path = f"{base}/v2/team/app/tags/list?n=2&last={number}"
        last = number == 1
        proxy.script(TAGS, page(*tags, link=None if last else f'<{path}>; rel="next"'), times=1)

    assert await tags_of(gateway, proxy.host) == ["a", "b", "c"]
    assert proxy.count(TAGS) == 2


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        (page(link='</v2/team/app/tags/list>; rel="next"'), None),
        (Answer(status=200, body=b'{"tags": null}'), None),
        (Answer(status=200, body=b'{"tags": 7}'), errors.RegistryProtocol),
        (Answer(status=200, body=b'{"tags": [7]}'), errors.RegistryProtocol),
        (Answer(status=200, body=b'{"tags": [["a"]]}'), errors.RegistryProtocol),
        (Answer(status=200, body=b"[]"), errors.RegistryProtocol),
        (Answer(status=200, body=b"<html>"), errors.RegistryProtocol),
        (page("a", link='<file:///etc/passwd>; rel="next"'), errors.RegistryProtocol),
        (page("a", link='<http://[::1>; rel="next"'), errors.LnsError),
        (page("x" * 40_000_000), errors.LimitExceeded),
    ],
    ids=lambda value: str(value)[:60],
)
async def test_lists_of_tags_that_are_odd_end_in_a_list_or_a_typed_error(
    gateway: RunningGateway,
    proxy: FaultProxy,
    answer: Answer,
    expected: type[errors.LnsError] | None,
) -> None:
    proxy.script(TAGS, answer)

    if expected is None:
        assert await tags_of(gateway, proxy.host) == []
    else:
        with pytest.raises(expected) as caught:
            await tags_of(gateway, proxy.host)
        assert not isinstance(caught.value, errors.Internal)


async def test_an_endless_list_of_tags_is_given_up(
    gateway: RunningGateway, proxy: FaultProxy
) -> None:
    link = f'<{proxy.url}/v2/team/app/tags/list?again>; rel="next"'
    proxy.script(TAGS, page("a" * 100_000, link=link))

    with pytest.raises(errors.RegistryProtocol, match="names itself"):
        await tags_of(gateway, proxy.host)


async def test_a_page_elsewhere_is_asked_for_without_credentials(
    gateway: RunningGateway, basic_registry: RunningRegistry
) -> None:
    with FaultProxy(basic_registry.host) as proxy:
        for host in (proxy.host, proxy.other_host):
            await gateway.call(
                "Login",
                registry=host,
                username=basic_registry.username,
                secret=basic_registry.password,
            )
        link = f'<http://{proxy.other_host}/v2/team/app/tags/list>; rel="next"'
        proxy.script(Match(kind=Kind.TAGS, peer=proxy.host), page("a", link=link))
        proxy.forget()

        with pytest.raises(errors.RegistryDenied) as caught:
            await tags_of(gateway, proxy.host)
        assert "login" not in caught.value.hint  # neither here nor there would it help
        elsewhere = proxy.select(Match(peer=proxy.other_host))

    assert elsewhere
    assert all("authorization" not in one.headers for one in elsewhere)


# The referrers API, which registry 2.8 lacks


def referrers(*entries: dict[str, Any], link: str | None = None) -> Answer:
    body = {"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": list(entries)}
    headers = {"Content-Type": OCI_INDEX} | ({"Link": link} if link else {})
    return Answer(status=200, body=json.dumps(body).encode(), headers=headers)


async def test_referrers_of_the_api_are_listed_page_by_page(
    gateway: RunningGateway, proxy: FaultProxy
) -> None:
    built = build_image(b"x")
    first = built.descriptor | {"artifactType": "a/one", "annotations": {"k": "v"}}
    second = built.descriptor | {"artifactType": "a/two"}
    match = Match(kind=Kind.REFERRERS)
    link = f"</v2/team/app/referrers/{built.digest}?p=2>; rel=next"
    reference = f"{proxy.host}/team/app@{built.digest}"
    proxy.script(match, referrers(first, link=link), times=1)
    proxy.script(match, referrers(second), times=1)

    found = (await gateway.call("ListReferrers", reference=reference)).referrers

    assert [one.artifact_type for one in found] == ["a/one", "a/two"]
    assert dict(found[0].annotations) == {"k": "v"}
    assert proxy.count(Match(kind=Kind.MANIFEST)) == 0, "the fallback tag is not asked for"


async def test_a_registry_that_indexed_the_subject_gets_no_fallback_tag(
    gateway: RunningGateway, registry: RunningRegistry, proxy: FaultProxy
) -> None:
    subject = build_image(random_bytes(10, time.time_ns()))
    path = registry.new_repository().partition("/")[2]
    upload(registry.url, path, subject, "v1")
    indexed = ReplaceHeaders(headers={"OCI-Subject": subject.digest})
    proxy.script(Match(method="PUT", kind=Kind.MANIFEST), indexed)

    await gateway.call(
        "PushArtifact",
        reference=f"{proxy.host}/{path}:referrer",
        family="knowledge",
        document=b"{apiVersion: lens.dev/v1alpha1, kind: Knowledge, metadata: {name: k}, spec: {}}",
        subject={
            "media_type": OCI_MANIFEST,
            "digest": subject.digest,
            "size_bytes": len(subject.raw),
        },
    )

    assert [one.reference for one in proxy.select(Match(method="PUT", kind=Kind.MANIFEST))] == [
        "referrer"
    ]


# Docker's types


async def test_docker_manifests_and_lists_are_pushed_again_as_they_are(
    gateway: RunningGateway, registry: RunningRegistry, proxy: FaultProxy
) -> None:
    plain = build_image(random_bytes(10, time.time_ns()))
    document = json.loads(plain.raw) | {"mediaType": DOCKER_MANIFEST}
    document["config"]["mediaType"] = "application/vnd.docker.container.image.v1+json"
    child = Built(
        raw=json.dumps(document, indent=3).encode(), media_type=DOCKER_MANIFEST, blobs=plain.blobs
    )
    entry = child.descriptor | {"platform": {"os": "linux", "architecture": "amd64"}}
    listed = Built(
        raw=json.dumps(
            {"schemaVersion": 2, "mediaType": DOCKER_INDEX, "manifests": [entry]}, indent=1
        ).encode(),
        media_type=DOCKER_INDEX,
        children=(child,),
    )
    source = f"{registry.host}/{upload(registry.url, _new_path(registry), listed, 'v')}"
    await gateway.pull(source, all_platforms=True)

    result = await gateway.push_image(
        source, f"{proxy.host}/{_new_path(registry)}:v", all_platforms=True
    )

    puts = proxy.select(Match(method="PUT", kind=Kind.MANIFEST))
    assert [one.headers["content-type"] for one in puts] == [DOCKER_MANIFEST, DOCKER_INDEX]
    assert result.descriptor.digest == listed.digest


async def test_every_type_of_manifest_is_asked_for(
    gateway: RunningGateway, registry: RunningRegistry, proxy: FaultProxy
) -> None:
    built = build_image(random_bytes(10, time.time_ns()))
    path = _new_path(registry)
    upload(registry.url, path, built, "v")
    for _ in range(2):
        await gateway.pull(f"{proxy.host}/{path}:v")

    asked = proxy.select(Match(kind=Kind.MANIFEST))
    assert {one.method for one in asked} == {"GET", "HEAD"}
    for one in asked:
        accepted = {part.strip() for part in one.headers["accept"].split(",")}
        assert accepted == {OCI_MANIFEST, OCI_INDEX, DOCKER_MANIFEST, DOCKER_INDEX}


def _new_path(registry: RunningRegistry) -> str:
    return registry.new_repository().partition("/")[2]


# Settings of the environment that are not for us


async def test_proxies_and_netrc_of_the_environment_do_not_touch_registries(
    gateway: RunningGateway,
    registry: RunningRegistry,
    proxy: FaultProxy,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    (tmp_path / ".netrc").write_text("machine 127.0.0.1 login me password canary\n")
    monkeypatch.setenv("NETRC", str(tmp_path / ".netrc"))
    monkeypatch.setenv("HOME", str(tmp_path))
    built = build_image(random_bytes(10, time.time_ns()))
    path = _new_path(registry)
    upload(registry.url, path, built, "v")

    await gateway.pull(f"{proxy.host}/{path}:v")

    assert all("authorization" not in one.headers for one in proxy.requests)


async def test_transfers_and_retries_are_counted(
    gateway: RunningGateway, registry: RunningRegistry, proxy: FaultProxy
) -> None:
    def count(name: str, **labels: str) -> float:
        found = prometheus_client.REGISTRY.get_sample_value(
            f"lns_registry_gateway_{name}_total", labels
        )
        return found or 0.0

    data = random_bytes(5000, time.time_ns())
    built, path = build_image(data), _new_path(registry)
    upload(registry.url, path, built, "v")
    proxy.script(Match(kind=Kind.MANIFEST), server_error(503), times=1)
    before = (
        count("transferred_bytes", direction="in"),
        count("blobs", direction="in", outcome="moved"),
        count("blobs", direction="in", outcome="exists"),
        count("retries"),
    )

    for _ in range(2):
        await gateway.pull(f"{proxy.host}/{path}:v")

    after = (
        count("transferred_bytes", direction="in"),
        count("blobs", direction="in", outcome="moved"),
        count("blobs", direction="in", outcome="exists"),
        count("retries"),
    )
    moved = sum(map(len, built.blobs.values()))
    assert [a - b for a, b in zip(after, before, strict=True)] == [moved, 2, 2, 1]
