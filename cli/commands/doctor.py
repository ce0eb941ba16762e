"""`lns doctor`: what this machine can do, and how to fix what it cannot."""

import asyncio
import os
import stat
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click
from lns.registry.v1 import registry_service_pb2 as registry_pb
from lns.vm.v1 import vm_service_pb2 as vm_pb

from cli.commands import setup
from cli.context import FAILURE, Context, command
from cli.errors import way_out
from cli.options import format_option
from cli.render.checks import write_check
from cli.render.output import write_rows
from cli.setup.steps import Result, take
from lns.client.connection.config import config_path, load_config
from lns.client.connection.session import Peer, is_elsewhere, open_session
from services.chassis.settings import state_directory
from services.core.errors import LnsError, RequestInvalid
from services.core.version import VERSION

_PROBE_SECONDS = 120.0
_REGISTRY_SECONDS = 3.0
_TRIED_MOST = 16

_VERDICTS = {
    vm_pb.HostCheck.VERDICT_OK: "ok",
    vm_pb.HostCheck.VERDICT_WARNING: "warning",
    vm_pb.HostCheck.VERDICT_FAILED: "failed",
}
_FIXES = {"qemu": "qemu", "mkfs.ext4": "qemu", "kernel": "kernel"}

Check = dict[str, Any]


@command("doctor", doing="examine this machine")
@click.option("--probe", is_flag=True, help="Try hardware virtualization again.")
@click.option("--fix", is_flag=True, help="Install what is missing, as `lns setup` does.")
@click.option("-y", "--yes", is_flag=True, help="With --fix: install without asking.")
@format_option
async def doctor(context: Context, probe: bool, fix: bool, yes: bool, form: str | None) -> int:
    """Say what this machine can do and how to fix the rest; exit code 1 if runs are impossible."""
    checks = await _examine(context, probe=probe)
    if fix and (steps := missing_steps(checks)):
        await install_missing(context, steps, yes=yes)
        checks = await _examine(context, probe=True)
    if form in (None, "table"):
        for check in checks:
            write_check(context, **check)
    else:
        write_rows(checks, (), form=form, write=context.write)
    return FAILURE if any(check["verdict"] == "failed" for check in checks) else 0


async def _examine(context: Context, *, probe: bool) -> list[Check]:
    return [
        _check("lns", "ok", f"version {VERSION}"),
        _configuration(context),
        _proxies(context),
        state_check(state_directory(context.environment)),
        *await _services(context, probe=probe),
    ]


def missing_steps(checks: Sequence[Check]) -> list[str]:
    """Returns the steps of `lns setup` that make failed checks pass."""
    failed = [check["name"] for check in checks if check["verdict"] == "failed"]
    return [name for name in setup.STEPS if name in {_FIXES.get(one) for one in failed}]


async def install_missing(context: Context, names: Sequence[str], *, yes: bool) -> None:
    """Takes steps of `lns setup`, and writes how they ended to standard error.

    Raises:
        RequestInvalid: the services that lack something are on another machine.
    """
    at = load_config(context).get(Peer.VM_RUNNER, "")
    if at and is_elsewhere(at):
        raise RequestInvalid(
            f"{', '.join(names)} must be set up where vm_runner is: {at}",
            hint=f"there: lns setup {' '.join(names)}",
        )
    steps = setup.make_steps(setup.this_machine(context), names)
    consent = setup.consent_of(yes=yes)
    for one in await asyncio.to_thread(take, steps, consent=consent, note=context.note):
        if one.result is Result.FAILED:
            context.note(f"lns: {one.step}: {one.detail}")
            context.note(f"  try: {one.remedy}")


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
