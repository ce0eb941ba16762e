"""What a run's boundary does with what its worker asks and tells, and when its policy changes."""

import asyncio
import contextlib
import ipaddress
import json
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from pathlib import Path
from typing import cast

import pytest

from services.chassis.blocking import Blocking
from services.core.egress import audit
from services.core.errors import RunStateConflict
from services.core.run_plan import Policy, PolicyRoute, PolicyRule, Verdict
from services.vm_runner.boundary import run_boundary
from services.vm_runner.boundary.approvals import Approval, Approvals
from services.vm_runner.boundary.boundary import BoundedRun
from services.vm_runner.boundary.records import EgressRecord, RecordKind
from services.vm_runner.boundary.run_boundary import RunBoundary
from services.vm_runner.channel.session import GuestSession
from services.vm_runner.egress_worker.orders import (
    Configure,
    Grant,
    Mode,
    PageAnswer,
    Refuse,
    Revoke,
    ToWorker,
    Update,
)
from services.vm_runner.egress_worker.reports import (
    Ask,
    Closed,
    Hello,
    OpenConnection,
    PageWanted,
    Reason,
    RequestDecided,
    RequestVerdict,
)
from services.vm_runner.records.runs import Run, RunOptions
from tests.fakes.credentials import credential_source
from tests.fakes.egress import SETTINGS, FakeLink, FakeNetwork, FakeWorkers, boundary_outside
from tests.support.eventually import eventually
from tests.support.runs import a_run

PUBLIC = "93.184.216.34"


class FakeSession:
    """What a boundary needs of a guest's session."""

    def __init__(self) -> None:
        self.egress_wanted = asyncio.Event()


class World:
    """A run with a boundary, its worker played by the test."""

    def __init__(self, home: Path, blocking: Blocking) -> None:
        self.home = home
        self.run: Run = a_run()
        self.file = home / "lns-policy.yaml"
        self.run = replace(self.run, options=RunOptions(policy_file=str(self.file)))
        self.notices: list[str] = []
        self.workers = FakeWorkers()
        self.network = FakeNetwork(names={"api.example.com": (PUBLIC,)})
        self.approvals = Approvals()
        self.session = FakeSession()
        self.credentials = credential_source()
        self._blocking = blocking
        self.boundary = self.make()

    def make(self) -> RunBoundary:
        outside = boundary_outside(
            self._blocking,
            workers=self.workers,
            network=self.network,
            approvals=self.approvals,
            credentials=self.credentials,
        )
        directory = self.home / "run"
        directory.mkdir(exist_ok=True)

        async def notice(text: str) -> None:
            self.notices.append(text)

        bounded = BoundedRun(run=lambda: self.run, directory=directory, notice=notice)
        return RunBoundary(bounded, outside)

    def policy(self, *routes: str, default: str = "") -> None:
        """Write the project's policy; a route is `VERDICT MATCH [METHOD PATH]`."""
        lines = ["network:"]
        if default:
            lines.append(f"  defaultVerdict: {default}")
        lines.append("  allowedRoutes:" if routes else "  allowedRoutes: []")
        for route in routes:
            verdict, match, *rule = route.split()
            lines.append(f"    - {{match: '{match}', verdict: {verdict}")
            if rule:
                lines[-1] += f", rules: [{{method: {rule[0]}, path: {rule[1]}}}]"
            lines[-1] += "}"
        new = self.file.with_suffix(".new")
        new.write_text("\n".join(lines) + "\n")
        new.rename(self.file)

    @contextlib.asynccontextmanager
    async def serving(self, *, wanted: bool = True) -> AsyncIterator[FakeLink]:
        """Serve the guest; yield the link to the worker."""
        async with self.boundary.serving(cast("GuestSession", self.session)):
            if wanted:
                self.session.egress_wanted.set()
            async with asyncio.timeout(10):
                link = await self.workers.links.get()
                assert isinstance(await link.hear(), Configure)
            yield link

    async def approval(self) -> Approval:
        await eventually(lambda: bool(self.approvals.list()))
        return self.approvals.list()[0]

    async def records(self, kind: RecordKind = RecordKind.CONNECTION) -> list[EgressRecord]:
        return [one async for one in self.boundary.audit.records(follow=False) if one.kind == kind]

    def verified(self) -> int:
        """Return how many lines the audit log has; fail if its chain is broken."""
        data = (self.home / "run" / "audit.jsonl").read_bytes()
        return len(list(audit.verified(data.splitlines(keepends=True))))


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    with Blocking(4) as blocking:
        yield World(tmp_path, blocking)


