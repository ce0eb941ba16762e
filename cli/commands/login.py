"""`lns login` and `lns logout`: credentials for registries."""

import click
from lns.registry.v1 import registry_service_pb2 as pb

from cli.context import Context, command, subcommand
from cli.options import format_option
from cli.render.messages import to_document
from cli.render.output import columns, write_rows
from cli.render.text import printable
from cli.secret_input import read_secret
from lns.client.connection.session import Peer, open_session
from services.core.errors import RegistryUnauthenticated, RequestInvalid

_DEVICE_MARGIN = 30.0


@command("login", doing="log in to {registry}")
@click.argument("registry", metavar="[REGISTRY]", required=False)
@click.option(
    "-u", "--username", default="", metavar="USER", help="User name; leave it out for a token."
)
@click.option("--password-stdin", is_flag=True, help="Read password or token from standard input.")
@click.option("--device", is_flag=True, help="Log in with a browser, where the registry offers it.")
@click.option("--list", "show", is_flag=True, help="List the registries with stored credentials.")
@format_option
async def login(
    context: Context,
    registry: str | None,
    username: str,
    password_stdin: bool,
    device: bool,
    show: bool,
    form: str | None,
) -> None:
    """Verify credentials against REGISTRY and store them in a file that only you can read."""
    if show:
        await _list(context, form)
        return
    if registry is None:
        context.doing = "log in to a registry"
        raise RequestInvalid("login wants a registry", hint="`lns login -u USER HOST[:PORT]`")
    if device:
        await _log_in_with_device(context, registry)
        return
    secret = read_secret(
        context, what="Password or token", from_stdin=password_stdin, ways="--password-stdin"
    )
    request = pb.LoginRequest(registry=registry, username=username, secret=secret)
    async with open_session(context, Peer.REGISTRY_GATEWAY) as session:
        try:
            response = await session.registry.Login(request)
        except RegistryUnauthenticated as error:
            if username:
                raise
            raise RegistryUnauthenticated(
                f"{error.message}; no user name was given, so the secret was shown as an identity"
                " token",
                hint=f"lns login -u USER --password-stdin {registry}",
                metadata=error.metadata,
            ) from error
    _note_stored(context, registry, response)


@click.group("auth", short_help="List the registries with stored credentials")
def auth() -> None:
    """Look at stored credentials; `lns login` and `lns logout` change them."""


@subcommand(auth, "ls", doing="list the stored credentials")
@format_option
async def auth_ls(context: Context, form: str | None) -> None:
    """List the registries that lns has credentials for, and where each is stored."""
    await _list(context, form)


@command("logout", doing="log out of {registry}")
@click.argument("registry", metavar="REGISTRY")
async def logout(context: Context, registry: str) -> None:
    """Forget the credentials that are stored for REGISTRY."""
    async with open_session(context, Peer.REGISTRY_GATEWAY) as session:
        response = await session.registry.Logout(pb.LogoutRequest(registry=registry))
    context.note(
        f"forgot the credentials for {registry}"
        if response.removed
        else f"there were no credentials for {registry}"
    )


async def _log_in_with_device(context: Context, registry: str) -> None:
    async with open_session(context, Peer.REGISTRY_GATEWAY) as session:
        begun = await session.registry.StartDeviceLogin(
            pb.StartDeviceLoginRequest(registry=registry)
        )
        context.note(
            f"open {printable(begun.verification_uri)} and enter {printable(begun.user_code)}"
        )
        seconds = begun.expires_in.ToTimedelta().total_seconds()
        response = await session.registry.FinishDeviceLogin(
            pb.FinishDeviceLoginRequest(login_id=begun.login_id), timeout=seconds + _DEVICE_MARGIN
        )
    _note_stored(context, registry, response)


def _note_stored(
    context: Context, registry: str, response: pb.LoginResponse | pb.FinishDeviceLoginResponse
) -> None:
    place = printable(response.location) or f"the {response.stored_in}"
    context.note(f"logged in to {registry}; stored in {place}")


async def _list(context: Context, form: str | None) -> None:
    async with open_session(context, Peer.REGISTRY_GATEWAY) as session:
        response = await session.registry.ListLogins(pb.ListLoginsRequest())
    write_rows(
        [to_document(one) for one in response.logins],
        columns(registry="REGISTRY", username="USER", stored_in="STORED IN"),
        form=form,
        write=context.write,
    )
