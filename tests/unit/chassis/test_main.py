import contextlib
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

import pytest
import yaml

from services.chassis.main import FAILED, MISUSED, run
from services.chassis.server import Service
from services.chassis.settings import ProcessSettings
from services.core.errors import HostUnready
from tests.support.processes import started


@contextlib.asynccontextmanager
async def no_services(_: ProcessSettings) -> AsyncIterator[Sequence[Service]]:
    yield []


def test_the_settings_in_effect_are_printed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    config = tmp_path / "s.yaml"
    config.write_text("server: {grace: 3s}\nvm_runner: {anything: 1}\n")
    monkeypatch.setenv("LNS_HOME", "/state")
    monkeypatch.setenv("LNS_LOG__LEVEL", "debug")

    code = run(
        ProcessSettings,
        no_services,
        socket="x.sock",
        arguments=["--config", str(config), "--print-config"],
    )

    shown = yaml.safe_load(capsys.readouterr().out)
    assert code == 0
    assert shown["home"] == "/state"
    assert shown["server"]["listen"] == ["unix:/state/run/x.sock"]
    assert (shown["server"]["grace"], shown["log"]["level"]) == ("3s", "debug")


def test_every_wrong_setting_is_a_line_and_the_code_says_so(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LNS_SERVER__GRACE", "soon")
    monkeypatch.setenv("LNS_LOG__LEVEL", "loud")

    assert run(ProcessSettings, no_services, socket="x.sock", arguments=[]) == MISUSED

    lines = capsys.readouterr().err.splitlines()
    assert [line.split(":")[0] for line in lines] == ["LNS_SERVER__GRACE", "LNS_LOG__LEVEL"]


FAILING = """
import contextlib, sys
from services.chassis.main import run
from services.chassis.settings import ProcessSettings
from services.core.errors import HostUnready

@contextlib.asynccontextmanager
async def open_services(settings):
    raise {error}
    yield

sys.exit(run(ProcessSettings, open_services, socket="x.sock", arguments=[]))
"""


@pytest.mark.parametrize(
    ("error", "event"),
    [
        ('HostUnready("no QEMU", hint="apt-get install qemu-system-x86")', '"not_served"'),
        ('KeyError("x")', '"failed"'),
    ],
)
async def test_a_process_that_cannot_start_says_why_and_fails(
    short_directory: Path, error: str, event: str
) -> None:
    script = short_directory / "failing.py"
    script.write_text(FAILING.format(error=error))
    environment = {
        "LNS_HOME": str(short_directory),
        "PYTHONPATH": f"{short_directory}:.:protos/gen",
    }

    async with started("failing", environment=environment) as process:
        _, log = await process.communicate()

    assert process.returncode == FAILED
    assert event in log.decode()
    assert (HostUnready.reason in log.decode()) == (event == '"not_served"')


async def test_a_second_process_for_one_socket_ends_with_a_reason(short_directory: Path) -> None:
    from services.chassis.settings import PeerSettings  # noqa: PLC0415  # needed here only
    from tests.support.processes import serving  # noqa: PLC0415  # see above

    environment = {"LNS_HOME": str(short_directory)}
    module = "tests.support.echo_process"

    async with started(module, environment=environment):
        await serving(PeerSettings(target=f"unix:{short_directory}/run/echo.sock"))
        async with started(module, environment=environment) as second:
            _, log = await second.communicate()

    assert second.returncode == FAILED
    assert '"IN_USE"' in log.decode()