async def answer(link: FakeLink, name: str = "api.example.com", port: int = 443) -> ToWorker:
    link.say(Ask(ticket=7, name=name, port=port))
    return await link.hear()


async def test_a_worker_is_started_when_the_guest_wants_one_and_not_before(world: World) -> None:
    async with world.boundary.serving(cast("GuestSession", world.session)):
        await asyncio.sleep(0.05)
        assert world.workers.started == 0
        world.session.egress_wanted.set()
        async with asyncio.timeout(5):
            await world.workers.links.get()
    assert world.workers.started == 1


async def test_what_is_allowed_is_looked_up_once_dialled_and_handed_over(world: World) -> None:
    world.policy("allow api.example.com")
    async with world.serving() as link:
        order = await answer(link)

        assert isinstance(order, Grant)
        assert (order.ticket, order.name, order.port, order.address) == (
            7, "api.example.com", 443, PUBLIC,
        )  # fmt: skip
        assert order.mode is Mode.PASS
        assert len(link.connections) == 1
    assert world.network.looked_up == ["api.example.com"]
    assert world.network.dialled == [(PUBLIC, 443)]


async def test_what_is_denied_is_neither_looked_up_nor_dialled(world: World) -> None:
    world.policy("deny evil.example", default="allow")
    async with world.serving() as link:
        order = await answer(link, "EVIL.example.")

        assert isinstance(order, Refuse)
    assert (world.network.looked_up, world.network.dialled) == ([], [])
    (record,) = await world.records()
    assert (record.verdict, record.host, record.rule) == ("deny", "evil.example", "evil.example")
    assert record.how_to_allow == "lns policy allow evil.example:443"


async def test_nothing_is_looked_up_while_it_is_asked_about(world: World) -> None:
    world.policy()
    async with world.serving() as link:
        link.say(Ask(ticket=1, name="secret-data.example.com", port=443))
        approval = await world.approval()
        assert world.network.looked_up == []
        world.approvals.answer(approval.approval_id, allow=False)
        assert isinstance(await link.hear(), Refuse)
    assert world.network.looked_up == []


async def test_connections_to_one_name_and_port_wait_together_and_others_do_not(
    world: World,
) -> None:
    world.policy("allow api.example.com:80")
    async with world.serving() as link:
        for ticket in range(1, 21):
            link.say(Ask(ticket=ticket, name="api.example.com", port=443))
        approval = await world.approval()
        await eventually(lambda: world.approvals.list()[0].waiting == 20)
        assert len(world.approvals.list()) == 1
        link.say(Ask(ticket=100, name="api.example.com", port=80))  # nobody waits behind them
        order = await link.hear()
        assert isinstance(order, Grant)

        world.approvals.answer(approval.approval_id[:4], allow=True)
        orders = [await link.hear() for _ in range(20)]
        assert all(isinstance(one, Grant) for one in orders)

        assert isinstance(await answer(link), Grant)  # for this run: nobody is asked again
        assert world.approvals.list() == []
    (record,) = await world.records(RecordKind.APPROVAL)
    assert (record.verdict, record.host, record.port) == ("allow", "api.example.com", 443)


async def test_an_answer_is_remembered_by_the_next_runner(world: World) -> None:
    world.policy()
    async with world.serving() as link:
        link.say(Ask(ticket=1, name="api.example.com", port=443))
        world.approvals.answer((await world.approval()).approval_id, allow=True)
        assert isinstance(await link.hear(), Grant)

    world.boundary = world.make()
    world.session = FakeSession()
    async with world.serving() as link:
        assert isinstance(await answer(link), Grant)


@pytest.mark.parametrize(("restart_count", "asked"), [(0, 1), (1, 0)])
async def test_an_answer_holds_until_the_run_ends(
    world: World, restart_count: int, asked: int
) -> None:
    """A start by its restart policy is the same run going on; one by a user is not."""
    world.policy()
    async with world.serving() as link:
        link.say(Ask(ticket=1, name="api.example.com", port=443))
        approval = await world.approval()
        world.approvals.answer(approval.approval_id, allow=True)
        assert isinstance(await link.hear(), Grant)
    await world.boundary.ended()

    await world.boundary.prepare(replace(world.run, restart_count=restart_count))

    async with world.serving() as link:
        link.say(Ask(ticket=2, name="api.example.com", port=443))
        if asked:
            await world.approval()
        else:
            assert isinstance(await link.hear(), Grant)
        assert len(world.approvals.list()) == asked


