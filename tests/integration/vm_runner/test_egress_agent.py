"""What programs of a guest meet when they reach out: the real agent on a real kernel's network."""

import asyncio
import time
from collections.abc import AsyncIterator
from ipaddress import IPv4Address, IPv6Address
from pathlib import Path

import pytest

from services.vm_runner.channel.events import Opening
from tests.support.egress_agent import EgressAgent, egress_agent, egress_process

pytestmark = pytest.mark.integration


@pytest.fixture
async def agent() -> AsyncIterator[EgressAgent]:
    async with egress_agent() as agent:
        yield agent


def test_an_agent_sleeps_while_no_host_has_greeted_it() -> None:
    """Every run that reaches nothing is in that state: awake it would use up a processor."""
    with egress_process() as (pid, _):
        states = set()
        for _ in range(20):
            time.sleep(0.02)
            states.add(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0])
        assert states == {"S"}


async def opening(agent: EgressAgent) -> Opening:
    async with asyncio.timeout(10):
        return await agent.session.connections.next_opening()


CONNECT = """
s = socket.socket({family}); s.settimeout(20)
try:
    s.connect(({address!r}, {port})); print(s.getpeername()[0], s.recv(10).decode())
except OSError as error:
    print(name_of(error))
"""


@pytest.mark.parametrize(
    ("address", "asked"),
    [
        ("93.184.216.34", IPv4Address("93.184.216.34")),
        ("169.254.169.254", IPv4Address("169.254.169.254")),
        ("10.0.0.1", IPv4Address("10.0.0.1")),
        ("2001:db8::7", IPv6Address("2001:db8::7")),
        ("fd00::1", IPv6Address("fd00::1")),
        ("::ffff:8.8.8.8", IPv4Address("8.8.8.8")),
    ],
)
async def test_an_address_is_asked_for_and_its_connection_is_the_stream(
    agent: EgressAgent, address: str, asked: IPv4Address | IPv6Address
) -> None:
    family = "socket.AF_INET6" if ":" in address else "socket.AF_INET"
    process = await agent.start(CONNECT.format(family=family, address=address, port=443))
    wanted = await opening(agent)
    assert (wanted.address, wanted.name, wanted.port) == (asked, "", 443)

    stream = await agent.session.connections.admit(wanted.ticket)
    await stream.write(b"hello")
    out, _ = await process.communicate()

    assert out.decode().split() == [address, "hello"]


@pytest.mark.parametrize("address", ["93.184.216.34", "2001:db8::7"])
async def test_what_is_refused_is_refused_as_by_a_host_where_nobody_listens(
    agent: EgressAgent, address: str
) -> None:
    family = "socket.AF_INET6" if ":" in address else "socket.AF_INET"
    process = await agent.start(CONNECT.format(family=family, address=address, port=22))
    agent.session.connections.refuse((await opening(agent)).ticket)
    out, _ = await process.communicate()

    assert out.decode().strip() == "ECONNREFUSED"


ASK = """
def question(name, kind, options=b""):
    labels = b"".join(bytes([len(l)]) + l.encode() for l in name.split(".")) + b"\\0"
    head = struct.pack("!HHHHHH", 7, 0x100, 1, 0, 0, 1 if options else 0)
    return head + labels + struct.pack("!HH", kind, 1) + options
def ask(server, name, kind, tcp=False, options=b""):
    family = socket.AF_INET6 if ":" in server else socket.AF_INET
    s = socket.socket(family, socket.SOCK_STREAM if tcp else socket.SOCK_DGRAM)
    s.settimeout(5); s.connect((server, 53)); q = question(name, kind, options)
    if tcp:
        s.sendall(struct.pack("!H", len(q)) + q); size = s.recv(2); return s.recv(512)
    s.send(q); return s.recv(512)
def show(a):
    address = socket.inet_ntoa(a[-4:]) if a[7] else "-"
    print(a[:2].hex(), "code", a[3] & 15, "answers", a[7], "extra", a[11], address)
"""


