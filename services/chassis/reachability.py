"""Why a service does not answer: nobody listens, or a certificate of one side is not accepted.

gRPC says of all that no more than that it could not connect. So where a call failed without an
answer, the address is looked at once more, by hand: its socket, its TLS, its certificate and ours.
"""

import datetime as dt
import socket
import ssl
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from services.chassis.settings import TlsSettings
from services.core.text import printable

if TYPE_CHECKING:
    from cryptography.x509 import Certificate

_SECONDS = 3.0
_ALERTS = {
    "CERTIFICATE_REQUIRED": "it was shown none",
    "UNKNOWN_CA": "another authority has signed it",
    "CERTIFICATE_EXPIRED": "it has expired",
    "CERTIFICATE_REVOKED": "it was revoked",
    "BAD_CERTIFICATE": "it is not a usable certificate",
    "DECRYPT_ERROR": "its key does not fit",
}
"""What a server says of a client's certificate, by a part of the name that OpenSSL gives it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """Why there is no answer, and what to do about it; each one line for a person."""

    why: str
    remedy: str


def examine(target: str, tls: TlsSettings | None, *, service: str) -> Finding:
    """Returns why the service at an address does not answer; blocks for some seconds at most.

    Args:
        target: `unix:/path`, `host:port` or `dns:///name:port`.
        tls: the files of this side, where the connection is made with TLS.
        service: the name that the service has for a person.
    """
    where = f"{service} at {target}"
    own = own_problem(tls) if tls is not None else None
    if own is not None:
        return own
    try:
        with _connect(target) as connection:
            if tls is None:
                return _without_tls(connection, where, is_tcp=not target.startswith("unix:"))
            return _handshake(connection, target, tls, where)
    except OSError as error:
        return _not_connected(error, where)


def describe(certificate: "Certificate") -> str:
    """Returns subject, names and dates of a certificate in a few words."""
    from cryptography import x509  # noqa: PLC0415 - only where something is wrong

    subject = certificate.subject.rfc4514_string()
    try:
        found = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        names = [str(name.value) for name in found]
    except x509.ExtensionNotFound:
        names = []
    first, last = certificate.not_valid_before_utc, certificate.not_valid_after_utc
    until = f"{first:%Y-%m-%d} to {last:%Y-%m-%d}"
    shown = ", ".join(names[:4]) or "none"
    return printable(f"subject {subject or 'none'}, names {shown}, valid {until}")


def _not_connected(error: OSError, where: str) -> Finding:
    if isinstance(error, socket.gaierror):
        return Finding(
            why=f"the name of {where} cannot be resolved: {error.strerror}",
            remedy="check the address and the resolver of this machine",
        )
    if isinstance(error, (FileNotFoundError, ConnectionRefusedError)):
        return Finding(
            why=f"nobody listens for {where}: it does not run, or is being restarted",
            remedy="start it, or check the address; `lns service status` looks again",
        )
    if isinstance(error, TimeoutError):
        return Finding(
            why=f"{where} does not answer within {_SECONDS:g} s: no packet comes back",
            remedy="check the address, the network and its filters",
        )
    return Finding(
        why=f"{where} cannot be reached: {error.strerror or error}",
        remedy="check the address and the network",
    )


def _connect(target: str) -> socket.socket:
    if target.startswith("unix:"):
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        connection.settimeout(_SECONDS)
        try:
            connection.connect(target.removeprefix("unix:"))
        except BaseException:
            connection.close()
            raise
        return connection
    host, _, port = target.removeprefix("dns:///").rpartition(":")
    return socket.create_connection((host.strip("[]"), int(port)), timeout=_SECONDS)


def own_problem(tls: TlsSettings) -> Finding | None:
    """Returns what is wrong with the certificate of this side, seen without a connection."""
    from cryptography import x509  # noqa: PLC0415 - only where something is wrong
    from cryptography.hazmat.primitives import serialization  # noqa: PLC0415 - the same

    for path, read in (
        (tls.certificate, x509.load_pem_x509_certificates),
        (tls.authority, x509.load_pem_x509_certificates),
        (tls.key, lambda data: serialization.load_pem_private_key(data, None)),
    ):
        try:
            read(path.read_bytes())
        except OSError as error:
            return Finding(why=f"{path} cannot be read: {error.strerror}", remedy="check the path")
        except (ValueError, TypeError):
            return Finding(why=f"{path} is not what it should be: PEM", remedy="check the file")
    certificate = x509.load_pem_x509_certificates(tls.certificate.read_bytes())[0]
    key = serialization.load_pem_private_key(tls.key.read_bytes(), None)
    if certificate.public_key() != key.public_key():
        return Finding(
            why=f"the key {tls.key} does not belong to the certificate {tls.certificate}"
            f" ({describe(certificate)})",
            remedy="name certificate and key of one pair",
        )
    now = dt.datetime.now(dt.UTC)
    if not certificate.not_valid_before_utc <= now <= certificate.not_valid_after_utc:
        return Finding(
            why=f"the own certificate {tls.certificate} is not valid now ({describe(certificate)})",
            remedy="renew it, or correct this machine's clock",
        )
    return None


def _without_tls(connection: socket.socket, where: str, *, is_tcp: bool) -> Finding:
    if is_tcp:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        context.set_alpn_protocols(["h2"])
        try:
            with context.wrap_socket(connection):
                return Finding(
                    why=f"{where} speaks TLS, and no certificate is configured for it",
                    remedy="configure an authority, a certificate and its key",
                )
        except ssl.SSLError as error:
            if "WRONG_VERSION" not in str(error):
                return Finding(
                    why=f"{where} speaks TLS, and no certificate is configured for it",
                    remedy="configure an authority, a certificate and its key",
                )
        except OSError:
            pass
    return _gone(where)


def _gone(where: str) -> Finding:
    return Finding(
        why=f"the connection to {where} was lost: it was restarting, and can be reached again",
        remedy="try again",
    )


def _handshake(connection: socket.socket, target: str, tls: TlsSettings, where: str) -> Finding:
    host = target.removeprefix("dns:///").rpartition(":")[0].strip("[]")
    context = ssl.create_default_context(cafile=str(tls.authority))
    context.verify_flags &= ~ssl.VERIFY_X509_STRICT
    context.load_cert_chain(tls.certificate, tls.key)
    context.set_alpn_protocols(["h2"])
    try:
        with context.wrap_socket(connection, server_hostname=host) as secured:
            # With TLS 1.3 the verdict on our certificate comes after the handshake.
            return _gone(where) if secured.recv(1) else _refused(None, tls, where)
    except ssl.SSLCertVerificationError as error:
        return Finding(
            why=f"the certificate of {where} is not accepted: {error.verify_message.rstrip('.')}"
            f" ({_of_server(target)})",
            remedy=_for_server(error, tls.authority),
        )
    except ssl.SSLError as error:
        if "WRONG_VERSION" in str(error):
            return Finding(
                why=f"{where} does not speak TLS",
                remedy="configure no certificates here, or give some to the service",
            )
        return _refused(error, tls, where)
    except (ConnectionError, TimeoutError):
        return _refused(None, tls, where)


def _for_server(error: ssl.SSLCertVerificationError, authority: Path) -> str:
    if "mismatch" in error.verify_message:
        return "call the service by a name that its certificate has"
    if "expired" in error.verify_message or "not yet" in error.verify_message:
        return "renew the certificate of the service, or correct this machine's clock"
    return f"put the authority that has signed it into {authority}"


def _refused(error: ssl.SSLError | None, tls: TlsSettings, where: str) -> Finding:
    from cryptography import x509  # noqa: PLC0415 - only where something is wrong

    (certificate, *_) = x509.load_pem_x509_certificates(tls.certificate.read_bytes())
    said = str(error).upper() if error is not None else ""
    why = next((text for name, text in _ALERTS.items() if name in said), "")
    if not why:
        authorities = x509.load_pem_x509_certificates(tls.authority.read_bytes())
        known = any(one.subject == certificate.issuer for one in authorities)
        why = "it does not say why" if known else f"{tls.authority} has not signed it"
    return Finding(
        why=f"{where} refuses the certificate {tls.certificate}: {why} ({describe(certificate)})",
        remedy="use a certificate of the authority that the service trusts",
    )


def _of_server(target: str) -> str:
    """Returns what a server shows, without believing it."""
    from cryptography import x509  # noqa: PLC0415 - only where something is wrong

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    context.set_alpn_protocols(["h2"])
    try:
        with _connect(target) as connection, context.wrap_socket(connection) as secured:
            shown = secured.getpeercert(binary_form=True)
    except OSError:
        shown = None
    return describe(x509.load_der_x509_certificate(shown)) if shown else "it shows none"
