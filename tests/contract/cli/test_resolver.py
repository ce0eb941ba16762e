"""What the fake resolver, which the tests of `lns run` script, shares with the real one.

The fake gives the plans that it was made with. What is checked here is what every such plan, and
whoever reads it, takes for granted: what is pinned, what makes a group, what a failure is.
"""

import contextlib
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from lns.resolver.v1 import resolver_service_pb2 as pb
from lns.types.v1 import run_plan_pb2

from lns.client.running.ports import Resolver
from services.core.artifacts import families
from services.core.errors import ArtifactTypeUnsupported
from services.core.reference import Reference
from services.resolver.bootstrap import service_with
from services.resolver.settings import ResolverSettings
from tests.fakes.run_services import FakeResolver
from tests.support.resolver import served
from tests.support.run_plans import IMAGE, a_plan
from tests.support.shelf import HOST, Shelf


@dataclass(frozen=True, slots=True, kw_only=True)
class Subject:
    """An implementer that can be asked for some things.

    Attributes:
        resolver: for one agent with a model.
        team: for two agents, `writer` and `critic`.
        workflow: for one agent with a workflow.
        imageless: for a command without an image.
        refusing: for a model, which cannot be run.
        references: what each of them is to be asked for; nothing where that does not matter.
    """

    resolver: Resolver
    team: Resolver
    workflow: Resolver
    imageless: Resolver
    refusing: Resolver
    references: dict[str, str] = field(default_factory=dict)


@contextlib.asynccontextmanager
async def fake(_: Path) -> AsyncIterator[Subject]:
    members = [a_plan(group="team", member=name) for name in ("writer", "critic")]
    for plan in members:
        plan.name = plan.member
    yield Subject(
        resolver=FakeResolver(a_plan()),
        team=FakeResolver(*members),
        workflow=FakeResolver(a_plan(has_workflow=True)),
        imageless=FakeResolver(run_plan_pb2.RunPlan(name="minimal", argv=["true"])),
        refusing=FakeResolver(failure=ArtifactTypeUnsupported(f"{IMAGE} is a model")),
    )


@contextlib.asynccontextmanager
async def real(directory: Path) -> AsyncIterator[Subject]:
    shelf = Shelf()
    model = shelf.put(families.MODEL, "careful", {"provider": "p", "model": "m"})
    workflow = shelf.put(families.WORKFLOW, "steps", {"steps": [{"agent": "hello"}]})
    agents = [shelf.agent("writer"), shelf.agent("critic")]
    references = {
        "one": shelf.bundle(agent=shelf.agent(), model=model),
        "team": shelf.bundle("team", agents=agents, model=model),
        "workflow": shelf.bundle("flow", agent=shelf.agent(), model=model, workflow=workflow),
        "model": f"{HOST}/{model}",
    }
    service = service_with(shelf.manifests, ResolverSettings(platform="linux/amd64"))
    async with served(service, directory) as stub:
        yield Subject(
            resolver=stub,
            team=stub,
            workflow=stub,
            imageless=stub,
            refusing=stub,
            references=references,
        )


@pytest.fixture(params=[fake, real])
async def subject(request: pytest.FixtureRequest, short_directory: Path) -> AsyncIterator[Subject]:
    async with request.param(short_directory) as made:
        yield made


async def plans(subject: Subject, resolver: Resolver, what: str) -> Sequence[run_plan_pb2.RunPlan]:
    request = pb.ResolveRequest(reference=subject.references.get(what, what))
    return (await resolver.Resolve(request)).plans


async def test_an_agent_is_one_plan_of_no_group(subject: Subject) -> None:
    (plan,) = await plans(subject, subject.resolver, "one")

    assert (plan.group, plan.member, plan.has_workflow) == ("", "", False)
    assert plan.name
    assert plan.argv


async def test_image_and_mounts_are_pinned_where_they_are_pulled_from(subject: Subject) -> None:
    (plan,) = await plans(subject, subject.resolver, "one")

    (mount,) = plan.mounts
    assert (mount.family, mount.path, mount.read_only) == ("model", "/etc/agent/model", True)
    for pinned in (plan.image, mount):
        reference = Reference.parse(pinned.reference)
        assert "." in reference.host
        assert str(reference.digest) == pinned.manifest.digest
    assert str(Reference.parse(plan.image.requested)) == plan.image.requested


async def test_several_agents_are_a_plan_each_of_one_group(subject: Subject) -> None:
    team = await plans(subject, subject.team, "team")

    assert [plan.member for plan in team] == ["writer", "critic"]
    assert [plan.name for plan in team] == ["writer", "critic"]
    assert {plan.group for plan in team} == {"team"}
    assert {plan.image.reference for plan in team} == {team[0].image.reference}


async def test_a_workflow_is_reported(subject: Subject) -> None:
    (plan,) = await plans(subject, subject.workflow, "workflow")

    assert plan.has_workflow


async def test_a_plan_without_an_image_has_none(subject: Subject) -> None:
    request = pb.ResolveRequest(imageless=pb.Imageless(), overrides=pb.Overrides(argv=["true"]))

    (plan,) = (await subject.imageless.Resolve(request)).plans

    assert not plan.HasField("image")
    assert (list(plan.argv), list(plan.mounts)) == (["true"], [])


async def test_what_cannot_be_run_is_a_typed_failure(subject: Subject) -> None:
    with pytest.raises(ArtifactTypeUnsupported) as failure:
        await plans(subject, subject.refusing, "model")

    assert "model" in failure.value.message
