"""`lns.egress.v1.EgressService` as its clients have it: every call, and every error by its type."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass

import pytest
from lns.egress.v1 import egress_service_pb2 as pb
from lns.egress.v1.egress_service_pb2_grpc import EgressServiceStub
from lns.vm.v1 import run_pb2, vm_service_pb2

from services.chassis.channel import open_channel
from services.chassis.settings import PeerSettings
from services.core.egress import audit
from services.core.errors import (
    ApprovalUnknown,
    ArtifactInvalid,
    LimitExceeded,
    LnsError,
    RequestInvalid,
    RunStateConflict,
    RunUnknown,
)
from services.vm_runner.boundary.approvals import ApprovalKind, Outcome, Question
from services.vm_runner.boundary.records import EgressRecord, RecordKind
from tests.support.eventually import eventually
from tests.support.vm_service import VmClient, VmWorld

FOREVER = ("tail", "-f", "/dev/null")
DENY = "network:\n  defaultVerdict: deny\n"


@dataclass(frozen=True, slots=True)
class Egress:
    """The service's stub, and a run that lives."""

    stub: "EgressServiceStub"
    run: run_pb2.Run
    world: VmWorld

    def ask(self, host: str = "api.test", **more: object) -> "asyncio.Task[Outcome]":
        """Has a program of the run ask."""
        question = Question(run_id=self.run.run_id, host=host, **more)  # type: ignore[arg-type] - a test's
        asking = self.world.approvals.ask(
            question, run_name=self.run.name, seconds=60, note="please", origin="lns-policy.yaml"
        )
        return asyncio.ensure_future(asking)

    async def listed(self, run: str = "") -> list[pb.Approval]:
        response = await self.stub.ListApprovals(pb.ListApprovalsRequest(run=run))
        return list(response.approvals)

    async def waits(self, count: int = 1) -> list[pb.Approval]:
        await eventually(lambda: len(self.world.approvals.list()) == count)
        return await self.listed()


@pytest.fixture
async def egress(world: VmWorld, vm: VmClient) -> AsyncIterator[Egress]:
    run = await vm.create(*FOREVER)
    await vm.until(run.run_id, run_pb2.Run.STATE_RUNNING)
    peer = PeerSettings(target=f"unix:{world.home}/vm.sock")
    async with open_channel(peer, pb.DESCRIPTOR) as channel:
        yield Egress(EgressServiceStub(channel), run, world)
    await vm.stub.RemoveRun(vm_service_pb2.RemoveRunRequest(run=run.run_id, force=True))


async def test_what_is_asked_for_is_listed_with_all_that_a_person_needs(egress: Egress) -> None:
    asking = [egress.ask(port=443), egress.ask(port=443)]
    (one,) = await egress.waits()

    assert (one.run_id, one.run_name) == (egress.run.run_id, egress.run.name)
    assert (one.host, one.port, one.kind) == ("api.test", 443, pb.Approval.KIND_CONNECTION)
    assert (one.waiting_count, one.note, one.origin) == (2, "please", "lns-policy.yaml")
    assert one.expire_time.ToSeconds() - one.create_time.ToSeconds() == 60
    assert await egress.listed(egress.run.name) == await egress.listed() == [one]
    for task in asking:
        task.cancel()


@pytest.mark.parametrize(
    ("verdict", "outcome", "settled"),
    [
        ("allow", Outcome.ALLOWED, pb.ApprovalSettled.OUTCOME_ALLOWED),
        ("deny", Outcome.DENIED, pb.ApprovalSettled.OUTCOME_DENIED),
    ],
)
async def test_an_answer_ends_the_wait_and_watchers_see_it(
    egress: Egress, verdict: str, outcome: Outcome, settled: int
) -> None:
    asking = egress.ask(port=443)
    (one,) = await egress.waits()
    watch = egress.stub.WatchApprovals(pb.WatchApprovalsRequest(run=egress.run.run_id[:8]))
    first = await watch.read()
    assert isinstance(first, pb.WatchApprovalsResponse)
    assert first.asked.approval_id == one.approval_id

    answer = pb.AnswerApprovalRequest(approval_id=one.approval_id[:6], verdict=verdict)
    assert (await egress.stub.AnswerApproval(answer)).approval.approval_id == one.approval_id

    assert await asking is outcome
    second = await watch.read()
    assert isinstance(second, pb.WatchApprovalsResponse)
    assert second.settled.approval_id == one.approval_id
    assert second.settled.outcome == settled
    assert await egress.listed() == []
    with pytest.raises(ApprovalUnknown):
        await egress.stub.AnswerApproval(answer)
    watch.cancel()


