"""Registries that want to know who asks: what they are shown, and who never sees it."""

import base64
import json
import os
import stat
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from services.chassis import context
from services.chassis.caller_environment import encode
from services.core import errors
from tests.support.fault_proxy import FaultProxy, Kind, Match
from tests.support.faults import Answer, Redirect, error_answer
from tests.support.gateway import RunningGateway, run_gateway
from tests.support.images import Built, build_image, random_bytes, upload
from tests.support.registry import RunningRegistry

CANARY = "canary-7f3a9c"
KNOWLEDGE = b"{apiVersion: lens.dev/v1alpha1, kind: Knowledge, metadata: {name: k}, spec: {}}"


def basic(username: str, password: str) -> str:
    return base64.b64encode(f"{username}:{password}".encode()).decode()


def known_to(registry: RunningRegistry) -> dict[str, str]:
    """What a registry with Basic authentication accepts, as a header."""
    assert registry.username is not None
    assert registry.password is not None
    return {"Authorization": f"Basic {basic(registry.username, registry.password)}"}


def new_path(registry: RunningRegistry) -> str:
    return registry.new_repository().partition("/")[2]


async def login(gateway: RunningGateway, registry: RunningRegistry, host: str = "") -> None:
    await gateway.call(
        "Login",
        registry=host or registry.host,
        username=registry.username,
        secret=registry.password,
    )


async def test_the_variables_of_a_client_count_for_its_calls(
    gateway: RunningGateway, basic_registry: RunningRegistry, tmp_path: Path
) -> None:
    """As if it had started the gateway: its file of logins is used, and no other's."""
    path = new_path(basic_registry)
    upload(basic_registry.url, path, build_image(b"x"), "v", known_to(basic_registry))
    reference = f"{basic_registry.host}/{path}:v"
    mine = {"LNS_REGISTRY_AUTH_PATH": str(tmp_path / "mine.json"), "HOME": str(tmp_path)}

    def as_client(variables: dict[str, str]) -> None:
        context.set_environment(encode(variables, directory=tmp_path))

    as_client({"HOME": str(tmp_path)})
    with pytest.raises(errors.RegistryUnauthenticated):
        await gateway.pull(reference)
    as_client(mine)
    await login(gateway, basic_registry)
    assert (tmp_path / "mine.json").exists()
    assert not gateway.settings.auth_path.exists()
    await gateway.pull(reference)
    as_client({"HOME": str(tmp_path)})
    with pytest.raises(errors.RegistryUnauthenticated):
        await gateway.pull(reference)


async def exchange(gateway: RunningGateway, host: str, path: str) -> Built:
    """Pushes an image by way of the gateway and pulls it into an empty store; returns it."""
    layer = random_bytes(100_000, time.time_ns())
    document = b"apiVersion: lens.dev/v1alpha1\nkind: FileSet\nmetadata: {name: f}\nspec: {}\n"
    digest = await gateway.write(layer)
    fields = {
        "media_type": "application/vnd.oci.image.layer.v1.tar+gzip",
        "digest": digest,
        "size_bytes": len(layer),
    }
    await gateway.call(
        "PushArtifact",
        reference=f"{host}/{path}:v",
        family="fileset",
        document=document + b"mount: {path: /data}\n",
        layers=[fields],
    )
    await gateway.call("ReleaseLease", lease_id=f"written {digest}")
    await gateway.call("PruneBlobs", include_tagged=True)
    assert gateway.stored() == set()
    result = await gateway.pull(f"{host}/{path}:v")
    assert gateway.blob_path(digest).read_bytes() == layer
    return Built(raw=result.manifest, media_type=result.descriptor.media_type)


# Basic


async def test_basic_credentials_of_a_login_open_a_registry(
    gateway: RunningGateway, basic_registry: RunningRegistry
) -> None:
    await login(gateway, basic_registry)

    await exchange(gateway, basic_registry.host, new_path(basic_registry))


