"""How the other end of terminated TLS is verified, and which certificate the run shows it."""

import ssl
from collections.abc import Mapping
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)

from services.core.egress.hosts import Host, is_below
from services.core.errors import SettingsInvalid
from services.vm_runner.boundary.boundary import BoundarySettings
from services.vm_runner.boundary.ports import BoundaryFiles
from services.vm_runner.egress_worker.orders import Leaf, UpstreamTrust

_BEGIN_KEY = b"PRIVATE KEY-----"


async def upstream_trust(
    host: Host, settings: BoundarySettings, files: BoundaryFiles
) -> UpstreamTrust:
    """Returns the roots that count for a host, and the certificate that it may ask for.

    Raises:
        SettingsInvalid: a file that a setting names for this host cannot be used.
    """
    authority, identity = _named(host, settings.authorities), _named(host, settings.identities)
    return UpstreamTrust(
        ca="" if authority is None else _text(await files.read(authority), authority),
        identity=None if identity is None else parse_identity(await files.read(identity), identity),
    )


def parse_identity(data: bytes, path: Path) -> Leaf:
    """Returns the client certificate in a PEM file, with those that issued it, and its key.

    Raises:
        SettingsInvalid: it has not both, or the key is encrypted.
    """
    start = data.find(b"-----BEGIN ")
    while start >= 0 and _BEGIN_KEY not in data[start : start + 64]:
        start = data.find(b"-----BEGIN ", start + 1)
    try:
        chain = x509.load_pem_x509_certificates(data)
        key = load_pem_private_key(data[max(0, start) :], None)
    except (ValueError, TypeError) as error:  # not the error's text: it may quote a key
        raise SettingsInvalid(
            f"{path} is no client certificate with its key",
            hint="put both into one PEM file, the key without a password",
        ) from error
    if chain[0].public_key() != key.public_key():
        raise SettingsInvalid(
            f"the key in {path} is not that of its first certificate",
            hint="put the certificate of the key first",
        )
    return Leaf(
        chain=b"".join(one.public_bytes(Encoding.PEM) for one in chain),
        key=key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()),
    )


def _named(host: Host, files: Mapping[str, Path]) -> Path | None:
    return next((path for pattern, path in files.items() if is_below(str(host), pattern)), None)


def _text(data: bytes, path: Path) -> str:
    try:
        text = data.decode("ascii")
        ssl.PEM_cert_to_DER_cert(text[: text.index("-----END CERTIFICATE-----") + 25])
    except ValueError as error:
        raise SettingsInvalid(
            f"{path} has no roots", hint="name a PEM file with certificates"
        ) from error
    return text
