"""`lns approvals`, `egress`, `audit`, `policy presets`, against a service that is scripted."""

import json
from pathlib import Path
from typing import Any

import pytest
from google.protobuf.timestamp_pb2 import Timestamp
from lns.egress.v1 import egress_service_pb2 as pb

from services.core.egress import audit
from services.core.errors import ApprovalUnknown, RunUnknown
from tests.behaviour.cli.conftest import Client
from tests.support.scripted_services import ScriptedServices

LATER = 4_000_000_000
CONNECTION = pb.Approval(
    approval_id="3f2a11112222", run_id="a" * 32, run_name="scout", host="api.test", port=443,
    kind=pb.Approval.KIND_CONNECTION, waiting_count=2, note="to read\x1b[2J the docs",
    expire_time=Timestamp(seconds=LATER),
)  # fmt: skip
CREDENTIAL = pb.Approval(
    approval_id="9c0d33334444", run_id="b" * 32, run_name="writer", host="api.test",
    kind=pb.Approval.KIND_CREDENTIAL, integration="field", waiting_count=1,
    expire_time=Timestamp(seconds=LATER),
)  # fmt: skip
RECORDS = (
    pb.EgressRecord(sequence=1, kind="connection", verdict="allow", host="api.test", port=443,
                    address="192.0.2.7", event_time=Timestamp(seconds=3661)),
    pb.EgressRecord(sequence=2, kind="connection", verdict="deny", host="evil.test", port=80,
                    reason="denied by the default", how_to_allow="lns policy allow evil.test:80"),
    pb.EgressRecord(sequence=3, kind="closed", host="api.test", port=443, sent_bytes=2000,
                    received_bytes=3_000_000),
)  # fmt: skip


@pytest.fixture
def asked(services: ScriptedServices) -> ScriptedServices:
    """A service where two runs ask."""
    services["ListApprovals"] = pb.ListApprovalsResponse(approvals=[CONNECTION, CREDENTIAL])

    def answered(request: pb.AnswerApprovalRequest) -> pb.AnswerApprovalResponse:
        (found,) = [
            one for one in (CONNECTION, CREDENTIAL) if one.approval_id == request.approval_id
        ]
        return pb.AnswerApprovalResponse(approval=found)

    services["AnswerApproval"] = answered
    return services


def test_what_is_asked_for_is_a_table_without_a_guests_escapes(
    asked: ScriptedServices, lns: Client
) -> None:
    result = lns("approvals", "list", "--run", "scout")

    head, first, second = result.out.splitlines()
    assert head.split() == ["ID", "RUN", "ASKS", "FOR", "WAITING", "EXPIRES", "IN", "WHY"]
    assert first.split()[:4] == ["3f2a11112222", "scout", "api.test:443", "2"]
    assert "\x1b" not in first
    assert "the key of field for api.test" in second
    assert asked.asked("ListApprovals") == [pb.ListApprovalsRequest(run="scout")]
    assert lns("approvals", "list", "-q").out.split() == ["3f2a11112222", "9c0d33334444"]


def test_watch_shows_each_question_once_and_how_it_ended(
    asked: ScriptedServices, lns: Client
) -> None:
    settled = pb.ApprovalSettled(
        approval_id=CONNECTION.approval_id, outcome=pb.ApprovalSettled.OUTCOME_EXPIRED
    )
    asked["WatchApprovals"] = [
        pb.WatchApprovalsResponse(asked=CONNECTION),
        pb.WatchApprovalsResponse(asked=CONNECTION),
        pb.WatchApprovalsResponse(settled=settled),
    ]

    result = lns("approvals", "watch")

    first, second = result.out.splitlines()
    assert first.startswith("3f2a11112222  scout asks for api.test:443 (to read")
    assert second == "3f2a11112222  scout asks for api.test:443: expired, and so denied"


@pytest.mark.parametrize("verdict", ["allow", "deny"])
def test_an_answer_takes_the_beginning_of_an_id(
    asked: ScriptedServices, lns: Client, verdict: str
) -> None:
    result = lns("approvals", verdict, "3f", "9c")

    assert result.code == 0, result
    assert result.out.splitlines() == [
        f"api.test:443: {verdict} for scout",
        f"the key of field for api.test: {verdict} for writer",
    ]
    assert [(one.approval_id, one.verdict) for one in asked.asked("AnswerApproval")] == [
        (CONNECTION.approval_id, verdict),
        (CREDENTIAL.approval_id, verdict),
    ]


@pytest.mark.parametrize(("text", "why"), [("ffff", "is waited for"), ("", "is waited for")])
def test_an_id_that_nobody_has_is_an_error_with_a_way_on(
    asked: ScriptedServices, lns: Client, text: str, why: str
) -> None:
    result = lns("approvals", "allow", text)

    assert result.code != 0
    assert why in result.err
    assert "lns approvals list" in result.err
    assert asked.asked("AnswerApproval") == []