@pytest.mark.parametrize("server", ["8.8.8.8", "198.18.0.2", "2001:4860:4860::8888"])
@pytest.mark.parametrize("tcp", [False, True])
async def test_questions_about_names_are_answered_whatever_server_is_asked(
    agent: EgressAgent, server: str, tcp: bool
) -> None:
    code = ASK + "\n".join(
        f"show(ask({server!r}, {name!r}, {kind}, tcp={tcp}))"
        for name, kind in [
            ("api.Example.COM", 1), ("api.example.com", 1), ("other.example", 1),
            ("api.example.com", 28), ("api.example.com", 16), ("3.2.1.10.in-addr.arpa", 12),
            ("localhost", 1), ("1.2.3.4", 1),
        ]
    )  # fmt: skip
    lines = (await agent.run(code)).splitlines()

    assert lines == [
        "0007 code 0 answers 1 extra 0 198.18.1.0",
        "0007 code 0 answers 1 extra 0 198.18.1.0",
        "0007 code 0 answers 1 extra 0 198.18.1.1",
        "0007 code 0 answers 0 extra 0 -",
        "0007 code 0 answers 0 extra 0 -",
        "0007 code 0 answers 0 extra 0 -",
        "0007 code 0 answers 1 extra 0 127.0.0.1",
        "0007 code 3 answers 0 extra 0 -",
    ]


async def test_a_connection_to_the_address_of_a_name_is_asked_for_by_that_name(
    agent: EgressAgent,
) -> None:
    code = (
        ASK
        + """
address = socket.inet_ntoa(ask("9.9.9.9", "Api.Example.com", 1)[-4:])
s = socket.create_connection((address, 443), timeout=20)
print(s.getpeername()[0] == address, s.recv(9).decode())
"""
    )
    process = await agent.start(code)
    wanted = await opening(agent)
    assert (wanted.name, wanted.address, wanted.port) == ("api.example.com", None, 443)

    stream = await agent.session.connections.admit(wanted.ticket)
    await stream.write(b"first")  # a server that speaks first
    out, err = await process.communicate()
    assert out.decode().split() == ["True", "first"], err.decode()


async def test_an_address_that_stands_for_no_name_is_refused_at_once(agent: EgressAgent) -> None:
    code = CONNECT.format(family="socket.AF_INET", address="198.19.200.200", port=80)

    assert await agent.run(code) == "ECONNREFUSED"


REFUSED_DATAGRAM = """
s = socket.socket({family}, {kind}, {protocol}); s.settimeout(5)
try:
    s.connect(({address!r}, {port})); s.send(b"x"); s.recv(1); print("answered")
except OSError as error:
    print(name_of(error))
"""


@pytest.mark.parametrize(
    ("family", "kind", "protocol", "address", "port", "error"),
    [
        ("AF_INET", "SOCK_DGRAM", 0, "8.8.8.8", 443, {"ECONNREFUSED"}),
        ("AF_INET6", "SOCK_DGRAM", 0, "2001:db8::1", 443, {"ECONNREFUSED"}),
        ("AF_INET", "SOCK_DGRAM", 0, "224.0.0.251", 5353, {"ENETUNREACH", "EHOSTUNREACH"}),
        ("AF_INET6", "SOCK_DGRAM", 0, "ff0e::fb", 5353, {"ENETUNREACH", "EHOSTUNREACH"}),
        ("AF_INET6", "SOCK_DGRAM", 0, "ff02::fb", 5353, {"EINVAL"}),  # it names no link
        ("AF_INET", "SOCK_DGRAM", 136, "8.8.8.8", 53, {"ENETUNREACH", "EPROTONOSUPPORT"}),
        ("AF_INET", "SOCK_RAW", 1, "8.8.8.8", 0, {"ENETUNREACH"}),
        ("AF_INET6", "SOCK_RAW", 58, "2001:db8::1", 0, {"ENETUNREACH"}),
        ("AF_INET", "SOCK_RAW", 132, "8.8.8.8", 0, {"ENETUNREACH"}),
        ("AF_INET", "SOCK_RAW", 47, "8.8.8.8", 0, {"ENETUNREACH"}),
    ],
)
async def test_everything_but_tcp_and_questions_is_refused_at_once(
    agent: EgressAgent, family: str, kind: str, protocol: int, address: str, port: int,
    error: set[str],
) -> None:  # fmt: skip
    code = REFUSED_DATAGRAM.format(
        family=f"socket.{family}", kind=f"socket.{kind}", protocol=protocol, address=address,
        port=port,
    )  # fmt: skip

    assert await agent.run(code) in error


