"""Where others can write, they can exchange what runs: doctor names it."""

import asyncio
from pathlib import Path

import pytest

from cli.app import dispatch
from cli.commands.doctor import install_missing, registry_check, state_check
from cli.context import Context
from services.core.errors import RequestInvalid


@pytest.mark.parametrize(
    ("mode", "verdict"),
    [(0o700, "ok"), (0o755, "ok"), (0o770, "warning"), (0o757, "warning"), (0o1777, "warning")],
)
def test_a_state_directory_that_others_can_write_is_named(
    tmp_path: Path, mode: int, verdict: str
) -> None:
    home = tmp_path / "state"
    home.mkdir()
    home.chmod(mode)

    check = state_check(home)

    assert check["verdict"] == verdict
    assert str(home) in check["detail"]
    assert bool(check["remedy"]) == (verdict == "warning")


def test_a_directory_above_it_counts_as_it_does(tmp_path: Path) -> None:
    above = tmp_path / "shared"
    above.mkdir()
    above.chmod(0o777)

    check = state_check(above / "state")

    assert check["verdict"] == "warning"
    assert f"{above} can be written by others" in check["detail"]
    above.chmod(0o1777)  # as /tmp is: others cannot exchange what is ours there
    assert state_check(above / "state")["verdict"] == "ok"


def test_a_home_that_cannot_be_written_does_not_silence_the_rest(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").touch()  # as root, a directory without permission would do
    environment = {"HOME": str(tmp_path), "LNS_HOME": str(tmp_path / "file" / "home")}

    code = dispatch(["doctor"], environment)

    shown = capsys.readouterr().out
    assert code == 1
    assert "configuration" in shown
    assert "services" in shown
    assert "Not a directory" in shown
    assert "set LNS_HOME to a folder that you can write to" in shown


async def test_a_registry_is_said_to_answer_or_not() -> None:
    async def close(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.close()

    server = await asyncio.start_server(close, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    context = Context(environment={})

    there = await registry_check(context, f"127.0.0.1:{port}")
    server.close()
    await server.wait_closed()
    gone = await registry_check(context, f"127.0.0.1:{port}")
    proxied = await registry_check(Context(environment={"HTTPS_PROXY": "x"}), "registry.example")

    assert (there["verdict"], gone["verdict"], proxied["verdict"]) == ("ok", "warning", "ok")
    assert "accepts connections" in there["detail"]
    assert "cannot be connected to" in gone["detail"]


async def test_what_another_machine_lacks_is_not_installed_on_this_one() -> None:
    context = Context(environment={"LNS_ENDPOINT_VM_RUNNER": "node.example:7443", "HOME": "/-"})

    with pytest.raises(RequestInvalid, match=r"node\.example:7443") as caught:
        await install_missing(context, ["qemu"], yes=True)

    assert caught.value.hint == "there: lns setup qemu"
