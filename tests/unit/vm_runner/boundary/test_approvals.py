"""What runs wait for: how much of it, and of whom."""

import asyncio

import pytest

from services.core.errors import LimitExceeded
from services.vm_runner.boundary.approvals import PENDING_MOST, Approvals, Outcome, Question


async def test_a_run_waits_for_a_bounded_number_of_approvals_and_others_are_not_held_up() -> None:
    approvals = Approvals()

    def ask(run_id: str, host: str) -> "asyncio.Task[Outcome]":
        question = Question(run_id=run_id, host=host, port=443)
        return asyncio.ensure_future(approvals.ask(question, run_name=run_id, seconds=600))

    waiting = [ask("greedy", f"h{number}.example") for number in range(PENDING_MOST)]
    await asyncio.sleep(0)
    with pytest.raises(LimitExceeded, match=f"waits for {PENDING_MOST} approvals already"):
        await ask("greedy", "one-more.example")

    again = ask("greedy", "h0.example")  # what is asked already is no further question
    other = ask("modest", "h0.example")
    await asyncio.sleep(0)
    assert len(approvals.list("greedy")) == PENDING_MOST
    approvals.answer(approvals.list("modest")[0].approval_id, allow=True)
    assert await other is Outcome.ALLOWED

    approvals.withdraw("greedy")
    assert set(await asyncio.gather(*waiting, again)) == {Outcome.WITHDRAWN}
    assert approvals.list() == []
