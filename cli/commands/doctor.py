"""`lns doctor`: what this machine can do, and how to fix what it cannot."""

import asyncio
import os
import stat
from pathlib import Path
from typing import Any

import click
from lns.registry.v1 import registry_service_pb2 as registry_pb
from lns.vm.v1 import vm_service_pb2 as vm_pb

from cli.context import FAILURE, Context, command
from cli.errors import way_out
from cli.options import format_option
from cli.render.output import write_rows
from cli.render.text import printable
from lns.client.connection.config import config_path, load_config
from lns.client.connection.session import Peer, open_session
from services.chassis.settings import state_directory
from services.core.errors import LnsError
from services.core.version import VERSION

_PROBE_SECONDS = 120.0
_REGISTRY_SECONDS = 3.0
_TRIED_MOST = 16

_VERDICTS = {
    vm_pb.HostCheck.VERDICT_OK: "ok",
    vm_pb.HostCheck.VERDICT_WARNING: "warning",
    vm_pb.HostCheck.VERDICT_FAILED: "failed",
}
_COLORS = {"ok": "green", "warning": "yellow", "failed": "red"}

Check = dict[str, Any]


@command("doctor", doing="examine this machine")
@click.option("--probe", is_flag=True, help="Try hardware virtualization again.")
@format_option
async def doctor(context: Context, probe: bool, form: str | None) -> int:
    """Say what this machine can do and how to fix the rest; exit code 1 if runs are impossible."""
    checks = [
        _check("lns", "ok", f"version {VERSION}"),
        _configuration(context),
        _proxies(context),
    ]
    checks.append(state_check(state_directory(context.environment)))
    checks += await _services(context, probe=probe)
    if form in (None, "table"):
        for check in checks:
            _write(context, check)
    else:
        write_rows(checks, (), form=form, write=context.write)
    return FAILURE if any(check["verdict"] == "failed" for check in checks) else 0


def _write(context: Context, check: Check) -> None:
    verdict = check["verdict"]
    # click leaves colours out where standard output is no terminal.
    color = None if context.is_set("NO_COLOR") else _COLORS[verdict]
    line = f" {printable(check['name']):<16} {printable(check['detail'])}"
    context.write(line, mark=f"{verdict:<8}", colour=color)
    if check["remedy"]:
        context.write(f"{'':<8} {'':<16} → {printable(check['remedy'])}")


def state_check(home: Path) -> Check:
    """Says whether others can write where the services keep their state, or above it.

    Whoever can write there can exchange what runs, and what they are run from.
    """
    for place in (home, *home.absolute().parents):
        try:
            status = place.stat()
        except OSError:
            continue  # it is made, closed to others, when it is needed
        is_sticky = bool(status.st_mode & stat.S_ISVTX) and place != home
        if status.st_uid not in (0, os.geteuid()):
            why, remedy = f"belongs to user {status.st_uid}", "set another LNS_HOME"
        elif status.st_mode & 0o022 and not is_sticky:
            why, remedy = "can be written by others", f"`chmod go-w {place}`"
        else:
            continue
        return _check("state directory", "warning", f"{home}: {place} {why}", remedy)
    return _check("state directory", "ok", f"{home}, which only you can write to")


def _configuration(context: Context) -> Check:
    try:
        values = load_config(context)
    except LnsError as error:
        return _check("configuration", "failed", error.message, way_out(error))
    count = len(values)
    return _check("configuration", "ok", f"{count} values, {config_path(context)}")


def _proxies(context: Context) -> Check:
    """Returns which proxies registries are reached through, by this command's own environment."""
    found = []
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        value = context.environment.get(name) or context.environment.get(name.upper())
        if value:
            found.append(f"{name.upper()} {_without_login(value)}")
    detail = "; ".join(found) or "none in the environment"
    if any(not entry.startswith("NO_PROXY") for entry in found):
        detail += " (settings of registry_gateway come first; addresses that a registry names can"
        detail += " then be judged by their names only)"
    return _check("proxies", "ok", detail)


def _without_login(address: str) -> str:
    scheme, separator, rest = address.rpartition("://")
    return f"{scheme}{separator}{rest.rpartition('@')[2]}"


async def _services(context: Context, *, probe: bool) -> list[Check]:
    try:
        async with open_session(context, Peer.VM_RUNNER, Peer.REGISTRY_GATEWAY) as session:
            host = await session.vm.GetHost(
                vm_pb.GetHostRequest(probe=probe), timeout=_PROBE_SECONDS
            )
            logins = await session.registry.ListLogins(registry_pb.ListLoginsRequest())
    except LnsError as error:
        return [_check("services", "failed", error.message, way_out(error))]
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        return [
            _check(
                "services",
                "failed",
                f"{where}{error.strerror or error}",
                "set LNS_HOME to a folder that you can write to",
            )
        ]
    names = [login.registry for login in logins.logins]
    return [
        _check("services", "ok", "answer"),
        *(
            _check(one.name, _VERDICTS.get(one.verdict, "failed"), one.detail, one.remedy)
            for one in host.checks
        ),
        _check("registry logins", "ok", ", ".join(names) or "none"),
        *await asyncio.gather(*(registry_check(context, name) for name in names[:_TRIED_MOST])),
    ]


async def registry_check(context: Context, host: str) -> Check:
    """Says whether a registry that there is a login for can be connected to from here."""
    name, _, port = host.partition(":")
    if _uses_proxy(context):
        return _check("registry", "ok", f"{host}: reached through a proxy, not tried")
    address = (name, int(port) if port.isdigit() else 443)
    try:
        async with asyncio.timeout(_REGISTRY_SECONDS):
            _, writer = await asyncio.open_connection(*address)
    except TimeoutError:
        why = f"does not answer within {_REGISTRY_SECONDS:g} s"
    except OSError as error:
        why = f"cannot be connected to: {error.strerror or error}"
    else:
        writer.close()
        return _check("registry", "ok", f"{host}: accepts connections")
    return _check("registry", "warning", f"{host}: {why}", "check its name and the network")


def _uses_proxy(context: Context) -> bool:
    names = ("http_proxy", "https_proxy", "all_proxy")
    return any(context.is_set(name) or context.is_set(name.upper()) for name in names)


def _check(name: str, verdict: str, detail: str, remedy: str = "") -> Check:
    return {"name": name, "verdict": verdict, "detail": detail, "remedy": remedy}