async def test_nobody_who_answers_is_a_denial_and_the_next_try_asks_again(world: World) -> None:
    world.policy()
    world.run = replace(world.run, options=replace(world.run.options, approve_timeout=0.05))
    async with world.serving() as link:
        assert isinstance(await answer(link), Refuse)
        assert isinstance(await answer(link), Refuse)
    assert [one.reason for one in await world.records()] == ["no user answered in time"] * 2


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1", "10.1.2.3", "192.168.1.1", "169.254.169.254", "100.64.0.1", "224.0.0.1",
        "::1", "fe80::1", "fd00::1", "::ffff:10.0.0.1", "64:ff9b::a00:1", "2002:a00:1::",
        "2001:0:4136:e378:8000:63bf:f5ff:fffe", "0.1.2.3", "198.18.1.0",
    ],
)  # fmt: skip
async def test_a_name_that_leads_into_a_special_range_is_refused_unless_a_rule_names_it(
    world: World, address: str
) -> None:
    world.network.names["rebind.example"] = (address,)
    world.policy("allow rebind.example")
    async with world.serving() as link:
        assert isinstance(await answer(link, "rebind.example"), Refuse)
        assert world.network.dialled == []
        link.say(Ask(ticket=9, address=_bytes(address), port=443))
        order = await link.hear() if not world.approvals.list() else None
        assert not isinstance(order, Grant)
    record = (await world.records())[0]
    assert record.verdict == "deny"
    assert record.address == str(ipaddress.ip_address(address).__class__(address))


def _bytes(address: str) -> bytes:
    parsed = ipaddress.ip_address(address)
    if parsed.version == 4:
        return bytes(10) + b"\xff\xff" + parsed.packed
    return parsed.packed


async def test_only_addresses_that_nothing_speaks_against_are_dialled(world: World) -> None:
    world.network.names["mixed.example"] = ("10.0.0.1", PUBLIC)
    world.policy("allow mixed.example")
    async with world.serving() as link:
        assert isinstance(await answer(link, "mixed.example"), Grant)
    assert world.network.dialled == [(PUBLIC, 443)]


async def test_a_rule_that_names_the_range_opens_it(world: World) -> None:
    world.network.names["intern.example"] = ("10.0.0.7",)
    world.policy("allow intern.example", "allow 10.0.0.0/24")
    async with world.serving() as link:
        assert isinstance(await answer(link, "intern.example"), Grant)


async def test_what_does_not_answer_is_refused_and_its_reason_recorded(world: World) -> None:
    world.policy("allow api.example.com", "allow gone.example")
    world.network.dead.add(PUBLIC)
    async with world.serving() as link:
        assert isinstance(await answer(link), Refuse)
        assert isinstance(await answer(link, "gone.example"), Refuse)
    reasons = [record.reason for record in await world.records()]
    assert reasons == [f"{PUBLIC} port 443: Connection refused", "gone.example: no such name"]


async def test_the_machine_s_loopback_needs_a_rule_that_names_its_port(world: World) -> None:
    world.policy("allow host.lns.internal:11434", "allow host.lns.internal", default="allow")
    async with world.serving() as link:
        assert isinstance(await answer(link, "host.lns.internal", 11434), Grant)
        assert world.network.dialled == [("127.0.0.1", 11434)]
        assert isinstance(await answer(link, "host.lns.internal", 22), Refuse)
        assert isinstance(await answer(link, "other.lns.internal", 80), Refuse)
    assert world.network.looked_up == []


async def test_rules_bring_a_certificate_once_and_are_renewed(world: World) -> None:
    world.policy("allow api.example.com GET /repos/**")
    async with world.serving() as link:
        first, second = await answer(link), await answer(link)
        assert isinstance(first, Grant)
        assert isinstance(second, Grant)
        assert (first.mode, second.mode) == (Mode.INSPECT, Mode.INSPECT)
        assert first.leaf is not None
        assert second.leaf is None
        assert b"PRIVATE" not in repr(first).encode()

        world.policy("allow api.example.com POST /graphql")
        orders = [await link.hear(), await link.hear()]
        assert [type(one) for one in orders] == [Update, Update]


async def test_an_edit_takes_effect_on_what_is_open_and_on_what_waits(world: World) -> None:
    world.policy("allow api.example.com")
    world.network.names["other.example"] = (PUBLIC,)
    async with world.serving() as link:
        granted = await answer(link)
        assert isinstance(granted, Grant)
        link.say(Ask(ticket=8, name="other.example", port=443))
        await world.approval()

        world.policy("deny api.example.com", "allow other.example")

        orders = [await link.hear(), await link.hear()]
        revoked = next(one for one in orders if isinstance(one, Revoke))
        assert revoked.connection == granted.connection
        assert any(isinstance(one, Grant) and one.ticket == 8 for one in orders)


