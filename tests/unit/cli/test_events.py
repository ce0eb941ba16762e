import pytest
from lns.egress.v1 import egress_service_pb2 as egress_pb
from lns.vm.v1 import run_pb2
from lns.vm.v1 import vm_service_pb2 as pb

from cli.app import dispatch
from cli.commands.events import event_row


def a_run(**values: object) -> pb.WatchEventsResponse:
    event = run_pb2.RunEvent(**values)
    return pb.WatchEventsResponse(run_id="ab" * 6, run_name="web", run=event)


@pytest.mark.parametrize(
    ("told", "kind", "what"),
    [
        (a_run(notice="emulated"), "run", "emulated"),
        (a_run(removed=run_pb2.RunRemoved()), "run", "removed"),
        (
            a_run(state_changed=run_pb2.Run(state=run_pb2.Run.STATE_RUNNING)),
            "run",
            "running",
        ),
        (
            a_run(
                state_changed=run_pb2.Run(
                    state=run_pb2.Run.STATE_EXITED, exit=run_pb2.ExitStatus(code=3)
                )
            ),
            "run",
            "exited (3)",
        ),
        (
            pb.WatchEventsResponse(
                run_name="web",
                egress=egress_pb.EgressRecord(
                    kind="connection", verdict="deny", host="tracker.example", port=443
                ),
            ),
            "egress",
            "deny  tracker.example:443",
        ),
    ],
)
def test_an_event_is_a_line(told: pb.WatchEventsResponse, kind: str, what: str) -> None:
    row = event_row(told)

    assert (row["kind"], row["run"], row["what"]) == (kind, "web", what)


def test_without_follow_nothing_would_be_shown(capsys: pytest.CaptureFixture[str]) -> None:
    assert dispatch(["events"], {"HOME": "/nowhere"}) == 1
    assert "lns events --follow" in capsys.readouterr().err
