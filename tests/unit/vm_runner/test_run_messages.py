from dataclasses import replace
from datetime import UTC, datetime

from services.vm_runner.messages import format_run
from services.vm_runner.records.runs import Run, RunOptions, RunState
from services.vm_runner.run_messages import RunMessages
from tests.support.vm_service import a_plan


def a_run(number: int = 0) -> Run:
    return Run(
        run_id=f"{number:012x}",
        name=f"run-{number}",
        plan=a_plan("true"),
        image_digest="",
        options=RunOptions(),
        state=RunState.CREATED,
        create_time=datetime(2026, 1, 1, tzinfo=UTC),
    )


def test_the_message_of_a_run_is_made_once() -> None:
    messages, run = RunMessages(), a_run()

    assert messages.of(run) == format_run(run)
    assert messages.of(run) is messages.of(run)


def test_a_run_that_has_changed_has_another_message() -> None:
    messages, run = RunMessages(), a_run()
    messages.of(run)

    assert messages.of(replace(run, name="other")).name == "other"


def test_what_is_remembered_is_bounded() -> None:
    messages = RunMessages()
    for number in range(9000):
        messages.of(a_run(number))

    assert len(messages._known) <= 4096