async def test_without_a_login_the_error_says_how_to_log_in(
    gateway: RunningGateway, basic_registry: RunningRegistry
) -> None:
    with pytest.raises(errors.RegistryUnauthenticated) as caught:
        await gateway.pull(f"{basic_registry.host}/{new_path(basic_registry)}")

    assert caught.value.hint == f"lns login {basic_registry.host}"


async def test_basic_credentials_are_shown_at_once_after_the_first_challenge(
    gateway: RunningGateway, basic_registry: RunningRegistry
) -> None:
    with FaultProxy(basic_registry.host) as proxy:
        await login(gateway, basic_registry, proxy.host)
        proxy.forget()

        await exchange(gateway, proxy.host, new_path(basic_registry))
        refused = [one for one in proxy.requests if one.status == 401]
        proxy.forget()
        await exchange(gateway, proxy.host, new_path(basic_registry))
        refused_later = [one for one in proxy.requests if one.status == 401]

    assert all(one.received_bytes == 0 for one in refused), "no body was sent for nothing"
    assert len(refused) <= gateway.settings.parallel_blobs
    assert refused_later == []


async def test_a_wrong_password_is_found_out_at_login_and_not_kept(
    gateway: RunningGateway, basic_registry: RunningRegistry
) -> None:
    with pytest.raises(errors.RegistryUnauthenticated):
        await gateway.call(
            "Login", registry=basic_registry.host, username="lns", secret="not this one"
        )

    assert not gateway.settings.auth_path.exists()
    assert (await gateway.call("ListLogins")).logins == []


async def test_a_registry_that_asks_for_no_login_gets_none(
    gateway: RunningGateway, registry: RunningRegistry
) -> None:
    with pytest.raises(errors.RequestInvalid):
        await gateway.call("Login", registry=registry.host, username="a", secret="b")

    assert not gateway.settings.auth_path.exists()


async def test_a_login_is_kept_in_a_private_file_and_forgotten_on_logout(
    gateway: RunningGateway, basic_registry: RunningRegistry
) -> None:
    await login(gateway, basic_registry)
    path = gateway.settings.auth_path

    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    (kept,) = (await gateway.call("ListLogins")).logins
    assert (kept.registry, kept.username, kept.stored_in) == (basic_registry.host, "lns", "file")

    assert (await gateway.call("Logout", registry=basic_registry.host)).removed
    assert not (await gateway.call("Logout", registry=basic_registry.host)).removed
    assert (await gateway.call("ListLogins")).logins == []
    assert (basic_registry.password or "") not in path.read_text()
    with pytest.raises(errors.RegistryUnauthenticated):
        await gateway.pull(f"{basic_registry.host}/{new_path(basic_registry)}")


@pytest.mark.parametrize("host", ["", "a/b", "http://", "user@host", "a b", "-x", "https://x/y"])
async def test_a_login_wants_a_host(gateway: RunningGateway, host: str) -> None:
    with pytest.raises(errors.RequestInvalid):
        await gateway.call("Login", registry=host, username="a", secret="b")


@pytest.mark.parametrize(
    ("username", "secret"),
    [("a:b", "c"), ("a", ""), ("a", "x\ny"), ("a\n", "x"), ("a", "\0"), ("a", "x" * 70_000)],
)
async def test_a_login_wants_a_credential_that_can_be_one(
    gateway: RunningGateway, username: str, secret: str
) -> None:
    with pytest.raises(errors.RequestInvalid):
        await gateway.call("Login", registry="127.0.0.1:1", username=username, secret=secret)


# Where else credentials are found