def test_always_writes_a_rule_to_the_projects_file_before_it_answers(
    asked: ScriptedServices, lns: Client, tmp_path: Path
) -> None:
    file = tmp_path / "lns-policy.yaml"
    file.write_text("# ours\nnetwork:\n  defaultVerdict: ask # by hand\n  allowedRoutes: []\n")
    asked["GetRunPolicy"] = pb.GetRunPolicyResponse(path=str(file))

    def gone(request: Any) -> pb.AnswerApprovalResponse:
        assert "api.test:443" in file.read_text()
        raise ApprovalUnknown("it has expired meanwhile")

    asked["AnswerApproval"] = gone
    result = lns("approvals", "allow", "--always", "3f2a")

    assert result.code == 0, result  # the rule stands, and the next try finds it
    text = file.read_text()
    assert "# ours\n" in text
    assert "# by hand" in text
    assert "asked for by scout" in text


def test_always_edits_the_policy_of_a_run_that_has_its_own_through_the_service(
    asked: ScriptedServices, lns: Client
) -> None:
    asked["GetRunPolicy"] = pb.GetRunPolicyResponse(
        path="/state/policy.yaml", is_own=True, text="network: {}\n"
    )
    asked["UpdateRunPolicy"] = pb.UpdateRunPolicyResponse()

    assert lns("approvals", "deny", "--always", "3f2a").code == 0

    (update,) = asked.asked("UpdateRunPolicy")
    assert update.run == CONNECTION.run_id
    assert "api.test:443" in update.text
    assert "deny" in update.text


def test_egress_says_what_became_of_each_connection(
    services: ScriptedServices, lns: Client
) -> None:
    services["ReadEgress"] = [pb.ReadEgressResponse(record=one) for one in RECORDS]

    result = lns("egress", "-f", "scout")

    allowed, denied, closed = result.out.splitlines()
    assert allowed == "01:01:01  allow  api.test:443 (192.0.2.7)"
    assert denied.endswith(
        "deny  evil.test:80  - denied by the default  [lns policy allow evil.test:80]"
    )
    assert "2kB sent, 3MB received" in closed
    assert services.asked("ReadEgress") == [pb.ReadEgressRequest(run="scout", follow=True)]
    assert lns("egress", "--denied", "scout").out == f"{denied}\n"
    documents = [json.loads(line) for line in lns("egress", "--json", "scout").out.splitlines()]
    assert [one["host"] for one in documents] == ["api.test", "evil.test", "api.test"]


def lines_of(count: int) -> list[bytes]:
    """Returns an audit log."""
    lines, previous = [], audit.FIRST
    for number in range(1, count + 1):
        sealed = audit.seal({"kind": "policy", "n": number}, sequence=number, previous=previous)
        lines.append(sealed.data)
        previous = sealed.hash
    return lines


def test_audit_verifies_a_log_however_it_is_cut_into_pieces(
    services: ScriptedServices, lns: Client
) -> None:
    lines = lines_of(3)
    text = b"".join(lines)
    services["ReadAudit"] = [
        pb.ReadAuditResponse(data=text[at : at + 50]) for at in range(0, len(text), 50)
    ]

    result = lns("audit", "scout")

    assert result.code == 0, result
    assert result.out.encode() == text
    assert "3 lines, each follows on the one before" in result.err
    assert lns("audit", "-q", "scout").out == ""


@pytest.mark.parametrize(
    ("change", "shown"),
    [
        (lambda lines: [lines[0], lines[1].replace(b'"n":2', b'"n":7'), lines[2]], 1),
        (lambda lines: [lines[0], lines[2]], 1),
        (lambda lines: [lines[0], lines[0], *lines[1:]], 1),
        (lambda lines: [lines[1], lines[0], lines[2]], 1),
        (lambda lines: [lines[0], b"{}\n"], 1),
    ],
    ids=["changed", "taken out", "put in", "another order", "no line of a log"],
)
def test_audit_fails_where_a_line_is_not_as_it_was_written(
    services: ScriptedServices, lns: Client, change: Any, shown: int
) -> None:
    changed = change(lines_of(3))
    assert changed != lines_of(3)
    services["ReadAudit"] = [pb.ReadAuditResponse(data=b"".join(changed))]

    result = lns("audit", "scout")

    assert result.code == 1
    assert len(result.out.splitlines()) == shown
    assert result.err.startswith("lns: ")


@pytest.mark.parametrize(
    ("method", "arguments"),
    [
        ("ReadEgress", ("egress", "nobody")),
        ("ReadAudit", ("audit", "nobody")),
        ("ListApprovals", ("approvals", "list", "--run", "nobody")),
        ("WatchApprovals", ("approvals", "watch", "--run", "nobody")),
    ],
)
def test_a_run_that_does_not_exist_is_said(
    services: ScriptedServices, lns: Client, method: str, arguments: tuple[str, ...]
) -> None:
    services[method] = RunUnknown("the run 'nobody' does not exist", hint="`lns ps -a` lists them")

    result = lns(*arguments)

    assert result.code != 0
    assert "why: the run 'nobody' does not exist" in result.err
    assert "lns ps -a" in result.err


def test_presets_are_listed_and_added_with_what_they_are_for(
    lns: Client, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    listed = lns("policy", "presets").out
    assert "git-readonly" in listed
    assert "anthropic" in listed

    assert lns("policy", "presets", "git-readonly").code == 0
    text = (tmp_path / "lns-policy.yaml").read_text()
    assert "github.com" in text
    assert "#" in text
    assert lns("policy", "test", "github.com", "POST", "/a/b.git/git-receive-pack").code == 1

    result = lns("policy", "presets", "git-readonlyy")
    assert result.code != 0
    assert "git-readonly" in result.err
