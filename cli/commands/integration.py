"""`lns integration`, `connect` and `credentials`: services that agents use by their keys."""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click
from lns.egress.v1 import credential_service_pb2 as pb
from lns.registry.v1 import registry_service_pb2 as registry_pb

from cli.context import Context, command, subcommand
from cli.options import Decorator, combined, format_option
from cli.render.messages import iso_time, to_document
from cli.render.output import columns, write_document, write_rows
from cli.render.progress import open_reporter
from cli.render.text import printable
from cli.secret_input import read_secret
from lns.client.connection.session import Peer, Session, open_session
from lns.client.content.document_file import is_path, read_document
from lns.client.running.launch import last_result
from services.core.errors import RequestInvalid

_COLUMNS = columns(
    id="ID", state="STATE", env_var="VARIABLE", sent_to="SENT TO", title="WHAT", origin="FROM"
)
_CREDENTIAL_COLUMNS = columns(
    integration="INTEGRATION",
    project="PROJECT",
    source="SOURCE",
    stored_in="STORED IN",
    domains="SENT TO",
    created_at="CREATED",
)
_COMMAND_SECONDS = 60.0
_MARGIN_SECONDS = 30.0
_SHOWN_DOMAINS = 2

_project_option: Decorator = click.option(
    "--project",
    is_flag=False,
    flag_value=".",
    metavar="[DIR]",
    help="Only for runs started in DIR (default: here) instead of for every run of yours.",
)

_connect_options = combined(
    [
        click.argument("identifier", metavar="ID"),
        click.option("--value-stdin", is_flag=True, help="Read the secret from standard input."),
        click.option(
            "--from-env", metavar="NAME", default="", help="Take it from a variable, now."
        ),
        click.option(
            "--command",
            "shell_command",
            metavar="COMMAND",
            default="",
            help="Run COMMAND whenever it is needed, such as 'op read op://vault/item/key'.",
        ),
        _project_option,
    ]
)


@click.group("integration", short_help="Manage services that agents use by their keys")
def integration() -> None:
    """Manage integrations: which hosts a service has, and where a request carries its key.

    The key stays on this machine: an agent finds a placeholder in its environment, and the real key
    takes its place on the way out, over TLS, to the service's own hosts only.
    """


@subcommand(integration, "list", doing="list integrations")
@format_option
@click.option("-q", "--quiet", is_flag=True, help="Print only ids.")
async def integration_list(context: Context, form: str | None, quiet: bool) -> None:
    """List integrations by id: those that ship, and your own."""
    async with open_session(context, Peer.VM_RUNNER) as session:
        found = await _integrations(session)
    quiet_field = "id" if quiet else None
    write_rows(
        [_row(one) for one in found],
        _COLUMNS,
        form=form,
        write=context.write,
        quiet_field=quiet_field,
    )


@subcommand(integration, "show", doing="show the integration {identifier}")
@click.argument("identifier", metavar="ID")
@format_option
async def integration_show(context: Context, identifier: str, form: str | None) -> None:
    """Show everything about an integration."""
    async with open_session(context, Peer.VM_RUNNER) as session:
        (one,) = await _integrations(session, identifier)
    write_document(to_document(one), form=form, write=context.write)


@subcommand(integration, "add", doing="add the integration {source}")
@click.argument("source", metavar="FILE|REF|TEMPLATE")
@click.option("--host", metavar="HOST", default="", help="The host that a template is for.")
async def integration_add(context: Context, source: str, host: str) -> None:
    """Add an integration of your own: an artifact's file, a pushed artifact, or a template.

    `lns init integration` writes a file to start from, `lns push` pushes it. What REF names is
    copied: a tag that moves changes nothing here. The id is the artifact's name; ids of
    integrations that ship cannot be taken.
    """
    if is_path(source):
        request = pb.AddIntegrationRequest(document=read_document(source).decode(errors="replace"))
    elif "/" in source:
        request = pb.AddIntegrationRequest(document=await _pulled(context, source))
    else:
        request = pb.AddIntegrationRequest(template=source, host=host)
    async with open_session(context, Peer.VM_RUNNER) as session:
        added = (await session.credentials.AddIntegration(request)).integration
    context.write(added.id)
    context.note(
        f"its secret will be sent to {printable(', '.join(added.domains))};"
        f" store it with `lns connect {added.id}`"
    )


