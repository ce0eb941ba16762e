"""Where a server listens, and who may reach it."""

import os
import socket
import stat
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from services.chassis import server
from services.chassis.channel import open_channel
from services.chassis.server import running_server
from services.chassis.settings import PeerSettings, ServerSettings
from services.core import errors
from tests.support.echo import DESCRIPTOR, EchoStub, echo_service, text


@pytest.fixture
def open_umask() -> Iterator[None]:
    before = os.umask(0)
    yield
    os.umask(before)


@pytest.mark.usefixtures("open_umask")
async def test_a_socket_is_private_from_the_moment_it_exists(
    short_directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever the umask; looked at in the instant after it was bound."""
    path = short_directory / "s"
    modes: list[int] = []
    add_port = server._add_port

    def watched(address: str, add: object) -> int:
        port = add_port(address, add)  # type: ignore[arg-type]  # handed on
        modes.append(stat.S_IMODE(path.stat().st_mode))
        return port

    monkeypatch.setattr(server, "_add_port", watched)
    async with running_server(ServerSettings(listen=(f"unix:{path}",)), []):
        modes.append(stat.S_IMODE(path.stat().st_mode))
        assert os.umask(0) == 0

    assert modes == [0o600, 0o600]


async def test_the_directory_of_a_socket_is_made_private(short_directory: Path) -> None:
    path = short_directory / "run" / "s"

    async with running_server(ServerSettings(listen=(f"unix:{path}",)), []):
        assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700


async def test_a_second_server_does_not_take_the_socket_of_a_living_one(
    short_directory: Path,
) -> None:
    """grpc alone removes the socket and binds its own."""
    settings = ServerSettings(listen=(f"unix:{short_directory}/s",), grace=0.1)

    async with (
        running_server(settings, [echo_service()]),
        open_channel(PeerSettings(target=settings.listen[0]), DESCRIPTOR) as channel,
    ):
        with pytest.raises(errors.InUse, match=str(os.getpid())):
            async with running_server(settings, []):
                pass
        with pytest.raises(errors.Unimplemented):
            await EchoStub(channel).Store(text(""))


async def test_a_socket_that_a_killed_server_left_is_replaced(short_directory: Path) -> None:
    path = short_directory / "s"
    stale = socket.socket(socket.AF_UNIX)
    stale.bind(str(path))
    stale.close()
    settings = ServerSettings(listen=(f"unix:{path}",), grace=0.1)

    async with (
        running_server(settings, [echo_service()]),
        open_channel(PeerSettings(target=settings.listen[0]), DESCRIPTOR) as channel,
    ):
        with pytest.raises(errors.Unimplemented):
            await EchoStub(channel).Store(text(""))

    assert not path.exists()


async def test_a_directory_that_cannot_be_made_is_a_clear_error(short_directory: Path) -> None:
    (short_directory / "file").touch()
    settings = ServerSettings(listen=(f"unix:{short_directory}/file/s",))

    with pytest.raises(errors.SettingsInvalid, match="cannot be a socket"):
        async with running_server(settings, []):
            pass


async def test_nobody_listening_is_reported_with_the_address_and_a_way_out(
    short_directory: Path,
) -> None:
    target = f"unix:{short_directory}/nobody"

    async with open_channel(PeerSettings(target=target), DESCRIPTOR) as channel:
        with pytest.raises(errors.ServiceUnavailable, match=target) as caught:
            await EchoStub(channel).Store(text(""))

    assert "lns service" in caught.value.hint


async def test_something_that_is_not_grpc_is_an_unavailable_service(
    short_directory: Path,
) -> None:
    path = short_directory / "s"
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen()

        def answer() -> None:
            connection, _ = listener.accept()
            with connection:
                connection.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")

        thread = threading.Thread(target=answer)
        thread.start()
        async with open_channel(PeerSettings(target=f"unix:{path}"), DESCRIPTOR) as channel:
            with pytest.raises(errors.ServiceUnavailable):
                await EchoStub(channel).Store(text(""), timeout=10)
        thread.join()


async def test_a_server_can_listen_at_several_addresses(short_directory: Path) -> None:
    settings = ServerSettings(
        listen=(f"unix:{short_directory}/s", "127.0.0.1:0", "[::1]:0"),
        plaintext_tcp=True,
        grace=0.1,
    )

    async with running_server(settings, [echo_service()]) as addresses:
        assert not addresses[1].endswith(":0")
        for address in addresses:
            async with open_channel(PeerSettings(target=address), DESCRIPTOR) as channel:
                with pytest.raises(errors.Unimplemented):
                    await EchoStub(channel).Store(text(""))