async def test_what_waits_is_withdrawn_with_its_run(egress: Egress, vm: VmClient) -> None:
    asking = egress.ask(host="api.test", kind=ApprovalKind.CREDENTIAL, integration="field")
    (one,) = await egress.waits()
    assert (one.kind, one.integration) == (pb.Approval.KIND_CREDENTIAL, "field")

    await vm.stub.KillRun(vm_service_pb2.KillRunRequest(run=egress.run.run_id, signal="KILL"))

    assert await asking is Outcome.WITHDRAWN


async def test_the_members_of_a_group_are_listed_and_watched_by_its_name(
    egress: Egress, vm: VmClient, world: VmWorld
) -> None:
    group = run_pb2.RunGroup(id="c" * 32, name="team-1", members=["a", "b"])
    members = [
        await vm.create(*FOREVER, group=group, member=name, start=False) for name in ("a", "b")
    ]
    alone = egress.ask(port=443)
    asking = [
        asyncio.ensure_future(
            world.approvals.ask(
                Question(run_id=one.run_id, host="api.test", port=80),
                run_name=one.name,
                seconds=60,
            )
        )
        for one in members
    ]
    await egress.waits(3)

    for name in (group.name, group.id):
        assert [one.run_id for one in await egress.listed(name)] == [one.run_id for one in members]
        watch = egress.stub.WatchApprovals(pb.WatchApprovalsRequest(run=name))
        seen = [await watch.read() for _ in members]
        assert {one.asked.run_id for one in seen if isinstance(one, pb.WatchApprovalsResponse)} == {
            one.run_id for one in members
        }
        watch.cancel()
    for task in (alone, *asking):
        task.cancel()


async def test_a_run_of_a_client_without_a_project_has_a_policy_of_its_own(egress: Egress) -> None:
    name = egress.run.name
    before = await egress.stub.GetRunPolicy(pb.GetRunPolicyRequest(run=name))
    assert before.is_own
    assert before.run_id == egress.run.run_id

    await egress.stub.UpdateRunPolicy(pb.UpdateRunPolicyRequest(run=name, text=DENY))
    after = await egress.stub.GetRunPolicy(pb.GetRunPolicyRequest(run=name))
    assert (after.text, after.problem, after.path) == (DENY, "", before.path)

    with pytest.raises(ArtifactInvalid):
        await egress.stub.UpdateRunPolicy(
            pb.UpdateRunPolicyRequest(run=name, text="network: {defaultVerdict: perhaps}")
        )
    assert (await egress.stub.GetRunPolicy(pb.GetRunPolicyRequest(run=name))).text == DENY


async def test_the_file_of_a_project_is_not_the_services_to_replace(
    egress: Egress, vm: VmClient, world: VmWorld
) -> None:
    file = world.home / "lns-policy.yaml"
    file.write_text(DENY)
    run = await vm.create(*FOREVER, options=run_pb2.RunOptions(policy_file=str(file)))
    await vm.until(run.run_id, run_pb2.Run.STATE_RUNNING)

    policy = await egress.stub.GetRunPolicy(pb.GetRunPolicyRequest(run=run.run_id))
    assert (policy.is_own, policy.path, policy.text) == (False, str(file), DENY)
    with pytest.raises(RunStateConflict):
        await egress.stub.UpdateRunPolicy(pb.UpdateRunPolicyRequest(run=run.run_id, text=DENY))
    file.write_text("network: [")
    policy = await egress.stub.GetRunPolicy(pb.GetRunPolicyRequest(run=run.run_id))
    assert policy.text == DENY
    assert policy.problem.startswith(f"{file}: ")
    await vm.stub.RemoveRun(vm_service_pb2.RemoveRunRequest(run=run.run_id, force=True))


