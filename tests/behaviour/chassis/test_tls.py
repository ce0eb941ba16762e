"""Mutual TLS over TCP: who gets in, what renewed certificates change, who may call what."""

import asyncio
import dataclasses
import datetime as dt
import os
import socket
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any

import prometheus_client
import pytest
import trustme
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from services.chassis.channel import open_channel
from services.chassis.server import running_server
from services.chassis.settings import PeerSettings, ServerSettings, TlsSettings
from services.core import errors
from services.core.errors import SettingsInvalid
from tests.support.echo import DESCRIPTOR, EchoStub, echo_service, text


class Authority:
    """A certificate authority that writes the files of one peer a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.ca = trustme.CA()

    def issue(
        self, name: str, *, ca: trustme.CA | None = None, until: dt.datetime | None = None
    ) -> TlsSettings:
        """Writes, or replaces by renaming, the files of the peer `name`."""
        folder = self.folder / name
        folder.mkdir(exist_ok=True)
        issued = (ca or self.ca).issue_cert(name, "localhost", not_after=until)
        settings = TlsSettings(
            certificate=folder / "cert.pem", key=folder / "key.pem", authority=folder / "ca.pem"
        )
        for path, blobs in (
            (settings.certificate, issued.cert_chain_pems),
            (settings.key, [issued.private_key_pem]),
            (settings.authority, [self.ca.cert_pem]),
        ):
            fresh = path.with_suffix(".new")
            fresh.write_bytes(b"".join(blob.bytes() for blob in blobs))
            fresh.replace(path)
        return settings


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path)


def server_settings(
    tls: TlsSettings, allow: Mapping[str, tuple[str, ...]] | None = None
) -> ServerSettings:
    rules = {"*": ("*",)} if allow is None else allow
    return ServerSettings(listen=("localhost:0",), tls=tls, allow=rules, grace=0.1)


async def whoami(_: Any, context: Any) -> Any:
    return text(",".join(name.decode() for name in context.peer_identities() or ()))


async def ask(address: str, tls: TlsSettings | None) -> str:
    peer = PeerSettings(target=address, tls=tls, timeout=10)
    async with open_channel(peer, DESCRIPTOR) as channel:
        answer = await EchoStub(channel).Store(text(""))
    return str(answer.value)


async def test_a_client_with_a_certificate_gets_in(
    authority: Authority, log_entries: list[dict[str, object]]
) -> None:
    settings = server_settings(authority.issue("server"))

    async with running_server(settings, [echo_service(Store=whoami)]) as (address,):
        names = await ask(address, authority.issue("resolver"))

    assert "resolver" in names.split(",")
    (line,) = [entry for entry in log_entries if entry["event"] == "rpc_finished"]
    assert line["principal"] == "resolver"


async def refusal(address: str, tls: TlsSettings | None) -> errors.LnsError:
    with pytest.raises(errors.ServiceUnavailable) as caught:
        await ask(address, tls)
    assert caught.value.hint
    return caught.value


async def test_without_or_with_a_foreign_certificate_nobody_gets_in(authority: Authority) -> None:
    """To gRPC that looks like an outage."""
    settings = server_settings(authority.issue("server"))
    foreign = authority.issue("stranger", ca=trustme.CA())

    async with running_server(settings, [echo_service(Store=whoami)]) as (address,):
        without = await refusal(address, None)
        strange = await refusal(address, foreign)

    assert "EchoService" in without.message
    assert "speaks TLS, and no certificate is configured" in without.message
    assert f"refuses the certificate {foreign.certificate}" in strange.message
    assert "has not signed it" in strange.message or "another authority" in strange.message
    assert "names stranger" in strange.message


async def test_a_server_of_a_foreign_authority_is_not_believed(authority: Authority) -> None:
    impostor = authority.issue("impostor", ca=trustme.CA())
    settings = server_settings(impostor)
    own = authority.issue("resolver")

    async with running_server(settings, [echo_service(Store=whoami)]) as (address,):
        found = await refusal(address, own)

    assert "is not accepted" in found.message
    assert "names impostor" in found.message
    assert str(own.authority) in found.hint


async def test_an_expired_certificate_of_either_side_is_named_with_its_dates(
    authority: Authority,
) -> None:
    past = dt.datetime(2020, 2, 1, tzinfo=dt.UTC)
    server, client = authority.issue("server"), authority.issue("client")
    old_server = authority.issue("old-server", until=past)
    old_client = authority.issue("old-client", until=past)

    async with running_server(server_settings(server), [echo_service(Store=whoami)]) as (address,):
        own = await refusal(address, old_client)
    async with running_server(server_settings(old_server), [echo_service(Store=whoami)]) as (
        address,
    ):
        theirs = await refusal(address, client)

    assert "the own certificate" in own.message
    assert "to 2020-02-01" in own.message
    assert "expired" in theirs.message
    assert "to 2020-02-01" in theirs.message
    assert "renew the certificate of the service" in theirs.hint


async def test_a_name_that_the_servers_certificate_has_not_is_reported(
    authority: Authority,
) -> None:
    settings = server_settings(authority.issue("server"))

    async with running_server(settings, [echo_service(Store=whoami)]) as (address,):
        port = address.rpartition(":")[2]
        found = await refusal(f"127.0.0.1:{port}", authority.issue("client"))

    assert "127.0.0.1" in found.message
    assert "names server, localhost" in found.message
    assert "by a name that its certificate has" in found.hint


async def test_a_key_of_another_certificate_is_reported(authority: Authority) -> None:
    settings = server_settings(authority.issue("server"))
    one, other = authority.issue("one"), authority.issue("other")
    mixed = dataclasses.replace(one, key=other.key)

    async with running_server(settings, [echo_service(Store=whoami)]) as (address,):
        found = await refusal(address, mixed)

    assert f"the key {other.key} does not belong to the certificate" in found.message


async def test_nobody_listening_and_a_name_that_does_not_exist_are_reported(
    authority: Authority, short_directory: Path
) -> None:
    tls = authority.issue("client")
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        port = unused.getsockname()[1]

    nobody = await refusal(f"localhost:{port}", tls)
    no_socket = await refusal(f"unix:{short_directory}/no.sock", None)
    nowhere = await refusal("no-such-host.invalid:1", tls)

    assert "nobody listens for lns.test.v1.EchoService at localhost" in nobody.message
    assert "nobody listens" in no_socket.message
    assert "cannot be resolved" in nowhere.message


async def test_tls_towards_plain_text_is_reported(authority: Authority) -> None:
    settings = ServerSettings(listen=("localhost:0",), plaintext_tcp=True, grace=0.1)

    async with running_server(settings, [echo_service(Store=whoami)]) as (address,):
        found = await refusal(address, authority.issue("client"))

    assert "does not speak TLS" in found.message


async def test_renewed_certificates_are_used_without_a_restart(authority: Authority) -> None:
    server_files = authority.issue("server")
    old_client = authority.issue("old")

    async with running_server(server_settings(server_files), [echo_service(Store=whoami)]) as (
        address,
    ):
        assert "old" in await ask(address, old_client)

        authority.ca = trustme.CA()
        authority.issue("server")
        new_client = authority.issue("new")

        assert "new" in await ask(address, new_client)
        with pytest.raises(errors.ServiceUnavailable):
            await ask(address, old_client)


async def test_a_revoked_certificate_is_refused_as_soon_as_the_list_has_it(
    authority: Authority, tmp_path: Path
) -> None:
    path = tmp_path / "revoked.pem"
    path.write_bytes(revocation_list())
    settings = dataclasses.replace(server_settings(authority.issue("server")), revoked=path)
    client, other = authority.issue("client"), authority.issue("other")
    certificate = x509.load_pem_x509_certificates(client.certificate.read_bytes())[0]

    async with running_server(settings, [echo_service(Store=whoami)]) as (address,):
        assert "client" in await ask(address, client)
        path.with_suffix(".new").write_bytes(revocation_list(certificate.serial_number))
        path.with_suffix(".new").replace(path)
        with pytest.raises(errors.CallerDenied, match="was revoked on 2026-01-02") as caught:
            await ask(address, client)
        assert "other" in await ask(address, other)
        path.write_bytes(b"half a li")
        with pytest.raises(errors.CallerDenied):
            await ask(address, client)

    assert f"{certificate.serial_number:x}" in caught.value.message
    with pytest.raises(SettingsInvalid, match="is no revocation list"):
        async with running_server(settings, []):
            pass


def revocation_list(*serials: int) -> bytes:
    moment = dt.datetime(2026, 1, 2, tzinfo=dt.UTC)
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "authority")])
    builder = x509.CertificateRevocationListBuilder().issuer_name(name)
    builder = builder.last_update(moment).next_update(moment + dt.timedelta(days=9))
    for serial in serials:
        entry = x509.RevokedCertificateBuilder().serial_number(serial).revocation_date(moment)
        builder = builder.add_revoked_certificate(entry.build())
    made = builder.sign(ec.generate_private_key(ec.SECP256R1()), hashes.SHA256())
    return made.public_bytes(serialization.Encoding.PEM)


async def test_metrics_tell_of_handshakes_and_of_the_certificates_end(
    authority: Authority,
) -> None:
    server = authority.issue("server", until=dt.datetime(2040, 1, 1, tzinfo=dt.UTC))
    handshakes, connections = value("lns_tls_handshakes_total"), value("lns_tls_connections_total")

    async with running_server(server_settings(server), [echo_service(Store=whoami)]) as (address,):
        await ask(address, authority.issue("client"))
        await refusal(address, authority.issue("stranger", ca=trustme.CA()))

    begun = value("lns_tls_handshakes_total") - handshakes
    used = value("lns_tls_connections_total") - connections
    assert used == 1
    assert begun > used
    expiry = value("lns_tls_certificate_expiry_timestamp_seconds", file=str(server.certificate))
    assert expiry == dt.datetime(2040, 1, 1, tzinfo=dt.UTC).timestamp()


async def test_an_unknown_method_is_counted_and_answered_in_words(short_directory: Path) -> None:
    settings = ServerSettings(listen=(f"unix:{short_directory}/s",), grace=0.1)
    before = value("lns_rpc_unknown_methods_total")

    async with (
        running_server(settings, [echo_service(Store=whoami)]),
        open_channel(PeerSettings(target=settings.listen[0])) as channel,
    ):
        with pytest.raises(
            errors.Unimplemented, match=r"does not have /lns\.test\.v1\.Echo"
        ) as caught:
            await EchoStub(channel).Echo(text(""))

    assert caught.value.metadata["cause"]
    assert value("lns_rpc_unknown_methods_total") == before + 1


def value(name: str, **labels: str) -> float:
    return prometheus_client.REGISTRY.get_sample_value(name, labels) or 0.0


async def test_a_client_that_stays_connected_shows_its_renewed_certificate(
    authority: Authority,
) -> None:
    settings = server_settings(authority.issue("server"))
    peer_files = authority.issue("resolver")

    async def stay(_: Any, __: Any) -> AsyncIterator[Any]:
        while True:
            yield text("still here")
            await asyncio.sleep(0.01)

    async with running_server(settings, [echo_service(Store=whoami, Count=stay)]) as (address,):
        peer = PeerSettings(target=address, tls=peer_files, timeout=10)
        async with open_channel(peer, DESCRIPTOR) as channel:
            stub = EchoStub(channel)
            running = stub.Count(text(""))
            await anext(running)

            renewed = authority.issue("resolver-2")
            for file in ("certificate", "key"):
                getattr(renewed, file).replace(getattr(peer_files, file))

            assert "resolver-2" in (await stub.Store(text(""))).value.split(",")
            assert (await anext(running)).value == "still here"


async def test_a_certificate_that_vanishes_leaves_the_former_in_force(
    authority: Authority,
) -> None:
    files = authority.issue("server")
    client = authority.issue("client")

    async with running_server(server_settings(files), [echo_service(Store=whoami)]) as (address,):
        files.key.unlink()

        assert "client" in await ask(address, client)


@pytest.mark.parametrize(
    "rule", ["/lns.test.v1.EchoService/Store", "/lns.test.v1.EchoService/*", "*"]
)
async def test_a_method_can_be_kept_to_named_callers(authority: Authority, rule: str) -> None:
    settings = server_settings(authority.issue("server"), {rule: ("cli", "resolver")})

    async with running_server(settings, [echo_service(Store=whoami)]) as (address,):
        assert "cli" in await ask(address, authority.issue("cli"))
        with pytest.raises(errors.CallerDenied, match="vm-runner") as caught:
            await ask(address, authority.issue("vm-runner"))

    assert caught.value.hint


async def test_the_most_exact_rule_decides(authority: Authority) -> None:
    allow = {
        "*": ("nobody",),
        "/lns.test.v1.EchoService/*": ("nobody",),
        "/lns.test.v1.EchoService/Store": ("cli",),
    }
    settings = server_settings(authority.issue("server"), allow)

    async with running_server(settings, [echo_service(Store=whoami)]) as (address,):
        assert "cli" in await ask(address, authority.issue("cli"))


async def test_a_method_without_a_rule_is_nobodys(authority: Authority) -> None:
    rules = {"/lns.test.v1.EchoService/Count": ("cli",), "/lns.vm.v1.VmService/*": ("*",)}
    settings = server_settings(authority.issue("server"), rules)

    async with running_server(settings, [echo_service(Store=whoami)]) as (address,):
        with pytest.raises(errors.CallerDenied, match=r"cli.* may not call"):
            await ask(address, authority.issue("cli"))


def test_a_rule_for_a_method_that_does_not_exist_is_no_setting(authority: Authority) -> None:
    """Misspelt, it would leave the real method to whoever a wider rule permits."""
    rules = {"*": ("*",), "/lns.vm.v1.VmService/RemoveRum": ("cli",)}

    with pytest.raises(SettingsInvalid, match=r"is `/lns\.vm\.v1\.VmService/RemoveRun` meant"):
        server_settings(authority.issue("server"), rules)


async def test_a_rule_does_not_bind_who_comes_through_the_unix_socket(
    authority: Authority, short_directory: Path
) -> None:
    settings = dataclasses.replace(
        server_settings(authority.issue("server"), {"*": ("cli",)}),
        listen=(f"unix:{short_directory}/s", "localhost:0"),
    )

    async with running_server(settings, [echo_service(Store=whoami)]) as (local, _):
        assert await ask(local, None) == ""


@pytest.mark.parametrize("missing", ["certificate", "key", "authority"])
async def test_a_missing_file_is_named_on_both_sides(authority: Authority, missing: str) -> None:
    tls = authority.issue("server")
    path: Path = getattr(tls, missing)
    os.unlink(path)  # noqa: PTH108  # a real absence

    with pytest.raises(SettingsInvalid, match=str(path)):
        async with running_server(server_settings(tls), []):
            pass
    with pytest.raises(SettingsInvalid, match=str(path)):
        await ask("localhost:1", tls)
