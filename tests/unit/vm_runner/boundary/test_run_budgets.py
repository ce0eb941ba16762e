"""Budgets of a run: what is let through, what is counted, what survives, and who reads of it."""

import asyncio
import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from services.chassis.blocking import Blocking
from services.core.budgets.limits import parse_budget
from services.core.errors import RequestInvalid
from services.vm_runner.boundary.records import RecordKind
from services.vm_runner.egress_worker.orders import (
    AllowanceAnswer,
    Grant,
    Inspection,
    Mode,
    PageAnswer,
)
from services.vm_runner.egress_worker.reports import AllowanceWanted, Hello, PageWanted, Usage
from tests.fakes.egress import FakeLink
from tests.unit.vm_runner.boundary.test_run_boundary import PUBLIC, World, answer
from tests.unit.vm_runner.boundary.test_run_credentials import HOST


class BudgetWorld(World):
    """A world whose run has budgets."""

    def __init__(self, home: Path, blocking: Blocking) -> None:
        super().__init__(home, blocking)
        self.network.names[HOST] = (PUBLIC,)
        self.permit()

    def permit(self, budgets: str = "") -> None:
        """Write a policy that allows the host, with budgets."""
        new = self.file.with_suffix(".new")
        route = f"network: {{allowedRoutes: [{{match: '{HOST}', verdict: allow}}]}}\n"
        new.write_text(route + (f"budgets: {{{budgets}}}\n" if budgets else ""))
        new.rename(self.file)

    def flag(self, *texts: str) -> None:
        """Give the run `--budget`."""
        limits = tuple(one for text in texts for one in parse_budget(text, origin="--budget"))
        self.run = replace(self.run, options=replace(self.run.options, budgets=limits))


@pytest.fixture
def blocking() -> Iterator[Blocking]:
    with Blocking(4) as threads:
        yield threads


@pytest.fixture
def world(tmp_path: Path, blocking: Blocking) -> BudgetWorld:
    return BudgetWorld(tmp_path, blocking)


async def inspection(link: FakeLink) -> Inspection:
    grant = await answer(link, HOST)
    assert isinstance(grant, Grant)
    return grant.inspection


async def ask(link: FakeLink, number: int) -> AllowanceAnswer:
    link.say(AllowanceWanted(request=number, connection=1, budgets=("anthropic",)))
    while not isinstance(heard := await link.hear(), AllowanceAnswer):
        pass
    return heard


def use(number: int = 0, **counts: object) -> Usage:
    known = {"model": "claude-sonnet-4-5", "exact": True, "requests": 0 if number else 1}
    return Usage(
        connection=1,
        budgets=("anthropic",),
        allowance=number,
        **{**known, **counts},  # type: ignore[arg-type] - fields of a report
    )


async def test_a_host_with_a_budget_is_looked_into_and_each_request_is_asked_for(
    world: BudgetWorld,
) -> None:
    world.flag("anthropic=5USD")
    await world.boundary.prepare(world.run)
    async with world.serving() as link:
        grant = await answer(link, HOST)

    assert isinstance(grant, Grant)
    assert grant.mode is Mode.INSPECT
    found = grant.inspection
    assert (found.budgets, found.limited, found.exact) == (("anthropic",), True, True)
    assert found.usage == "anthropic"
    assert "/v1/messages/count_tokens" in found.free


async def test_a_budget_of_requests_needs_no_reports(world: BudgetWorld) -> None:
    world.flag("anthropic=5-requests")
    assert await world.boundary.prepare(world.run) == []
    async with world.serving() as link:
        found = await inspection(link)

    assert (found.limited, found.exact) == (True, False)


async def test_the_smaller_of_policy_and_flag_holds_and_edits_take_effect(
    world: BudgetWorld,
) -> None:
    world.permit("anthropic: 3-requests")
    world.flag("anthropic=2-requests")
    await world.boundary.prepare(world.run)
    async with world.serving() as link:
        await inspection(link)
        assert [(await ask(link, number)).granted for number in (1, 2, 3)] == [True, True, False]

        world.permit("anthropic: 1-requests")
        refused = await ask(link, 4)
    assert refused.error == (
        "the budget of anthropic is spent: 2-requests of 1-requests (200 %) is used"
    )
    assert refused.how_to_allow == "change budgets.anthropic in lns-policy.yaml"


async def test_many_requests_at_once_never_exceed_a_budget_of_requests(world: BudgetWorld) -> None:
    world.flag("anthropic=7-requests")
    await world.boundary.prepare(world.run)
    async with world.serving() as link:
        await inspection(link)
        for number in range(1, 41):
            link.say(AllowanceWanted(request=number, connection=1, budgets=("anthropic",)))
        answers = [await link.hear() for _ in range(40)]

    assert sum(one.granted for one in answers if isinstance(one, AllowanceAnswer)) == 7


async def test_tokens_and_costs_are_counted_from_replies_and_the_next_request_is_refused(
    world: BudgetWorld,
) -> None:
    world.flag("anthropic=0.01USD|100k-tokens")
    remarks = await world.boundary.prepare(world.run)
    assert "is counted by what replies report" in remarks[0]
    async with world.serving() as link:
        await inspection(link)
        assert (await ask(link, 1)).granted
        link.say(use(1, input_tokens=1000, output_tokens=340, cache_read_tokens=1000))
        assert (await ask(link, 2)).granted  # 0.0084 USD
        link.say(use(2, output_tokens=200))  # 0.0114 USD
        refused = await ask(link, 3)

    assert not refused.granted
    assert "0.0114USD of 0.01USD (114 %)" in refused.error
    assert world.notices == [
        "its budget of anthropic is nearly spent: 0.0084USD of 0.01USD (84 %)",
        "its budget of anthropic is spent: 0.0114USD of 0.01USD (114 %)",
    ]
    used = await world.records(RecordKind.USAGE)
    assert [(one.integration, one.input_tokens, one.output_tokens, one.cost) for one in used] == [
        ("anthropic", 2000, 340, "0.0084USD"),
        ("anthropic", 0, 200, "0.003USD"),
    ]
    assert world.verified() > 0


