"""The variables of a client go with its calls, over its owner's socket only."""

from pathlib import Path
from typing import Any, cast

import grpc.aio
import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.chassis import calls, context
from services.chassis.caller_environment import KEY, VARIABLES, decode, encode
from services.chassis.interceptors import ServedCall
from services.chassis.scopes import identify
from services.core.errors import SettingsInvalid

HERE = Path("/home/me/project")


def test_what_calls_depend_on_is_sent_and_nothing_else() -> None:
    environment = {"HTTPS_PROXY": "http://p:1", "AWS_SECRET": "x", "NO_PROXY": "", "HOME": "/h"}

    found = decode(encode(environment, directory=HERE))

    assert found == {"HTTPS_PROXY": "http://p:1", "HOME": "/h"}


def test_relative_paths_are_those_of_the_clients_directory() -> None:
    sent = encode({"LNS_REGISTRY_AUTH_PATH": "x.json", "DOCKER_CONFIG": "/d"}, directory=HERE)

    assert decode(sent) == {"LNS_REGISTRY_AUTH_PATH": f"{HERE}/x.json", "DOCKER_CONFIG": "/d"}


def test_what_is_too_long_to_send_is_named() -> None:
    with pytest.raises(SettingsInvalid, match="NO_PROXY"):
        encode({"NO_PROXY": "x" * 40_000, "HOME": "/h"}, directory=HERE)


@pytest.mark.parametrize(
    "data", ["text", b"", b"{", b"[]", b"7", b"[" * 20_000, b"\xff", b" " * 40_000]
)
def test_what_is_no_environment_gives_none(data: object) -> None:
    assert decode(data) is None


def test_members_that_are_no_variables_are_left_out() -> None:
    assert decode(b'{"HOME": 7, "PATH": "/bin", "no_proxy": "*"}') == {"no_proxy": "*"}


@given(st.dictionaries(st.sampled_from(VARIABLES), st.text(max_size=30), max_size=6))
def test_any_environment_comes_over_as_it_was(environment: dict[str, str]) -> None:
    found = decode(encode(environment, directory=Path("/")))

    assert found is not None
    assert set(found) == {name for name, value in environment.items() if value}


@pytest.mark.parametrize(
    ("target", "sent"), [("unix:/run/lns.sock", True), ("gateway.example:443", False)]
)
def test_variables_go_over_unix_sockets_only(target: str, *, sent: bool) -> None:
    def metadata() -> dict[str, object]:
        context.set_environment(b'{"HOME": "/h"}')
        options = calls.Options(target=target, timeout=1.0, stream_timeout=1.0)
        return dict(options.arguments(1.0, None, None)["metadata"])

    assert (KEY in context.detached().run(metadata)) is sent


class Served:
    """What grpc says of a call: who made it."""

    def __init__(self, peer: str) -> None:
        self._peer = peer

    def peer(self) -> str:
        return self._peer


@pytest.mark.parametrize(
    ("peer", "is_taken"),
    [
        ("unix:", True),
        ("unix:/run/lns.sock", True),
        ("ipv4:127.0.0.1:40000", False),
        ("ipv6:%5B::1%5D:40000", False),
        ("vsock:2:40000", False),
    ],
)
async def test_variables_are_taken_from_unix_sockets_only(peer: str, *, is_taken: bool) -> None:
    variables = b'{"HOME": "/h"}'
    call = ServedCall(
        method="/lns.test/Get",
        metadata={KEY: variables},
        streams_answers=False,
        context=cast("grpc.aio.ServicerContext[Any, Any]", Served(peer)),
    )

    async with identify(call):
        assert context.environment() == (variables if is_taken else b"")
