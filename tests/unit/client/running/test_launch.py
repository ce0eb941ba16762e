import asyncio

import pytest
from lns.registry.v1 import registry_service_pb2 as registry_pb
from lns.resolver.v1 import resolver_service_pb2 as resolver_pb
from lns.types.v1 import run_plan_pb2 as plan_pb
from lns.vm.v1 import run_pb2

from cli.context import Context
from cli.render.phases import Phases
from cli.render.progress import SilentReporter
from lns.client.running.launch import Order, Services, launch
from services.core.errors import (
    InUse,
    LnsError,
    ManifestUnknown,
    NameTaken,
    PlanInvalid,
    RequestInvalid,
    ServiceUnavailable,
    Unimplemented,
)
from tests.fakes.run_services import (
    RUN_ID,
    FakeGateway,
    FakeGroup,
    FakeMaterializer,
    FakeResolver,
    FakeRunner,
)
from tests.support.eventually import eventually
from tests.support.run_plans import IMAGE, MODEL, a_plan


class NotingReporter(SilentReporter):
    def __init__(self) -> None:
        super().__init__(Context(environment={}))
        self.notes: list[str] = []

    def note(self, text: str) -> None:
        self.notes.append(text)


class Setting:
    """One launch with fakes."""

    def __init__(self, *plans: plan_pb.RunPlan) -> None:
        self.resolver = FakeResolver(*plans)
        self.gateway = FakeGateway()
        self.materializer = FakeMaterializer()
        self.runner = FakeRunner()
        self.group: FakeGroup | None = None
        self.options = run_pb2.RunOptions(remove=True)
        self.volumes: list[str] = []
        self.elsewhere = ""
        self.reporter = NotingReporter()
        self.phases = Phases()

    async def launch(self) -> run_pb2.Run:
        return (await self.launch_all())[0]

    async def launch_all(self) -> list[run_pb2.Run]:
        order = Order(
            resolve=resolver_pb.ResolveRequest(
                reference="r.example/bundles/b:1",
                overrides=resolver_pb.Overrides(volumes=self.volumes),
            ),
            options=self.options,
            pull=registry_pb.PULL_MODE_MISSING,
            request_id="abc",
            subject="r.example/bundles/b:1",
        )
        services = Services(
            resolver=self.resolver,
            gateway=self.gateway,
            materializer=self.materializer,
            runner=self.group or self.runner,
            runner_elsewhere=self.elsewhere,
        )
        return await launch(order, services, reporter=self.reporter, phases=self.phases)


async def test_a_reference_becomes_a_run_step_by_step() -> None:
    setting = Setting(a_plan())

    run = await setting.launch()

    assert run.run_id == RUN_ID
    assert sorted(request.reference for request in setting.gateway.pulled) == [IMAGE, MODEL]
    materialize = setting.materializer.asked[0]
    assert materialize.manifest_digest == "sha256:" + "1a" * 32
    assert materialize.mounts[0].path == "/etc/agent/model"
    assert materialize.mounts[0].read_only
    created = setting.runner.created[0]
    assert created.image_digest == setting.materializer.digest
    assert created.request_id == "abc"
    assert created.options.remove
    assert created.plan == a_plan()
    assert [part.split(" ")[0] for part in setting.phases.line().split(" · ")] == [
        "resolved",
        "pulled",
        "materialized",
    ]


async def test_host_paths_are_refused_where_the_runner_is_another_machines() -> None:
    setting = Setting(a_plan())
    setting.volumes = ["data:/data", "/srv/notes:/notes:ro"]
    setting.elsewhere = "node.example:7004"

    with pytest.raises(RequestInvalid, match="/srv/notes is on this machine") as caught:
        await setting.launch()
    setting.volumes = ["data:/data"]
    await setting.launch()

    assert "lns cp" in caught.value.hint
    assert len(setting.runner.created) == 1


async def test_image_and_mounts_are_pulled_side_by_side() -> None:
    setting = Setting(a_plan())

    await setting.launch()

    assert setting.gateway.side_by_side == 2


async def test_an_imageless_run_pulls_and_materializes_nothing() -> None:
    setting = Setting(plan_pb.RunPlan(name="imageless", argv=["true"]))

    await setting.launch()

    assert setting.gateway.pulled == []
    assert setting.materializer.asked == []
    assert setting.runner.created[0].image_digest == ""


async def test_mounts_alone_are_materialized_on_an_empty_root() -> None:
    plan = a_plan()
    plan.ClearField("image")
    setting = Setting(plan)

    await setting.launch()

    assert setting.materializer.asked[0].manifest_digest == ""
    assert setting.runner.created[0].image_digest


async def test_a_step_that_fails_is_the_last() -> None:
    setting = Setting(a_plan())
    setting.gateway.failures[MODEL] = ManifestUnknown("no such manifest")

    with pytest.raises(ManifestUnknown):
        await setting.launch()

    assert setting.materializer.asked == []
    assert setting.runner.created == []


async def test_a_plan_with_problems_creates_nothing() -> None:
    setting = Setting()
    setting.resolver.failure = PlanInvalid("two problems")

    with pytest.raises(PlanInvalid):
        await setting.launch()

    assert setting.gateway.pulled == []


