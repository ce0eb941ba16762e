"""Files of settings that name roots and client certificates."""

from ipaddress import IPv4Network
from pathlib import Path

import pytest
import trustme
from cryptography import x509
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    PrivateFormat,
    load_pem_private_key,
)

from services.chassis.blocking import Blocking
from services.core.egress.hosts import parse_host
from services.core.errors import SettingsInvalid
from services.vm_runner.adapters.egress.boundary_files import BoundaryFiles
from services.vm_runner.boundary.boundary import BoundarySettings
from services.vm_runner.boundary.upstream_trust import parse_identity, upstream_trust

AUTHORITY = trustme.CA()
CERTIFICATE = AUTHORITY.issue_cert("client.test")
CHAIN = b"".join(one.bytes() for one in CERTIFICATE.cert_chain_pems)
KEY = CERTIFICATE.private_key_pem.bytes()
OTHER = AUTHORITY.issue_cert("other.test").private_key_pem.bytes()
LOCKED = load_pem_private_key(KEY, None).private_bytes(
    Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"word")
)
FILE = Path("/etc/corp/client.pem")


@pytest.mark.parametrize("data", [CHAIN + KEY, KEY + CHAIN, b"# mine\n" + CHAIN + KEY])
def test_certificate_and_key_are_found_in_either_order(data: bytes) -> None:
    identity = parse_identity(data, FILE)

    assert x509.load_pem_x509_certificate(identity.chain).subject is not None
    assert b"BEGIN PRIVATE KEY" in identity.key
    assert "PRIVATE" not in repr(identity)


@pytest.mark.parametrize(
    "data", [b"", b"text", CHAIN, KEY, CHAIN + OTHER, CHAIN + LOCKED, CHAIN + KEY[:200]]
)
def test_what_is_no_certificate_with_its_key_is_refused_and_not_quoted(data: bytes) -> None:
    with pytest.raises(SettingsInvalid, match=r"/etc/corp/client\.pem") as caught:
        parse_identity(data, FILE)

    assert KEY[40:60].decode() not in caught.value.message


async def test_settings_hold_for_their_hosts_only(tmp_path: Path) -> None:
    (tmp_path / "client.pem").write_bytes(CHAIN + KEY)
    (tmp_path / "ca.pem").write_bytes(AUTHORITY.cert_pem.bytes())
    settings = BoundarySettings(
        names=IPv4Network("198.18.0.0/15"),
        authorities={"*.corp.test": tmp_path / "ca.pem", "gone.test": tmp_path / "gone.pem"},
        identities={"api.corp.test": tmp_path / "client.pem"},
    )
    with Blocking(2) as blocking:
        files = BoundaryFiles(blocking=blocking)
        mine = await upstream_trust(parse_host("api.corp.test"), settings, files)
        near = await upstream_trust(parse_host("b.corp.test"), settings, files)
        other = await upstream_trust(parse_host("api.corp.test.evil.test"), settings, files)
        with pytest.raises(SettingsInvalid, match="has no roots"):
            await upstream_trust(parse_host("gone.test"), settings, files)

    assert mine.ca
    assert mine.identity is not None
    assert (bool(near.ca), near.identity) == (True, None)
    assert (other.ca, other.identity) == ("", None)
