"""`lns context`: named places where the services are."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from cli.context import Context, subcommand
from cli.options import existing_file, format_option
from cli.render.output import columns, write_document, write_rows
from lns.client.connection.config import config_path, load_config
from lns.client.connection.config_file import read_config, write_config
from lns.client.connection.config_keys import check_value
from lns.client.connection.contexts import (
    DEFAULT,
    add_context,
    context_file,
    context_names,
    read_context,
    remove_context,
)
from services.core.errors import InUse, RequestInvalid, SettingsInvalid

_COLUMNS = columns(name="NAME", current="CURRENT", vm_runner="VM RUNNER", certificate="CERTIFICATE")
_ENDPOINTS = ("registry-gateway", "resolver", "materializer", "vm-runner")


def _endpoint(name: str) -> Callable[[Callable[..., None]], Callable[..., None]]:
    what = name.replace("-", " ").replace("vm", "VM")
    return click.option(
        f"--{name}", metavar="ADDRESS", help=f"Where the {what} is: host:port or unix:/path."
    )


@click.group("context", short_help="Manage named places of the services")
def context_group() -> None:
    """Manage named places where the services are, with the certificates towards them.

    `lns --context NAME …` and the variable LNS_CONTEXT choose one for a command, `lns context use`
    for all that follow. `default` is what `lns config` says, else the services of this machine.
    """


@subcommand(context_group, "create", doing="create the context {name}")
@click.argument("name", metavar="NAME")
@_endpoint("registry-gateway")
@_endpoint("resolver")
@_endpoint("materializer")
@_endpoint("vm-runner")
@click.option("--authority", type=existing_file(), metavar="FILE", help="PEM: who signs services.")
@click.option("--certificate", type=existing_file(), metavar="FILE", help="PEM: this client's.")
@click.option("--key", type=existing_file(), metavar="FILE", help="PEM: its private key.")
def context_create(
    context: Context,
    name: str,
    authority: Path | None,
    certificate: Path | None,
    key: Path | None,
    **endpoints: str | None,
) -> None:
    """Create a context from the addresses of services.

    The files of the certificate stay where they are, so that a renewed one is used.
    """
    values = {
        f"endpoint-{peer}": endpoints[peer.replace("-", "_")] or ""
        for peer in _ENDPOINTS
        if endpoints[peer.replace("-", "_")]
    }
    if not values:
        raise RequestInvalid("a context needs an address", hint="give for example --vm-runner")
    files = {"tls-authority": authority, "tls-certificate": certificate, "tls-key": key}
    values |= {entry: str(path.absolute()) for entry, path in files.items() if path is not None}
    for entry, value in values.items():
        check_value(entry, value)
    _check_certificate(values)
    add_context(config_path(context), name, values)
    context.write(name)


def _check_certificate(values: dict[str, str]) -> None:
    from lns.client.connection.session import tls_of  # noqa: PLC0415 - imports gRPC
    from services.chassis.reachability import own_problem  # noqa: PLC0415 - the same

    tls = tls_of(values)
    if tls is not None and (found := own_problem(tls)) is not None:
        raise SettingsInvalid(found.why, hint=found.remedy)


@subcommand(context_group, "ls", doing="list contexts")
@format_option
def context_ls(context: Context, form: str | None) -> None:
    """List the contexts; `*` marks the one in use."""
    config = config_path(context)
    current = load_config(context).get("context", DEFAULT)
    rows: list[dict[str, Any]] = []
    for name in (DEFAULT, *context_names(config)):
        values = read_config(config) if name == DEFAULT else read_context(config, name)
        rows.append(
            {
                "name": name,
                "current": "*" if name == current else "",
                "vm_runner": values.get("endpoint-vm-runner"),
                "certificate": values.get("tls-certificate"),
            }
        )
    write_rows(rows, _COLUMNS, form=form, write=context.write)


@subcommand(context_group, "use", doing="use the context {name}")
@click.argument("name", metavar="NAME")
def context_use(context: Context, name: str) -> None:
    """Use a context for all commands that follow."""
    config = config_path(context)
    values = {key: value for key, value in read_config(config).items() if key != "context"}
    if name != DEFAULT:
        read_context(config, name)
        values["context"] = name
    write_config(config, values)
    context.write(name)


@subcommand(context_group, "show", doing="show the context {name}")
@click.argument("name", metavar="[NAME]", required=False)
@click.option("--format", "form", metavar="FORMAT", help="json or a template.")
def context_show(context: Context, name: str | None, form: str | None) -> None:
    """Show what a context says, by default the one in use."""
    config = config_path(context)
    name = name or load_config(context).get("context", DEFAULT)
    if name == DEFAULT:
        found = {k: v for k, v in read_config(config).items() if k.startswith(("endpoint", "tls"))}
        path = config
    else:
        found, path = dict(read_context(config, name)), context_file(config, name)
    write_document({"name": name, "file": str(path), **found}, form=form, write=context.write)


@subcommand(context_group, "rm", doing="remove the context {name}")
@click.argument("name", metavar="NAME")
def context_rm(context: Context, name: str) -> None:
    """Remove a context; its certificates stay where they are."""
    config = config_path(context)
    if read_config(config).get("context") == name:
        raise InUse(f"the context {name} is in use", hint="`lns context use default` leaves it")
    remove_context(config, name)