async def test_a_materializer_that_ends_without_an_image_made_none() -> None:
    setting = Setting(a_plan())
    setting.materializer.digest = ""

    with pytest.raises(ServiceUnavailable):
        await setting.launch()

    assert setting.runner.created == []


async def test_a_resolver_without_a_plan_is_a_service_that_does_not_work() -> None:
    with pytest.raises(ServiceUnavailable):
        await Setting().launch()


@pytest.mark.parametrize(
    "plans",
    [(a_plan(has_workflow=True),), (a_plan(), a_plan(has_workflow=True))],
    ids=["a workflow", "a workflow of several agents"],
)
async def test_what_this_version_does_not_run_is_reported(
    plans: tuple[plan_pb.RunPlan, ...],
) -> None:
    setting = Setting(*plans)

    with pytest.raises(Unimplemented) as refusal:
        await setting.launch()

    assert refusal.value.hint
    assert setting.gateway.pulled == []


async def test_warnings_of_plan_and_image_reach_the_person() -> None:
    setting = Setting(a_plan(warnings=["credentials not set up"]))
    setting.materializer.warnings = ["artifact without layers"]

    await setting.launch()

    assert setting.reporter.notes == ["lns: credentials not set up", "lns: artifact without layers"]


async def test_a_client_that_is_interrupted_while_creating_takes_the_run_back() -> None:
    setting = Setting(a_plan())
    setting.runner.creating.clear()

    launching = asyncio.ensure_future(setting.launch())
    await eventually(lambda: bool(setting.runner.created))
    launching.cancel()
    await asyncio.sleep(0)
    setting.runner.creating.set()

    with pytest.raises(asyncio.CancelledError):
        await launching
    assert setting.runner.removed == [RUN_ID]


async def test_the_first_failure_ends_the_other_pulls() -> None:
    setting = Setting(a_plan())
    failures: list[LnsError] = [ManifestUnknown("image"), ManifestUnknown("model")]
    setting.gateway.failures = dict(zip([IMAGE, MODEL], failures, strict=True))

    with pytest.raises(ManifestUnknown) as failure:
        await setting.launch()

    assert failure.value in failures


def a_team() -> Setting:
    setting = Setting(
        a_plan(group="team", member="writer"),
        a_plan(group="team", member="critic", warnings=["w"]),
    )
    setting.group = FakeGroup("writer", "critic")
    return setting


async def test_several_agents_become_a_group_whose_runs_are_all_there_before_one_starts() -> None:
    setting = a_team()
    assert setting.group is not None
    setting.options.name = "mine"

    runs = await setting.launch_all()

    assert [run.run_id for run in runs] == ["writer", "critic"]
    writer, critic = setting.group.created
    assert writer.group == critic.group
    assert (critic.group.id, critic.group.name) == ("abc", "mine")
    assert list(critic.group.members) == ["writer", "critic"]
    assert [one.request_id for one in (writer, critic)] == ["abc-0", "abc-1"]
    assert all(one.do_not_start and one.options.remove for one in (writer, critic))
    assert not writer.options.name
    assert critic.image_digest == setting.materializer.digest
    assert [member.started for member in setting.group.members.values()] == [1, 1]
    assert setting.reporter.notes == ["lns: w"]


async def test_of_a_group_that_cannot_be_whole_nothing_is_left() -> None:
    setting = a_team()
    assert setting.group is not None
    setting.group.refusals["critic"] = NameTaken("critic is taken")
    with pytest.raises(NameTaken):
        await setting.launch_all()
    assert setting.group.removed == ["writer"]

    setting = a_team()
    assert setting.group is not None
    setting.group.members["writer"].cannot_start = InUse("port 80 is in use")
    with pytest.raises(InUse):
        await setting.launch_all()
    assert setting.group.removed == ["writer", "critic"]

    setting = a_team()
    assert setting.group is not None
    setting.gateway.failures = {MODEL: ManifestUnknown("model")}
    with pytest.raises(ManifestUnknown):
        await setting.launch_all()
    assert setting.group.created == []


async def test_a_client_that_is_interrupted_between_the_runs_of_a_group_takes_all_back() -> None:
    setting = a_team()
    assert setting.group is not None
    critic = setting.group.members["critic"]
    critic.creating.clear()

    launching = asyncio.ensure_future(setting.launch_all())
    await eventually(lambda: bool(critic.created))
    launching.cancel()
    await asyncio.sleep(0)
    critic.creating.set()

    with pytest.raises(asyncio.CancelledError):
        await launching
    assert setting.group.removed == ["writer", "critic"]


async def test_a_group_that_a_killed_client_left_unstarted_is_reported() -> None:
    setting = a_team()
    assert setting.group is not None
    for member in setting.group.members.values():
        member.run.state = run_pb2.Run.STATE_CREATED

    await setting.launch_all()

    assert setting.reporter.notes[-1] == (
        "lns: the runs of group team were created but not started;"
        " `lns start team` starts them, `lns rm team` removes them"
    )


@pytest.mark.parametrize("flag", ["tty", "stdin"])
async def test_a_group_has_no_terminal_and_no_input(flag: str) -> None:
    setting = a_team()
    setattr(setting.options, flag, True)

    with pytest.raises(RequestInvalid, match="2 agents"):
        await setting.launch_all()
    assert setting.gateway.pulled == []