async def test_the_machine_s_own_loopback_is_left_alone(agent: EgressAgent) -> None:
    code = """
import threading
for family, address in ((socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1")):
    server = socket.create_server((address, 0), family=family)
    client = socket.create_connection(server.getsockname()[:2]); peer, _ = server.accept()
    peer.send(b"tcp"); print(client.recv(3).decode())
    one = socket.socket(family, socket.SOCK_DGRAM); one.bind((address, 53))
    other = socket.socket(family, socket.SOCK_DGRAM); other.sendto(b"udp", (address, 53))
    print(one.recv(3).decode())
"""
    assert (await agent.run(code)).split() == ["tcp", "udp", "tcp", "udp"]


async def test_a_listener_at_all_addresses_takes_nothing_that_is_meant_for_others(
    agent: EgressAgent,
) -> None:
    process = await agent.start(
        'server = socket.create_server(("0.0.0.0", 8080))\n'
        + CONNECT.format(family="socket.AF_INET", address="8.8.8.8", port=8080)
    )
    agent.session.connections.refuse((await opening(agent)).ticket)
    out, _ = await process.communicate()

    assert out.decode().strip() == "ECONNREFUSED"


async def test_many_that_wait_for_one_host_leave_room_for_others(agent: EgressAgent) -> None:
    crowd = await agent.start("""
waiting = []
for _ in range(200):
    s = socket.socket(); s.setblocking(False); s.connect_ex(("8.8.4.4", 443)); waiting.append(s)
print("begun", flush=True); time.sleep(20)
""")
    assert crowd.stdout is not None
    await crowd.stdout.readline()
    other = await agent.start(CONNECT.format(family="socket.AF_INET", address="1.1.1.1", port=80))
    while (wanted := await opening(agent)).address != IPv4Address("1.1.1.1"):
        pass  # the crowd's, which nobody answers
    stream = await agent.session.connections.admit(wanted.ticket)
    await stream.write(b"room")
    out, _ = await other.communicate()

    assert out.decode().split() == ["1.1.1.1", "room"]
    crowd.kill()
    await crowd.wait()


async def test_what_the_host_resets_is_reset_for_the_program(agent: EgressAgent) -> None:
    process = await agent.start(CONNECT.format(family="socket.AF_INET", address="8.8.8.8", port=1))
    stream = await agent.session.connections.admit((await opening(agent)).ticket)
    stream.reset()
    out, _ = await process.communicate()

    assert out.decode().strip() == "ECONNRESET"


@pytest.mark.parametrize(
    "data",
    [b"", b"x", bytes(12), b"\x00\x01\x01\x00\x00\x01" + bytes(6) + b"\xc0\x0c", b"\xff" * 512],
    ids=["empty", "short", "no question", "a loop", "noise"],
)
async def test_what_is_no_question_harms_nothing(agent: EgressAgent, data: bytes) -> None:
    code = (
        ASK
        + f"""
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); s.connect(("8.8.8.8", 53)); s.send({data!r})
t = socket.create_connection(("8.8.8.8", 53)); t.sendall(struct.pack("!H", {len(data)}) + {data!r})
show(ask("8.8.8.8", "still.there", 1)); show(ask("8.8.8.8", "still.there", 1, tcp=True))
"""
    )
    lines = (await agent.run(code)).splitlines()

    assert lines == ["0007 code 0 answers 1 extra 0 198.18.1.0"] * 2


async def test_who_asks_with_edns_is_answered_with_it(agent: EgressAgent) -> None:
    """As systemd-resolved does, which else falls back step by step."""
    option = repr(b"\0" + (41).to_bytes(2, "big") + (4096).to_bytes(2, "big") + bytes(6))

    for kind in (1, 28):
        line = await agent.run(ASK + f'a = ask("8.8.8.8", "x.y", {kind}, options={option})\n'
                               'print(a[3] & 15, a[7], a[11], a[-11:-8].hex())')  # fmt: skip
        assert line == f"0 {int(kind == 1)} 1 000029"
