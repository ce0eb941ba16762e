"""TLS towards another end that asks for a client certificate.

Through pyOpenSSL, since a confined worker can load no certificate from a file. OpenSSL verifies the
chain in the handshake; `cryptography` verifies the name, with the chain once more, before anything
is written.
"""

import datetime as dt
import ipaddress
from collections.abc import Sequence

from cryptography import x509
from cryptography.x509 import verification
from OpenSSL import SSL, crypto

from services.vm_runner.egress_worker.orders import Leaf
from services.vm_runner.egress_worker.own_certificate import show_certificate
from services.vm_runner.egress_worker.tls import ServerEngine, TlsFailed

# Authorities of companies leave out what the web's have to have; the chain is OpenSSL's to verify.
_ISSUERS = verification.ExtensionPolicy.permit_all().require_present(
    x509.BasicConstraints, verification.Criticality.AGNOSTIC, None
)
_NAMED = verification.ExtensionPolicy.permit_all().require_present(
    x509.SubjectAlternativeName, verification.Criticality.AGNOSTIC, None
)


class IdentityEngine(ServerEngine):
    """The end that speaks to what was dialled, with a certificate of its own.

    Args:
        identity: the certificate and its key.
        roots: that count, DER.
        name: what the other's certificate has to be for: a name, or an address as text.
        protocols: that are offered.

    Raises:
        ValueError: the certificate or its key cannot be read.
    """

    def __init__(
        self, identity: Leaf, roots: Sequence[bytes], name: str, protocols: tuple[bytes, ...]
    ) -> None:
        self._subject = _subject(name)
        self._roots = [x509.load_der_x509_certificate(root) for root in roots]
        context = _context(identity, self._roots, protocols)
        self._connection = SSL.Connection(context, None)
        if isinstance(self._subject, x509.DNSName):
            self._connection.set_tlsext_host_name(name.encode())
        self._connection.set_connect_state()
        self._ended = False

    @property
    def protocol(self) -> bytes:
        """The protocol that was chosen; empty for none."""
        return self._connection.get_alpn_proto_negotiated()

    def handshake(self) -> bool:
        """Goes on with the handshake; returns whether it is done and the other end is verified."""
        if not super().handshake():
            return False
        chain = self._connection.get_peer_cert_chain(as_cryptography=True) or []
        if not chain:
            raise TlsFailed("it has no certificate")
        known = verification.Store(self._roots)
        builder = (
            verification.PolicyBuilder()
            .store(known)
            .time(dt.datetime.now(dt.UTC))
            .extension_policies(ca_policy=_ISSUERS, ee_policy=_NAMED)
        )
        try:
            builder.build_server_verifier(self._subject).verify(chain[0], chain[1:])
        except verification.VerificationError as error:
            raise TlsFailed(f"its certificate is not valid: {error}") from error
        return True


def _subject(name: str) -> x509.DNSName | x509.IPAddress:
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)


def _context(
    identity: Leaf, roots: Sequence[x509.Certificate], protocols: tuple[bytes, ...]
) -> SSL.Context:
    context = SSL.Context(SSL.TLS_CLIENT_METHOD)
    context.set_min_proto_version(SSL.TLS1_2_VERSION)
    context.set_options(SSL.OP_NO_RENEGOTIATION | SSL.OP_NO_COMPRESSION)
    context.set_verify(SSL.VERIFY_PEER)
    store = context.get_cert_store()
    if store is None:
        raise ValueError("a context without a store for roots")
    for root in roots:
        store.add_cert(crypto.X509.from_cryptography(root))
    show_certificate(context, identity)
    if protocols:
        context.set_alpn_protos(list(protocols))
    return context