@pytest.fixture
def helpers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory on PATH for credential helpers."""
    directory = tmp_path / "bin"
    directory.mkdir()
    monkeypatch.setenv("PATH", f"{directory}:{os.environ['PATH']}")
    return directory


def write_helper(directory: Path, name: str, host: str, username: str, secret: str) -> None:
    answer = json.dumps({"ServerURL": host, "Username": username, "Secret": secret})
    program = directory / f"docker-credential-{name}"
    program.write_text(
        f"#!/bin/sh\n[ \"$1\" = get ] && [ \"$(cat)\" = '{host}' ] || exit 1\necho '{answer}'\n"
    )
    program.chmod(0o755)


def write_json(path: Path, document: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(document))


@pytest.mark.parametrize("place", ["docker_config", "auth_file"])
@pytest.mark.parametrize("form", ["auth", "fields", "scheme", "path"])
async def test_logins_of_docker_and_podman_are_found(
    gateway: RunningGateway, basic_registry: RunningRegistry, place: str, form: str
) -> None:
    host, username, password = basic_registry.host, "lns", basic_registry.password or ""
    entry = {"auth": basic(username, password)}
    if form == "fields":
        entry = {"username": username, "password": password}
    key = {"scheme": f"https://{host}", "path": f"http://{host}/v2/"}.get(form, host)
    write_json(getattr(gateway.settings, place), {"auths": {key: entry}})

    await exchange(gateway, host, new_path(basic_registry))


@pytest.mark.parametrize("kind", ["basic", "token"])
async def test_a_login_for_a_namespace_opens_it_and_nothing_else(
    gateway: RunningGateway, request: pytest.FixtureRequest, kind: str
) -> None:
    registry: RunningRegistry = request.getfixturevalue(f"{kind}_registry")
    entry = {"auth": basic(registry.username or "", registry.password or "")}
    wrong = {"auth": basic("lns", "wrong")}
    path = new_path(registry)
    auths = {f"{registry.host}/{path}": entry, registry.host: wrong}
    write_json(gateway.settings.auth_file, {"auths": auths})

    await exchange(gateway, registry.host, f"{path}/app")
    with pytest.raises(errors.RegistryUnauthenticated, match="refused the login"):
        await gateway.pull(f"{registry.host}/{new_path(registry)}:v")


@pytest.mark.parametrize("kind", ["credHelpers", "credsStore"])
async def test_credential_helpers_of_docker_are_asked(
    gateway: RunningGateway, basic_registry: RunningRegistry, helpers: Path, kind: str
) -> None:
    host = basic_registry.host
    write_helper(helpers, "lnstest", host, "lns", basic_registry.password or "")
    value = {host: "lnstest"} if kind == "credHelpers" else "lnstest"
    write_json(gateway.settings.docker_config, {kind: value, "auths": {host: {}}})

    await exchange(gateway, host, new_path(basic_registry))


async def test_own_logins_come_before_those_of_docker(
    gateway: RunningGateway, basic_registry: RunningRegistry
) -> None:
    host = basic_registry.host
    write_json(gateway.settings.docker_config, {"auths": {host: {"auth": basic("x", "wrong")}}})
    await login(gateway, basic_registry)

    await exchange(gateway, host, new_path(basic_registry))


BROKEN = [
    "{",
    "[]",
    '{"auths": []}',
    '{"auths": {"%s": "x"}}',
    '{"auths": {"%s": {"auth": "***"}}}',
    '{"auths": {"%s": {"auth": 7}}}',
    '{"credHelpers": {"%s": "../../bin/sh"}}',
    '{"credHelpers": {"%s": "absent"}}',
    '{"credHelpers": {"%s": 7}}',
    '{"credsStore": ["x"]}',
    "\0\0\0",
    "[" * 100_000,
]


@pytest.mark.parametrize("content", BROKEN, ids=lambda text: text[:40])
async def test_a_broken_file_of_another_tool_stops_nothing(
    gateway: RunningGateway,
    registry: RunningRegistry,
    basic_registry: RunningRegistry,
    content: str,
) -> None:
    path = gateway.settings.docker_config
    path.parent.mkdir()
    path.write_text(content.replace("%s", basic_registry.host))
    write_json(
        gateway.settings.auth_file,
        {"auths": {basic_registry.host: {"auth": basic("lns", basic_registry.password or "")}}},
    )

    await exchange(gateway, basic_registry.host, new_path(basic_registry))


# Bearer tokens


async def test_bearer_tokens_are_fetched_for_what_is_done(
    gateway: RunningGateway, token_registry: RunningRegistry
) -> None:
    server = token_registry.token_server
    assert server is not None
    await login(gateway, token_registry)
    server.requests.clear()
    path = new_path(token_registry)

    await exchange(gateway, token_registry.host, path)

    assert server.requests[0]["service"] == [server.service]
    scopes = {scope for request in server.requests for scope in request.get("scope", [])}
    assert {f"repository:{path}:pull,push", f"repository:{path}:pull"} <= scopes
    assert len(server.requests) <= 4, "a token is fetched once for each set of scopes"


async def test_a_second_repository_gets_a_token_of_its_own(
    gateway: RunningGateway, token_registry: RunningRegistry
) -> None:
    await login(gateway, token_registry)

    await exchange(gateway, token_registry.host, new_path(token_registry))
    await exchange(gateway, token_registry.host, new_path(token_registry))


async def test_an_expired_token_is_replaced(
    gateway: RunningGateway, token_registry: RunningRegistry
) -> None:
    server = token_registry.token_server
    assert server is not None
    await login(gateway, token_registry)
    path = new_path(token_registry)
    server.lifetime = -3600.0  # refused by the registry whatever the client believes
    try:
        with pytest.raises(errors.RegistryUnauthenticated):
            await gateway.pull(f"{token_registry.host}/{path}")
    finally:
        server.lifetime = 300.0

    await exchange(gateway, token_registry.host, path)


async def test_an_identity_token_is_exchanged_for_access_tokens(
    gateway: RunningGateway, token_registry: RunningRegistry
) -> None:
    server = token_registry.token_server
    assert server is not None
    server.refresh_tokens.add(f"identity-{CANARY}")
    await gateway.call("Login", registry=token_registry.host, secret=f"identity-{CANARY}")
    server.requests.clear()

    await exchange(gateway, token_registry.host, new_path(token_registry))

    assert all(request["grant_type"] == ["refresh_token"] for request in server.requests)


@pytest.mark.parametrize("form", ["identitytoken", "helper"])
async def test_identity_tokens_of_docker_are_found(
    gateway: RunningGateway, token_registry: RunningRegistry, helpers: Path, form: str
) -> None:
    server = token_registry.token_server
    assert server is not None
    server.refresh_tokens.add("identity")
    host = token_registry.host
    if form == "helper":
        write_helper(helpers, "lnstest", host, "<token>", "identity")
        write_json(gateway.settings.docker_config, {"credHelpers": {host: "lnstest"}})
    else:
        entry = {"identitytoken": "identity", "auth": basic("0000", "")}
        write_json(gateway.settings.docker_config, {"auths": {host: entry}})

    await exchange(gateway, host, new_path(token_registry))


async def test_a_wrong_password_is_refused_by_the_token_server(
    gateway: RunningGateway, token_registry: RunningRegistry
) -> None:
    with pytest.raises(errors.RegistryUnauthenticated):
        await gateway.call(
            "Login", registry=token_registry.host, username="lns", secret="not this one"
        )

    assert not gateway.settings.auth_path.exists()


# Who never sees a credential


@pytest.fixture
def guarded(basic_registry: RunningRegistry) -> Iterator[FaultProxy]:
    with FaultProxy(basic_registry.host) as proxy:
        yield proxy


@pytest.mark.parametrize("other_port", [False, True], ids=["host", "port"])
async def test_credentials_do_not_follow_a_redirect_to_another_origin(
    gateway: RunningGateway,
    basic_registry: RunningRegistry,
    guarded: FaultProxy,
    *,
    other_port: bool,
) -> None:
    built = build_image(random_bytes(1000, 1))
    path = new_path(basic_registry)
    upload(basic_registry.url, path, built, "v", known_to(basic_registry))
    await login(gateway, basic_registry, guarded.host)
    guarded.script(Match(kind=Kind.BLOB, peer=guarded.host), Redirect(other_port=other_port))
    guarded.forget()

    # The registry behind the other door wants credentials, and none are stored for that door.
    with pytest.raises(errors.RegistryDenied):
        await gateway.pull(f"{guarded.host}/{path}:v")

    elsewhere = [one for one in guarded.requests if one.peer != guarded.host]
    assert elsewhere
    assert all("authorization" not in one.headers for one in elsewhere)


async def test_credentials_do_not_go_to_a_foreign_upload_location(
    gateway: RunningGateway, basic_registry: RunningRegistry, guarded: FaultProxy
) -> None:
    await login(gateway, basic_registry, guarded.host)
    # Logged in to the other door too: what it would be shown is not for the first to decide.
    await login(gateway, basic_registry, guarded.other_host)
    path = new_path(basic_registry)
    digest = await gateway.write(b"x" * 1000)
    elsewhere = f"http://{guarded.other_host}/v2/{path}/blobs/uploads/1"
    guarded.script(
        Match(method="POST", kind=Kind.UPLOAD, peer=guarded.host),
        Answer(status=202, headers={"Location": elsewhere}),
    )
    guarded.forget()

    with pytest.raises(errors.RegistryDenied):
        await gateway.call(
            "PushArtifact",
            reference=f"{guarded.host}/{path}:v",
            family="knowledge",
            document=KNOWLEDGE,
            layers=[{"media_type": "application/x", "digest": digest, "size_bytes": 1000}],
        )

    sent = [one for one in guarded.requests if one.peer == guarded.other_host]
    assert sent
    assert all("authorization" not in one.headers for one in sent)


async def test_a_denied_access_is_distinguished_from_a_missing_login(
    gateway: RunningGateway, registry: RunningRegistry, proxy: FaultProxy
) -> None:
    proxy.script(Match(kind=Kind.MANIFEST), error_answer(403, "DENIED"))

    with pytest.raises(errors.RegistryDenied):
        await gateway.pull(f"{proxy.host}/team/secret:v")


async def test_a_secret_shows_nowhere_but_in_its_file(
    gateway: RunningGateway,
    basic_registry: RunningRegistry,
    token_registry: RunningRegistry,
    log_entries: list[dict[str, object]],
    capfd: pytest.CaptureFixture[str],
) -> None:
    texts: list[str] = []
    for registry in (basic_registry, token_registry):
        try:
            await gateway.call(
                "Login", registry=registry.host, username="lns", secret=f"{CANARY}-password"
            )
        except errors.LnsError as error:
            texts += [error.message, error.hint, str(error.metadata), repr(error.violations)]
        write_json(
            gateway.settings.docker_config,
            {"auths": {registry.host: {"auth": basic("lns", f"{CANARY}-docker")}}},
        )
        try:
            await gateway.pull(f"{registry.host}/team/app")
        except errors.LnsError as error:
            texts += [error.message, error.hint, str(error.metadata), repr(error.violations)]
        write_json(gateway.settings.docker_config, {"auths": {f"{registry.host}": CANARY}})
    output = capfd.readouterr()
    texts += [repr(log_entries), output.out, output.err]

    assert len(texts) > 8
    hidden = base64.b64encode(f"lns:{CANARY}-password".encode()).decode()
    for text in texts:
        assert CANARY not in text
        assert hidden not in text


# TLS


async def test_a_registry_of_a_private_authority_is_trusted_by_its_file(
    short_directory: Path, tls_registry: RunningRegistry
) -> None:
    assert tls_registry.ca_file is not None
    host = tls_registry.host
    async with run_gateway(
        short_directory, loopback_tls=(host,), ca_files=(tls_registry.ca_file,)
    ) as gateway:
        await exchange(gateway, host, new_path(tls_registry))


async def test_a_registry_of_an_unknown_authority_is_refused_at_once(
    short_directory: Path, tls_registry: RunningRegistry
) -> None:
    async with run_gateway(short_directory, loopback_tls=(tls_registry.host,)) as gateway:
        with pytest.raises(errors.RegistryProtocol) as caught:
            await gateway.pull(f"{tls_registry.host}/team/app")

    assert "ca_files" in caught.value.hint