async def test_the_next_connection_is_decided_by_the_file_as_it_is_then(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run_boundary, "_LOOK_SECONDS", 3600.0)  # nothing but the question looks
    world.policy("allow api.example.com")
    async with world.serving() as link:
        assert isinstance(await answer(link), Grant)
        world.policy("deny api.example.com")
        assert isinstance(await answer(link), Refuse)
        world.policy("allow api.example.com")
        assert isinstance(await answer(link), Grant)


def test_the_file_is_looked_at_twice_a_second_for_what_is_open() -> None:
    assert 0 < run_boundary._LOOK_SECONDS <= 0.5


async def test_a_bad_edit_keeps_the_old_policy_and_is_reported(world: World) -> None:
    world.policy("allow api.example.com")
    async with world.serving() as link:
        assert isinstance(await answer(link), Grant)
        world.file.write_text("network: {allowedRoutes: [{match: x, verdict: perhaps}]}")
        await eventually(lambda: bool(world.notices))
        assert isinstance(await answer(link), Grant)
    assert "verdict" in world.notices[0]
    assert "what the policy said last holds" in world.notices[0]
    assert world.notices[0].count(str(world.file)) == 1


async def test_a_policy_file_that_vanishes_changes_nothing(world: World) -> None:
    world.policy("allow api.example.com")
    async with world.serving() as link:
        assert isinstance(await answer(link), Grant)
        world.file.unlink()
        assert isinstance(await answer(link), Grant)


async def test_a_plan_s_policy_stands_in_a_file_of_the_run(world: World) -> None:
    rule = PolicyRule(method="GET", path="/v1/**")
    route = PolicyRoute(match="api.example.com", verdict=Verdict.ALLOW, rules=(rule,), origin="r")
    policy = Policy(default_verdict=Verdict.DENY, routes=(route,))
    world.run = replace(
        world.run, options=RunOptions(), plan=replace(world.run.plan, policy=policy)
    )
    loaded = await world.boundary.policy.current()

    assert loaded.policy.default_verdict is Verdict.DENY
    assert [(one.match, one.verdict, one.rules) for one in loaded.policy.routes] == [
        ("api.example.com", Verdict.ALLOW, (rule,))
    ]
    await world.boundary.policy.replace(b"network: {defaultVerdict: allow}\n")
    assert (await world.boundary.policy.current()).policy.default_verdict is Verdict.ALLOW


async def test_a_project_s_file_is_not_replaced_by_the_service(world: World) -> None:
    world.policy()
    with pytest.raises(RunStateConflict):
        await world.boundary.policy.replace(b"network: {defaultVerdict: allow}\n")


async def test_what_a_worker_carries_is_known_to_the_next_runner(world: World) -> None:
    world.policy("allow api.example.com")
    world.workers.adopted = link = FakeLink(
        Hello(
            version=1,
            connections=(
                OpenConnection(connection=5, port=443, name="api.example.com", address=PUBLIC),
                OpenConnection(connection=9, port=443, name="evil.example", address=PUBLIC),
            ),
        )
    )
    async with world.boundary.serving(cast("GuestSession", world.session)):
        assert isinstance(await link.hear(), Configure)
        order = await link.hear()
        assert isinstance(order, Revoke)
        assert order.connection == 9
        granted = await answer(link)
        while not isinstance(granted, Grant):
            granted = await link.hear()
        assert granted.connection > 9
    assert world.workers.started == 0


async def test_a_worker_that_is_lost_is_followed_by_another(world: World) -> None:
    world.policy("allow api.example.com")
    async with world.serving() as link:
        link.end()
        world.session.egress_wanted.set()
        async with asyncio.timeout(10):
            await world.workers.links.get()
    assert world.workers.started == 2
    assert "open connections are lost" in world.notices[0]


async def test_a_worker_that_breaks_the_rules_is_given_up(world: World) -> None:
    world.policy()
    async with world.serving() as link:
        link.say(Ask(ticket=1, name="a.example", port=1))
        link.say(Ask(ticket=1, name="a.example", port=1))
        await eventually(lambda: link.closed)


async def test_more_than_the_bounds_is_refused_with_its_own_reason(world: World) -> None:
    world.policy()
    async with world.serving() as link:
        for ticket in range(1, SETTINGS.waiting + 2):
            link.say(Ask(ticket=ticket, name=f"n{ticket}.example", port=443))
        order = await link.hear()
        assert isinstance(order, Refuse)
        assert order.reason == "limit"
    assert "no further one is taken" in (await world.records())[0].reason