async def _pulled(context: Context, reference: str) -> str:
    """Returns the document of a pushed integration.

    Raises:
        RequestInvalid: the reference names something else.
    """
    request = registry_pb.PullRequest(reference=reference, mode=registry_pb.PULL_MODE_ALWAYS)
    async with open_session(context, Peer.REGISTRY_GATEWAY) as session:
        with open_reporter(context, sys.stderr, quiet=True) as reporter:
            result = await last_result(session.registry.Pull(request), reporter, "the gateway")
    if result.family != "integration":
        raise RequestInvalid(
            f"{reference} is {result.family or 'an image'}, not an integration",
            hint="name an artifact of the kind Integration",
        )
    document: bytes = result.document
    return document.decode(errors="replace")


@subcommand(integration, "remove", doing="remove the integration {identifiers}")
@click.argument("identifiers", metavar="ID...", nargs=-1, required=True)
async def integration_remove(context: Context, identifiers: tuple[str, ...]) -> None:
    """Remove integrations of your own; their credentials stay until they are disconnected."""
    async with open_session(context, Peer.VM_RUNNER) as session:
        for one in identifiers:
            response = await session.credentials.RemoveIntegration(
                pb.RemoveIntegrationRequest(id=one)
            )
            _report(context, one, response.removed, "no integration of yours is called")


@subcommand(integration, "connect", doing="connect {identifier}")
@_connect_options
async def integration_connect(context: Context, **options: Any) -> None:
    """Store the secret of an integration, as `lns connect` does."""
    await _connect(context, **options)


@subcommand(integration, "disconnect", doing="disconnect {identifier}")
@click.argument("identifier", metavar="ID")
@_project_option
async def integration_disconnect(context: Context, identifier: str, project: str | None) -> None:
    """Forget the secret of an integration, as `lns credentials remove` does."""
    await _forget(context, (identifier,), project)


@command("connect", doing="connect {identifier}", short_help="Store the key of a service")
@_connect_options
async def connect(context: Context, **options: Any) -> None:
    """Store the secret of an integration, for every run whose policy permits it.

    The secret is asked for without being shown, or had on another device where the service offers
    that. Live runs get it at once. `lns integration list` shows the ids.
    """
    await _connect(context, **options)


@click.group("credentials", short_help="List and forget stored keys")
def credentials() -> None:
    """List and forget the stored credentials of integrations; no secret is ever shown."""


@subcommand(credentials, "list", doing="list credentials")
@format_option
async def credentials_list(context: Context, form: str | None) -> None:
    """List what is stored, and where each secret may be sent."""
    async with open_session(context, Peer.VM_RUNNER) as session:
        response = await session.credentials.ListCredentials(pb.ListCredentialsRequest())
    rows = [
        {
            "integration": one.integration,
            "project": one.project,
            "source": one.source,
            "stored_in": one.stored_in,
            "command": one.command,
            "domains": list(one.domains),
            "created_at": iso_time(one.create_time),
        }
        for one in response.credentials
    ]
    write_rows(rows, _CREDENTIAL_COLUMNS, form=form, write=context.write)


@subcommand(credentials, "remove", doing="remove the credentials of {identifiers}")
@click.argument("identifiers", metavar="ID...", nargs=-1, required=True)
@_project_option
async def credentials_remove(
    context: Context, identifiers: tuple[str, ...], project: str | None
) -> None:
    """Forget the secrets of integrations; live runs cannot use them any more."""
    await _forget(context, identifiers, project)


