import pytest
from google.protobuf.timestamp_pb2 import Timestamp
from lns.types.v1 import run_plan_pb2
from lns.vm.v1 import run_pb2

from cli.render.runs import format_port, newest_first, run_row, status

State = run_pb2.Run.State
NOW = 1_000_000.0


def at(ago: float) -> Timestamp:
    return Timestamp(seconds=int(NOW - ago))


@pytest.mark.parametrize(
    ("run", "words"),
    [
        (run_pb2.Run(state=State.STATE_CREATED), "Created"),
        (run_pb2.Run(state=State.STATE_STARTING), "Starting"),
        (run_pb2.Run(state=State.STATE_RUNNING, start_time=at(180)), "Up 3 minutes"),
        (run_pb2.Run(state=State.STATE_PAUSED, start_time=at(180)), "Up 3 minutes (Paused)"),
        (
            run_pb2.Run(
                state=State.STATE_EXITED, end_time=at(5), exit=run_pb2.ExitStatus(code=137)
            ),
            "Exited (137) 5 seconds ago",
        ),
        (
            run_pb2.Run(
                state=State.STATE_EXITED,
                end_time=at(5),
                exit=run_pb2.ExitStatus(code=137, oom_killed=True),
            ),
            "Exited (137, out of memory) 5 seconds ago",
        ),
        (run_pb2.Run(state=State.STATE_FAILED, end_time=at(7200)), "Failed 2 hours ago"),
        (run_pb2.Run(state=State.STATE_LOST), "Lost"),
    ],
)
def test_a_state_is_reported_in_dockers_words(run: run_pb2.Run, words: str) -> None:
    assert status(run, now=NOW) == words


def test_every_state_has_a_word() -> None:
    for state in State.values():
        if state not in (State.STATE_UNSPECIFIED, State.STATE_UNKNOWN):
            assert run_row(run_pb2.Run(state=state), now=NOW)["state"] != "unknown"


def test_a_row_is_short_unless_it_is_to_be_whole() -> None:
    run = run_pb2.Run(
        run_id="0123456789abcdef" * 2,
        name="a",
        plan=run_plan_pb2.RunPlan(argv=["python3", "-c", "print('a rather long program')"]),
    )

    short, whole = run_row(run, now=NOW), run_row(run, now=NOW, whole=True)

    assert short["id"] == "0123456789ab"
    assert len(short["command"]) == 24
    assert whole["id"] == run.run_id
    assert "rather long program" in whole["command"]
    assert whole["exit_code"] is None


@pytest.mark.parametrize(
    ("port", "shown"),
    [
        (
            run_plan_pb2.PortMapping(host_port=8080, container_port=80),
            "127.0.0.1:8080->80/tcp",
        ),
        (
            run_plan_pb2.PortMapping(host_ip="::1", host_port=1, container_port=2, protocol="tcp"),
            "[::1]:1->2/tcp",
        ),
    ],
)
def test_a_port_is_shown_from_the_host_to_the_guest(
    port: run_plan_pb2.PortMapping, shown: str
) -> None:
    assert format_port(port) == shown


def test_the_newest_run_comes_first_and_the_order_is_stable() -> None:
    runs = [
        run_pb2.Run(run_id="b", create_time=Timestamp(seconds=1)),
        run_pb2.Run(run_id="c", create_time=Timestamp(seconds=2)),
        run_pb2.Run(run_id="a", create_time=Timestamp(seconds=1)),
    ]

    assert [run.run_id for run in newest_first(runs)] == ["c", "a", "b"]
