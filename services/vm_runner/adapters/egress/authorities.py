"""The certificate authority of each run; only its certificate goes into the guest."""

import datetime as dt
import ipaddress
import os
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from services.chassis.blocking import Blocking
from services.core.errors import CapacityExhausted
from services.vm_runner.egress_worker.orders import Leaf

_KEY, _CERTIFICATE = "ca.key", "ca.pem"
_NEW_FILE = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW
_BACK = dt.timedelta(days=3)
"""So that a guest whose clock is behind, after a resume for example, finds certificates valid."""
_CA_DAYS, _LEAF_DAYS = dt.timedelta(days=3650), dt.timedelta(days=90)
_COMMON_NAME_MOST = 64


class RunAuthority:
    """The authority of one run; its leaves share one key, which is made with it."""

    def __init__(
        self, key: ec.EllipticCurvePrivateKey, certificate: x509.Certificate, blocking: Blocking
    ) -> None:
        self._key = key
        self._certificate = certificate
        self._leaf_key = ec.generate_private_key(ec.SECP256R1())
        self._blocking = blocking

    @property
    def certificate(self) -> bytes:
        """Its certificate, PEM."""
        return self._certificate.public_bytes(serialization.Encoding.PEM)

    async def leaf(self, name: str) -> Leaf:
        """Returns a certificate for a name or an address, and its key."""
        return await self._blocking.run(self._leaf, name)

    def _leaf(self, name: str) -> Leaf:
        try:
            subject: x509.GeneralName = x509.IPAddress(ipaddress.ip_address(name))
        except ValueError:
            subject = x509.DNSName(name)
        now = dt.datetime.now(dt.UTC)
        key_id = x509.SubjectKeyIdentifier.from_public_key(self._key.public_key())
        certificate = (
            _builder(name, self._leaf_key.public_key(), now, _LEAF_DAYS)
            .issuer_name(self._certificate.subject)
            .add_extension(x509.SubjectAlternativeName([subject]), critical=False)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
            .add_extension(
                x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(key_id),
                critical=False,
            )
            .sign(self._key, hashes.SHA256())
        )
        return Leaf(
            chain=certificate.public_bytes(serialization.Encoding.PEM) + self.certificate,
            key=_private(self._leaf_key),
        )


class RunAuthorities:
    """Authorities in the directories of runs."""

    def __init__(self, *, blocking: Blocking) -> None:
        self._blocking = blocking
        self._known: dict[Path, RunAuthority] = {}

    async def of(self, directory: Path) -> RunAuthority:
        """Returns the authority of a run, which is made the first time."""
        known = self._known.get(directory)
        if known is None:
            known = await self._blocking.run(self._open, directory)
            known = self._known.setdefault(directory, known)
        return known

    def forget(self, directory: Path) -> None:
        """Forgets the authority of a run that is over."""
        self._known.pop(directory, None)

    def _open(self, directory: Path) -> RunAuthority:
        try:
            return self._read(directory)
        except (FileNotFoundError, ValueError):  # or half written
            pass
        key = ec.generate_private_key(ec.SECP256R1())
        certificate = _root(key)
        try:
            # Not durably: no guest that trusts it survives a crash of the host.
            descriptor = os.open(directory / _KEY, _NEW_FILE, 0o600)
            with os.fdopen(descriptor, "wb") as file:
                file.write(_private(key))
            public = certificate.public_bytes(serialization.Encoding.PEM)
            (directory / _CERTIFICATE).write_bytes(public)
        except OSError as error:
            raise CapacityExhausted(f"a certificate cannot be written: {error}") from error
        return RunAuthority(key, certificate, self._blocking)

    def _read(self, directory: Path) -> RunAuthority:
        key = serialization.load_pem_private_key((directory / _KEY).read_bytes(), password=None)
        certificate = x509.load_pem_x509_certificate((directory / _CERTIFICATE).read_bytes())
        if not isinstance(key, ec.EllipticCurvePrivateKey):
            raise FileNotFoundError(_KEY)
        return RunAuthority(key, certificate, self._blocking)


def _builder(
    name: str, key: ec.EllipticCurvePublicKey, now: dt.datetime, days: dt.timedelta
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(
            x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name[:_COMMON_NAME_MOST])])
        )
        .public_key(key)
        .serial_number(int.from_bytes(os.urandom(16)) >> 1)
        .not_valid_before(now - _BACK)
        .not_valid_after(now + days)
    )


def _root(key: ec.EllipticCurvePrivateKey) -> x509.Certificate:
    now = dt.datetime.now(dt.UTC)
    name = f"lns run {os.urandom(4).hex()}"
    builder = _builder(name, key.public_key(), now, _CA_DAYS)
    return (
        builder.issuer_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)]))
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(
            x509.KeyUsage(
                digital_signature=False, content_commitment=False, key_encipherment=False,
                data_encipherment=False, key_agreement=False, key_cert_sign=True, crl_sign=True,
                encipher_only=False, decipher_only=False,
            ),
            critical=True,
        )
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .sign(key, hashes.SHA256())
    )  # fmt: skip


def _private(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