async def _connect(
    context: Context,
    identifier: str,
    value_stdin: bool,
    from_env: str,
    shell_command: str,
    project: str | None,
) -> None:
    if sum(map(bool, (value_stdin, from_env, shell_command))) > 1:
        raise RequestInvalid("--value-stdin, --from-env and --command exclude each other")
    folder = _folder(project)
    async with open_session(context, Peer.VM_RUNNER) as session:
        (one,) = await _integrations(session, identifier)
        if one.is_template:
            raise RequestInvalid(
                f"{identifier} is a template: its host is yours to name",
                hint=f"lns integration add {identifier} --host HOST",
            )
        given = value_stdin or from_env or shell_command
        if one.auth_kind == "oauth" and not given:
            stored = await _authorize(context, session, identifier, folder)
        else:
            request = pb.PutCredentialRequest(integration=identifier, project=folder)
            if shell_command:
                request.command = shell_command
            else:
                request.value = read_secret(
                    context,
                    what=f"Key or token of {identifier}",
                    from_stdin=value_stdin,
                    from_env=from_env,
                    ways="--value-stdin, --from-env NAME or --command COMMAND",
                )
            response = await session.credentials.PutCredential(request, timeout=_COMMAND_SECONDS)
            stored = response.credential
    context.note(
        f"connected {identifier}: {_where(stored)}; sent to {', '.join(stored.domains)} only"
    )
    context.note(
        f"a run may use it where its policy says so: lns policy allow --integration {identifier}"
    )


async def _authorize(
    context: Context, session: Session, identifier: str, folder: str
) -> pb.StoredCredential:
    begun = await session.credentials.StartAuthorization(
        pb.StartAuthorizationRequest(integration=identifier, project=folder)
    )
    context.note(f"open {printable(begun.verification_uri)} and enter {printable(begun.user_code)}")
    seconds = begun.expires_in.ToTimedelta().total_seconds()
    response = await session.credentials.FinishAuthorization(
        pb.FinishAuthorizationRequest(authorization_id=begun.authorization_id),
        timeout=seconds + _MARGIN_SECONDS,
    )
    return response.credential


async def _forget(context: Context, identifiers: tuple[str, ...], project: str | None) -> None:
    folder = _folder(project)
    async with open_session(context, Peer.VM_RUNNER) as session:
        for one in identifiers:
            response = await session.credentials.RemoveCredential(
                pb.RemoveCredentialRequest(integration=one, project=folder)
            )
            _report(context, one, response.removed, "no credential is stored for")


def _report(context: Context, name: str, removed: bool, otherwise: str) -> None:
    if removed:
        context.write(name)
    else:
        context.note(f"{otherwise} {printable(name)}")


async def _integrations(session: Session, identifier: str = "") -> list[pb.Integration]:
    request = pb.ListIntegrationsRequest(project=str(Path.cwd()), id=identifier)
    response = await session.credentials.ListIntegrations(request)
    return list(response.integrations)


def _row(one: pb.Integration) -> dict[str, Any]:
    state = "template" if one.is_template else "connected" if one.connected else ""
    return {
        "id": one.id,
        "state": state,
        "env_var": one.env_var,
        "sent_to": _some(one.domains),
        "domains": list(one.domains),
        "title": one.title,
        "origin": one.origin,
    }


def _some(domains: Sequence[str]) -> str:
    if len(domains) <= _SHOWN_DOMAINS:
        return ", ".join(domains)
    return f"{domains[0]} and {len(domains) - 1} more"


def _folder(project: str | None) -> str:
    return "" if project is None else str(Path(project).resolve())


def _where(stored: pb.StoredCredential) -> str:
    places = {
        "command": "its command runs whenever it is needed",
        "keyring": "stored in the OS keyring",
    }
    return places.get(stored.stored_in, "stored in a file that only you can read")