async def test_records_are_read_followed_and_verified(egress: Egress, vm: VmClient) -> None:
    log = egress.world.runner.register.find(egress.run.run_id).boundary.audit
    await log.open()
    for port in (1, 2):
        await log.append(
            EgressRecord(
                kind=RecordKind.CONNECTION,
                verdict="deny",
                host="evil.test",
                port=port,
                reason="by the default",
                how_to_allow="lns policy allow evil.test",
            )
        )

    async def read(**more: object) -> list[pb.EgressRecord]:
        request = pb.ReadEgressRequest(run=egress.run.name, **more)  # type: ignore[arg-type] - the proto checks
        return [one.record async for one in egress.stub.ReadEgress(request)]

    ports = [one.port for one in await read() if one.host == "evil.test"]
    assert ports == [1, 2]
    last = (await read())[-1]
    assert (last.kind, last.verdict, last.reason) == ("connection", "deny", "by the default")
    assert last.how_to_allow == "lns policy allow evil.test"
    assert await read(after_sequence=last.sequence) == []

    following = asyncio.ensure_future(read(after_sequence=last.sequence - 1, follow=True))
    await vm.stub.KillRun(vm_service_pb2.KillRunRequest(run=egress.run.run_id, signal="KILL"))
    assert (await following)[0].port == 2  # and it ends with the run

    pieces = egress.stub.ReadAudit(pb.ReadAuditRequest(run=egress.run.name))
    text = b"".join([one.data async for one in pieces])
    lines = list(audit.verified(text.splitlines(keepends=True)))
    assert [line.values["port"] for line in lines if line.values.get("host")] == [1, 2]


async def call_all(stub: "EgressServiceStub", run: str) -> list[LnsError | None]:
    """Returns how each call ends that names a run."""

    async def unary(call: object) -> LnsError | None:
        try:
            await call  # type: ignore[misc] - a call of gRPC
        except LnsError as error:
            return error
        return None

    async def stream(call: object) -> LnsError | None:
        try:
            async for _ in call:  # type: ignore[attr-defined] - a call of gRPC
                pass
        except LnsError as error:
            return error
        return None

    return [
        await unary(stub.ListApprovals(pb.ListApprovalsRequest(run=run))),
        await stream(stub.WatchApprovals(pb.WatchApprovalsRequest(run=run))),
        await unary(stub.GetRunPolicy(pb.GetRunPolicyRequest(run=run))),
        await unary(stub.UpdateRunPolicy(pb.UpdateRunPolicyRequest(run=run, text=DENY))),
        await stream(stub.ReadEgress(pb.ReadEgressRequest(run=run))),
        await stream(stub.ReadAudit(pb.ReadAuditRequest(run=run))),
    ]


async def test_a_run_that_does_not_exist_is_unknown_to_every_call(egress: Egress) -> None:
    errors = await call_all(egress.stub, "nobody")
    assert [type(error) for error in errors] == [RunUnknown] * 6


@pytest.mark.parametrize(
    ("request_", "error"),
    [
        (pb.AnswerApprovalRequest(approval_id="ffff", verdict="allow"), ApprovalUnknown),
        (pb.AnswerApprovalRequest(approval_id="", verdict="allow"), ApprovalUnknown),
        (pb.AnswerApprovalRequest(approval_id="ffff", verdict="ask"), RequestInvalid),
        (pb.AnswerApprovalRequest(approval_id="ffff"), RequestInvalid),
    ],
)
async def test_an_answer_that_cannot_be_one_is_refused(
    egress: Egress, request_: pb.AnswerApprovalRequest, error: type[LnsError]
) -> None:
    with pytest.raises(error):
        await egress.stub.AnswerApproval(request_)


async def test_a_policy_of_more_than_a_mebibyte_is_refused(egress: Egress) -> None:
    text = "#" * ((1 << 20) + 1)
    with pytest.raises(LimitExceeded):
        await egress.stub.UpdateRunPolicy(pb.UpdateRunPolicyRequest(run=egress.run.name, text=text))
