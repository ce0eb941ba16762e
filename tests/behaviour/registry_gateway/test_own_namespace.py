"""The store's own namespace: pushed to, listed and pulled from, and no registry is ever asked."""

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio
from lns.registry.v1 import registry_service_pb2 as pb
from lns.resolver.v1 import resolver_service_pb2 as resolver_pb

from lns.client.content.local_artifacts import place_file
from services.core import errors
from services.core.digest import Digest
from services.core.reference import STORE_HOST
from tests.behaviour.registry_gateway.test_service import World, running, served

AGENT = """
apiVersion: lens.dev/v1alpha1
kind: Agent
metadata: {name: hello}
spec: {image: "docker.io/library/python:3"}
"""
NOTES = """
apiVersion: lens.dev/v1alpha1
kind: FileSet
metadata: {name: notes}
mount: {path: /srv/notes}
spec: {}
"""
BUNDLE = """
apiVersion: lens.dev/v1alpha1
kind: AgentSystem
metadata: {name: system}
spec:
  components:
    agents: [{ref: "agents/hello:1"}]
    filesets: [{ref: "team/filesets/notes:7"}]
    model: {ref: "registry.example/models/m:1"}
"""


@pytest_asyncio.fixture
async def world(short_directory: Path) -> AsyncIterator[World]:
    async with served(short_directory) as made, running(made):
        yield made


def write(directory: Path, **files: str) -> None:
    for name, text in files.items():
        (directory / f"{name}.yaml").write_text(text)


async def placed(world: World, path: Path) -> str:
    request = resolver_pb.ResolveRequest(reference=str(path))
    await place_file(request, world.stub)
    return request.reference


async def manifest(world: World, reference: str) -> pb.GetManifestResponse:
    answer: pb.GetManifestResponse = await world.stub.GetManifest(
        pb.GetManifestRequest(reference=reference, include_config=True)
    )
    return answer


async def test_an_agents_file_becomes_a_reference_that_no_registry_knows(
    world: World, tmp_path: Path
) -> None:
    write(tmp_path, agent=AGENT)

    reference = await placed(world, tmp_path / "agent.yaml")

    assert reference.startswith(f"{STORE_HOST}/agents/hello@sha256:")
    answer = await manifest(world, reference)
    assert json.loads(answer.config)["metadata"]["name"] == "hello"
    assert (await manifest(world, f"{STORE_HOST}/agents/hello:latest")).root == answer.root
    assert [one.family async for one in _pulled(world, reference)] == ["agent"]
    assert world.registry.calls == {}


async def _pulled(world: World, reference: str) -> AsyncIterator[pb.PullResult]:
    for event in await world.pull(reference):
        if event.HasField("result"):
            yield event.result


async def test_a_bundle_brings_the_files_beside_it_with_their_content(
    world: World, tmp_path: Path
) -> None:
    write(tmp_path, bundle=BUNDLE, agent=AGENT, notes=NOTES, broken="{", other="a: 1")
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "a.txt").write_text("barley")

    reference = await placed(world, tmp_path / "bundle.yaml")

    components = json.loads((await manifest(world, reference)).config)["spec"]["components"]
    assert components["agents"][0]["ref"] == "agents/hello"
    assert components["model"] == {"ref": "registry.example/models/m:1"}
    notes = components["filesets"][0]
    answer = await manifest(world, f"{STORE_HOST}/{notes['ref']}@{notes['digest']}")
    (layer,) = json.loads(answer.manifest)["layers"]
    assert b"barley" in world.store.blobs[Digest(layer["digest"])]
    assert world.registry.calls == {}


async def test_a_changed_file_is_another_artifact(world: World, tmp_path: Path) -> None:
    write(tmp_path, agent=AGENT)
    first = await placed(world, tmp_path / "agent.yaml")
    write(tmp_path, agent=AGENT.replace(":3", ":4"))

    second = await placed(world, tmp_path / "agent.yaml")

    assert first != second
    assert (await manifest(world, first)).config != (await manifest(world, second)).config


@pytest.mark.parametrize(
    ("text", "error", "says"),
    [
        (NOTES, errors.RequestInvalid, "is a fileset, which cannot be run"),
        ("a: 1", errors.ArtifactInvalid, "no kind"),
        (AGENT.replace("image", "imag"), errors.ArtifactInvalid, "agent.yaml"),
    ],
)
async def test_what_cannot_be_run_is_refused_by_the_file(
    world: World, tmp_path: Path, text: str, error: type[errors.LnsError], says: str
) -> None:
    write(tmp_path, agent=text)

    with pytest.raises(error) as caught:
        await placed(world, tmp_path / "agent.yaml")
    assert says in caught.value.message


async def test_a_folder_and_a_missing_file_are_refused(world: World, tmp_path: Path) -> None:
    with pytest.raises(errors.RequestInvalid, match="is a directory"):
        await placed(world, tmp_path)
    with pytest.raises(errors.RequestInvalid, match=r"the file .* does not exist"):
        await placed(world, tmp_path / "no.yaml")


async def test_what_the_namespace_lacks_is_asked_for_nowhere(world: World) -> None:
    for reference in (f"{STORE_HOST}/agents/x:1", f"{STORE_HOST}/a/x@{Digest.of(b'x')}"):
        with pytest.raises(errors.ManifestUnknown, match="the store has no"):
            await manifest(world, reference)
    assert world.registry.calls == {}


async def test_two_placings_of_one_file_at_once_are_one_artifact(
    world: World, tmp_path: Path
) -> None:
    write(tmp_path, agent=AGENT)

    found = await asyncio.gather(*(placed(world, tmp_path / "agent.yaml") for _ in range(5)))

    assert len(set(found)) == 1