async def test_every_decision_is_a_line_of_a_chain_also_after_a_crash(world: World) -> None:
    world.policy("allow api.example.com")
    async with world.serving() as link:
        granted = await answer(link)
        assert isinstance(granted, Grant)
        number = granted.connection
        link.say(
            RequestDecided(
                connection=number, method="GET", path="/a", host="api.example.com",
                verdict=RequestVerdict.DENIED, reason=Reason.RULES, rule="GET /b",
            )
        )  # fmt: skip
        link.say(Closed(connection=number, sent=10, received=20))
        await answer(link, "x.lns.internal")
    before = world.verified()
    with (world.home / "run" / "audit.jsonl").open("ab") as file:
        file.write(b'{"sequence":99,"half a li')  # the service was killed

    world.boundary = world.make()
    world.session = FakeSession()
    async with world.serving() as link:
        await answer(link, "y.lns.internal")
    assert world.verified() > before
    connections = await world.records()
    assert [(one.verdict, one.host, one.connection) for one in connections] == [
        ("allow", "api.example.com", number),
        ("deny", "x.lns.internal", 0),
        ("deny", "y.lns.internal", 0),
    ]
    (closed,) = await world.records(RecordKind.CLOSED)
    assert (closed.sent_bytes, closed.received_bytes, closed.connection) == (10, 20, number)
    (request,) = await world.records(RecordKind.REQUEST)
    assert (request.verdict, request.method, request.path) == ("deny", "GET", "/a")


async def page(link: FakeLink, method: str, path: str, body: str = "") -> tuple[int, object]:
    link.say(PageWanted(request=3, connection=1, method=method, path=path, body=body))
    order = await link.hear()
    assert isinstance(order, PageAnswer)
    return order.status, json.loads(order.body)


async def test_the_guest_reads_what_was_refused_and_what_is_allowed(world: World) -> None:
    world.policy("allow api.example.com", default="deny")
    async with world.serving() as link:
        await answer(link, "blocked.example")
        order = await answer(link, "lns.internal", 80)
        assert isinstance(order, Grant)
        assert order.mode is Mode.PAGE

        status, denials = await page(link, "GET", "/denials")
        assert status == 200
        denial = cast("dict[str, list[dict[str, object]]]", denials)["denials"][0]
        assert (denial["host"], denial["port"]) == ("blocked.example", 443)
        assert denial["how_to_allow"] == "lns policy allow blocked.example:443"
        status, policy = await page(link, "GET", "/policy")
        assert cast("dict[str, object]", policy)["default"] == "deny"
        assert (await page(link, "GET", "/nothing"))[0] == 404
        assert (await page(link, "POST", "/policy"))[0] == 405


async def test_the_guest_asks_for_what_a_default_denies_and_gets_it_for_this_run(
    world: World,
) -> None:
    world.policy(default="deny")
    async with world.serving() as link:
        assert isinstance(await answer(link), Refuse)
        body = json.dumps({"host": "api.example.com", "reason": "to read the docs"})
        link.say(PageWanted(request=4, connection=1, method="POST", path="/requests", body=body))
        approval = await world.approval()
        assert (approval.question.host, approval.question.port) == ("api.example.com", 443)
        assert approval.note == "to read the docs"
        world.approvals.answer(approval.approval_id, allow=True)
        reply = await link.hear()
        assert isinstance(reply, PageAnswer)
        assert json.loads(reply.body)["verdict"] == "allow"

        assert isinstance(await answer(link), Grant)


async def test_a_route_that_denies_is_not_asked_about(world: World) -> None:
    world.policy("deny api.example.com", default="allow")
    async with world.serving() as link:
        body = json.dumps({"host": "api.example.com:443"})
        status, told = await page(link, "POST", "/requests", body)

        assert status == 403
        assert cast("dict[str, object]", told)["verdict"] == "deny"
    assert world.approvals.list() == []


@pytest.mark.parametrize(
    "body", ["", "x", "[]", "{}", '{"host": 3}', '{"host": "a b"}', '{"host": "a", "port": 70000}']
)
async def test_a_request_that_cannot_be_understood_is_answered(world: World, body: str) -> None:
    world.policy()
    async with world.serving() as link:
        assert (await page(link, "POST", "/requests", body))[0] == 400


async def test_what_waits_is_withdrawn_when_the_run_ends(world: World) -> None:
    world.policy()
    async with world.serving() as link:
        link.say(Ask(ticket=1, name="api.example.com", port=443))
        await world.approval()
    await world.boundary.ended()
    assert world.approvals.list() == []
    assert world.workers.ended_runs == [world.run.run_id]
