"""Answers to approvals: what is sent, and what `always` writes where."""

from pathlib import Path
from typing import Any, cast

import pytest
from lns.egress.v1 import egress_service_pb2 as pb
from lns.egress.v1.egress_service_pb2_grpc import EgressServiceStub

from lns.client.running.approving import answer
from services.core.policy_file import parse_policy_file
from services.core.run_plan import Verdict

CONNECTION = pb.Approval(
    approval_id="a1",
    run_id="r1",
    run_name="scout",
    kind=pb.Approval.KIND_CONNECTION,
    host="api.example.com",
    port=443,
    note="to fetch the weather",
)
CREDENTIAL = pb.Approval(
    approval_id="a2",
    run_id="r1",
    run_name="scout",
    kind=pb.Approval.KIND_CREDENTIAL,
    host="api.anthropic.com",
    integration="anthropic",
)


class Egress:
    """The service's part in an answer; keeps what it is sent."""

    def __init__(self, path: Path, *, is_own: bool, text: str = "") -> None:
        self.sent: list[Any] = []
        self._policy = pb.GetRunPolicyResponse(path=str(path), is_own=is_own, text=text)

    async def GetRunPolicy(self, request: pb.GetRunPolicyRequest) -> pb.GetRunPolicyResponse:
        assert request.run == "r1"
        return self._policy

    async def UpdateRunPolicy(self, request: pb.UpdateRunPolicyRequest) -> None:
        self.sent.append(request)

    async def AnswerApproval(self, request: pb.AnswerApprovalRequest) -> None:
        self.sent.append(request)


async def answered(egress: Egress, approval: pb.Approval, verdict: Verdict, *, always: bool) -> str:
    stub = cast("EgressServiceStub", egress)
    return await answer(stub, approval, verdict, always=always)


@pytest.mark.parametrize("approval", [CONNECTION, CREDENTIAL], ids=["connection", "credential"])
async def test_an_answer_for_one_run_writes_nothing(tmp_path: Path, approval: pb.Approval) -> None:
    egress = Egress(tmp_path / "policy.yaml", is_own=False)

    assert await answered(egress, approval, Verdict.ALLOW, always=False) == ""

    (sent,) = egress.sent
    assert (sent.approval_id, sent.verdict) == (approval.approval_id, "allow")
    assert not (tmp_path / "policy.yaml").exists()


async def test_always_writes_a_route_with_who_asked_before_it_answers(tmp_path: Path) -> None:
    path = tmp_path / "policy.yaml"
    egress = Egress(path, is_own=False)

    remark = await answered(egress, CONNECTION, Verdict.DENY, always=True)

    assert remark == f"api.example.com:443: deny in {path}"
    (route,) = parse_policy_file(path.read_bytes(), name="p").routes
    assert (route.match, route.verdict) == ("api.example.com:443", Verdict.DENY)
    assert "asked for by scout: to fetch the weather" in path.read_text()


async def test_always_permits_the_integration_of_a_credential(tmp_path: Path) -> None:
    path = tmp_path / "policy.yaml"
    egress = Egress(path, is_own=False)

    remark = await answered(egress, CREDENTIAL, Verdict.ALLOW, always=True)

    assert remark == f"the key of anthropic for api.anthropic.com: allow in {path}"
    assert parse_policy_file(path.read_bytes(), name="p").integrations == ("anthropic",)
    assert egress.sent[-1].verdict == "allow"


async def test_a_denied_credential_is_denied_for_this_run(tmp_path: Path) -> None:
    egress = Egress(tmp_path / "policy.yaml", is_own=False)

    assert await answered(egress, CREDENTIAL, Verdict.DENY, always=True) == ""

    (sent,) = egress.sent
    assert sent.verdict == "deny"
    assert not (tmp_path / "policy.yaml").exists()


async def test_a_runs_own_policy_is_sent_to_the_service(tmp_path: Path) -> None:
    egress = Egress(tmp_path / "policy.yaml", is_own=True, text="integrations: [openai]\n")

    await answered(egress, CREDENTIAL, Verdict.ALLOW, always=True)

    update, sent = egress.sent
    policy = parse_policy_file(update.text.encode(), name="p")
    assert policy.integrations == ("openai", "anthropic")
    assert sent.approval_id == "a2"
    assert not (tmp_path / "policy.yaml").exists()
