"""The question in `lns run`: asked once, answered by what is typed, taken back when settled."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import cast

import pytest
from lns.egress.v1 import credential_service_pb2 as credential_pb
from lns.egress.v1 import egress_service_pb2 as pb
from lns.egress.v1.credential_service_pb2_grpc import CredentialServiceStub
from lns.egress.v1.egress_service_pb2_grpc import EgressServiceStub

from cli.run.prompting import Prompter
from services.core.errors import ApprovalUnknown, RequestInvalid
from tests.support.eventually import eventually

ASKED = pb.Approval(
    approval_id="3f2a", run_id="r", run_name="surveyor", host="api.example.com", port=443,
    note="to read\x1b[2J the docs",
)  # fmt: skip


class FakeEgress:
    """The service, with the events that a test puts in."""

    def __init__(self, policy: Path) -> None:
        self.events: asyncio.Queue[pb.WatchApprovalsResponse] = asyncio.Queue()
        self.answers: list[tuple[str, str]] = []
        self._policy = policy
        self.gone = False

    async def WatchApprovals(  # noqa: N802 - as the stub
        self, request: pb.WatchApprovalsRequest
    ) -> AsyncIterator[pb.WatchApprovalsResponse]:
        while True:
            yield await self.events.get()

    async def AnswerApproval(  # noqa: N802 - as the stub
        self, request: pb.AnswerApprovalRequest
    ) -> pb.AnswerApprovalResponse:
        if self.gone:
            raise ApprovalUnknown("it has expired")
        self.answers.append((request.approval_id, request.verdict))
        return pb.AnswerApprovalResponse()

    async def GetRunPolicy(  # noqa: N802 - as the stub
        self, request: pb.GetRunPolicyRequest
    ) -> pb.GetRunPolicyResponse:
        return pb.GetRunPolicyResponse(run_id="r", path=str(self._policy))


class FakeCredentials:
    """The store, which takes keys of one line."""

    def __init__(self) -> None:
        self.stored: list[tuple[str, str]] = []

    async def PutCredential(  # noqa: N802 - as the stub
        self, request: credential_pb.PutCredentialRequest
    ) -> credential_pb.PutCredentialResponse:
        if not request.value:
            raise RequestInvalid("the secret is empty")
        self.stored.append((request.integration, request.value))
        return credential_pb.PutCredentialResponse()


class FakeAsker:
    """A person at a terminal."""

    def __init__(self) -> None:
        self.shown: list[str] = []
        self.typed: asyncio.Queue[str] = asyncio.Queue()
        self.is_asking = False

    @contextlib.asynccontextmanager
    async def asking(self, lines: list[str]) -> AsyncIterator["FakeAsker"]:
        self.shown += lines
        self.is_asking = True
        yield self
        self.is_asking = False

    async def line(self) -> str:
        return await self.typed.get()

    async def secret(self) -> str:
        return await self.typed.get()

    async def say(self, text: str) -> None:
        self.shown.append(text)


@pytest.fixture
def egress(tmp_path: Path) -> FakeEgress:
    (tmp_path / "lns-policy.yaml").write_text("# mine\nnetwork: {defaultVerdict: ask}\n")
    return FakeEgress(tmp_path / "lns-policy.yaml")


@contextlib.asynccontextmanager
async def prompted(
    egress: FakeEgress,
    asker: FakeAsker | None,
    *,
    asked: pb.Approval = ASKED,
    credentials: FakeCredentials | None = None,
) -> AsyncIterator[list[str]]:
    notes: list[str] = []
    prompter = Prompter(
        cast("EgressServiceStub", egress),
        cast("CredentialServiceStub", credentials or FakeCredentials()),
        "r",
        asker,
        notes.append,
    )
    async with prompter.prompting():
        egress.events.put_nowait(pb.WatchApprovalsResponse(asked=asked))
        yield notes


@pytest.mark.parametrize(
    ("typed", "verdict"), [("a", "allow"), ("D ", "deny"), ("aa", "allow"), ("dd", "deny")]
)
async def test_what_is_typed_answers(egress: FakeEgress, typed: str, verdict: str) -> None:
    asker = FakeAsker()
    async with prompted(egress, asker):
        await eventually(lambda: asker.is_asking)
        asker.typed.put_nowait(typed)
        await eventually(lambda: bool(egress.answers))
        await eventually(lambda: not asker.is_asking)
    assert egress.answers == [("3f2a", verdict)]
    text = egress._policy.read_text()
    assert ("api.example.com:443" in text) is (len(typed.strip()) == 2)
    assert text.startswith("# mine")


async def test_anything_else_is_no_answer(egress: FakeEgress) -> None:
    asker = FakeAsker()
    async with prompted(egress, asker):
        for typed in ("", "yes", "ls -l", "a"):
            asker.typed.put_nowait(typed)
        await eventually(lambda: bool(egress.answers))
    assert egress.answers == [("3f2a", "allow")]


async def test_a_guest_s_words_do_not_steer_the_terminal(egress: FakeEgress) -> None:
    asker = FakeAsker()
    async with prompted(egress, asker):
        await eventually(lambda: asker.is_asking)
    assert not any("\x1b" in line for line in asker.shown)


async def test_a_question_that_is_settled_elsewhere_is_taken_back(egress: FakeEgress) -> None:
    asker = FakeAsker()
    async with prompted(egress, asker):
        await eventually(lambda: asker.is_asking)
        settled = pb.ApprovalSettled(approval_id="3f2a")
        egress.events.put_nowait(pb.WatchApprovalsResponse(settled=settled))
        await eventually(lambda: not asker.is_asking)
    assert egress.answers == []


async def test_an_answer_that_comes_too_late_ends_the_question(egress: FakeEgress) -> None:
    asker, egress.gone = FakeAsker(), True
    async with prompted(egress, asker):
        await eventually(lambda: asker.is_asking)
        asker.typed.put_nowait("a")
        await eventually(lambda: not asker.is_asking)


async def test_where_nobody_can_be_asked_a_line_says_how_to_answer(egress: FakeEgress) -> None:
    async with prompted(egress, None) as notes:
        await eventually(lambda: bool(notes))
    assert "lns approvals allow 3f2a" in notes[0]


MISSING = pb.Approval(
    approval_id="77c1", run_id="r", run_name="surveyor", host="api.anthropic.com",
    kind=pb.Approval.KIND_CREDENTIAL, integration="anthropic",
)  # fmt: skip


async def test_a_missing_key_that_is_typed_is_stored_and_lets_the_request_go_on(
    egress: FakeEgress,
) -> None:
    asker, credentials = FakeAsker(), FakeCredentials()
    async with prompted(egress, asker, asked=MISSING, credentials=credentials):
        await eventually(lambda: asker.is_asking)
        for typed in ("k", "sk-ant-secret\n"):
            asker.typed.put_nowait(typed)
        await eventually(lambda: not asker.is_asking)
    assert credentials.stored == [("anthropic", "sk-ant-secret")]
    assert egress.answers == [("77c1", "allow")]
    assert not any("sk-ant-secret" in line for line in asker.shown)


async def test_a_key_that_cannot_be_stored_leaves_the_question(egress: FakeEgress) -> None:
    asker, credentials = FakeAsker(), FakeCredentials()
    async with prompted(egress, asker, asked=MISSING, credentials=credentials):
        for typed in ("k", "\n"):
            asker.typed.put_nowait(typed)
        await eventually(lambda: "lns: the secret is empty" in asker.shown)
        assert asker.is_asking
    assert egress.answers == []


async def test_a_key_is_no_answer_to_a_question_about_a_connection(egress: FakeEgress) -> None:
    asker, credentials = FakeAsker(), FakeCredentials()
    async with prompted(egress, asker, credentials=credentials):
        for typed in ("k", "d"):
            asker.typed.put_nowait(typed)
        await eventually(lambda: bool(egress.answers))
    assert egress.answers == [("3f2a", "deny")]
    assert credentials.stored == []


async def test_where_nobody_can_be_asked_for_a_key_a_line_says_how_to_store_it(
    egress: FakeEgress,
) -> None:
    async with prompted(egress, None, asked=MISSING) as notes:
        await eventually(lambda: bool(notes))
    assert "`lns connect anthropic` stores it" in notes[0]