@pytest.mark.parametrize(
    ("usage", "expected"),
    [
        (use(1, exact=False, unread=True), "a reply did not report its use"),
        (use(1, model="claude-9", input_tokens=1), "the price of claude-9 is not known"),
        (use(1, model="", input_tokens=1), "the price of a model without a name is not known"),
    ],
)
async def test_what_is_not_known_is_not_guessed(
    world: BudgetWorld, usage: Usage, expected: str
) -> None:
    world.flag("anthropic=5USD")
    await world.boundary.prepare(world.run)
    async with world.serving() as link:
        await inspection(link)
        await ask(link, 1)
        link.say(usage)
        refused = await ask(link, 2)

    assert not refused.granted
    assert "cannot be counted" in refused.error
    assert expected in refused.error


async def test_figures_survive_the_service_and_the_worker_it_left(world: BudgetWorld) -> None:
    world.flag("anthropic=3-requests|1000-tokens")
    await world.boundary.prepare(world.run)
    async with world.serving() as link:
        await inspection(link)
        assert (await ask(link, 1)).granted
        link.say(use(1, input_tokens=10))
        assert (await ask(link, 2)).granted

    world.boundary = world.make()  # another service
    world.workers.adopted = link = FakeLink(Hello(version=1))
    async with world.boundary.serving(world.session):  # type: ignore[arg-type] - what it needs of one
        await link.hear()
        assert (await ask(link, 2)).granted  # asked again: it was counted before
        assert (await ask(link, 3)).granted
        assert not (await ask(link, 4)).granted


async def test_a_machine_that_ended_amid_a_reply_leaves_what_it_used_unknown(
    world: BudgetWorld,
) -> None:
    world.flag("anthropic=1000-tokens")
    await world.boundary.prepare(world.run)
    async with world.serving() as link:
        await inspection(link)
        assert (await ask(link, 1)).granted

    world.boundary = world.make()
    async with world.serving() as link:
        await inspection(link)
        refused = await ask(link, 1)
    assert "requests were under way when the run's machine ended" in refused.error


async def test_damaged_figures_let_nothing_through(world: BudgetWorld) -> None:
    world.flag("anthropic=3-requests")
    await world.boundary.prepare(world.run)
    (world.home / "run" / "budgets.json").write_text('{"version": 1}')
    async with world.serving() as link:
        await inspection(link)
        refused = await ask(link, 1)

    assert "budgets.json is damaged" in refused.error
    assert (world.home / "run" / "budgets.json").read_text() == '{"version": 1}'


@pytest.mark.parametrize(
    ("budget", "why", "hint"),
    [
        ("nobody=5USD", "is of no integration", "lns integration list"),
        ("github=5USD", "replies of github do not report", "github=1000-requests"),
        ("slack=5k-tokens", "replies of slack do not report", "slack=1000-requests"),
        ("mistral=5USD", "the prices of mistral are not known", "mistral=200k-tokens"),
    ],
)
async def test_a_budget_that_cannot_be_counted_is_refused_before_the_start(
    world: BudgetWorld, budget: str, why: str, hint: str
) -> None:
    world.flag(budget)

    with pytest.raises(RequestInvalid, match=why) as caught:
        await world.boundary.prepare(world.run)
    assert hint in caught.value.hint


async def test_the_guest_reads_how_its_budgets_stand(world: BudgetWorld) -> None:
    world.permit("anthropic: 5-requests|1000-tokens")
    await world.boundary.prepare(world.run)
    async with world.serving() as link:
        await inspection(link)
        await ask(link, 1)
        link.say(use(1, exact=False, unread=True))
        link.say(PageWanted(request=1, connection=1, method="GET", path="/policy"))
        page = await link.hear()

    assert isinstance(page, PageAnswer)
    assert json.loads(page.body)["budgets"] == [
        {"integration": "anthropic", "limit": "5-requests", "used": "1-requests", "percent": 20},
        {
            "integration": "anthropic",
            "limit": "1000-tokens",
            "used": "0-tokens",
            "percent": 0,
            "refused_since": "a reply did not report its use, or was broken off before",
        },
    ]


async def test_a_hundred_answers_share_writes(world: BudgetWorld) -> None:
    world.flag("anthropic=100-requests")
    await world.boundary.prepare(world.run)
    budgets = world.boundary.budgets
    sent: list[object] = []

    async def send(order: object) -> None:
        sent.append(order)

    await asyncio.gather(
        *(
            budgets.answer(
                AllowanceWanted(request=number, connection=1, budgets=("anthropic",)), send
            )
            for number in range(1, 101)
        )
    )
    kept = json.loads((world.home / "run" / "budgets.json").read_text())
    assert len(sent) == 100
    assert kept["spending"]["anthropic"]["requests"] == 100


async def test_what_a_broken_worker_says_counts_for_known_integrations_only(
    world: BudgetWorld,
) -> None:
    world.flag("anthropic=3-requests")
    await world.boundary.prepare(world.run)
    async with world.serving() as link:
        await inspection(link)
        link.say(AllowanceWanted(request=1, connection=1, budgets=("anthropic", "nobody", "../x")))
        await link.hear()
        link.say(Usage(connection=9, budgets=("nobody",), allowance=7, input_tokens=1 << 61))
        assert (await ask(link, 2)).granted
        standing = await world.boundary.budgets.standing()

    assert list(standing) == ["anthropic"]
