"""Has Python load everything that a worker will use, while it can still open files.

Codecs, tables and extension modules are loaded when they are first used; a confined worker
cannot open them. So everything that a worker does is done once before: names, both ends of TLS,
heads of both protocols, messages.
"""

import datetime as dt
import json

import h11
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from hpack import Decoder, Encoder

from services.core.egress.hosts import parse_host
from services.core.egress.paths import normalize_pattern, readings
from services.vm_runner.egress_worker import control
from services.vm_runner.egress_worker.orders import Configure, Leaf
from services.vm_runner.egress_worker.reports import Hello
from services.vm_runner.egress_worker.tls import (
    HTTP_1,
    ClientEngine,
    GuestContexts,
    ServerEngine,
    TlsFailed,
    UpstreamContexts,
)

_NAME = "warm.example"


def warm_up(upstream_contexts: UpstreamContexts) -> None:
    """Goes each way once; nothing of it remains but what was loaded."""
    parse_host("bücher.example")
    readings("/%2e%2e/;x/..%2f")
    normalize_pattern("/ü/**")
    json.dumps({"error": "ü"})
    control.decode_to_runner(control.encode(Hello(version=control.VERSION)))
    control.decode_to_worker(control.encode(Configure(run="")))
    Decoder().decode(Encoder().encode([("a", "b")]))
    reader = h11.Connection(h11.SERVER)
    reader.receive_data(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
    reader.next_event()
    _shake_hands(upstream_contexts)


def _shake_hands(upstream_contexts: UpstreamContexts) -> None:
    leaf = _leaf()
    contexts = GuestContexts()
    contexts.add(_NAME, leaf)
    context = contexts.get(_NAME)
    if context is None:
        raise AssertionError("a certificate that was added does not exist")
    roots = leaf.chain.decode()
    for trust in ("", roots):  # one that fails to be verified, and one that does not
        client = ClientEngine(upstream_contexts.get(trust, (HTTP_1,)), _NAME)
        server = ServerEngine(context, HTTP_1)
        ended = [False, False]
        try:
            while not all(ended):
                ended[0] = client.handshake()
                _feed(server, client)
                ended[1] = server.handshake()
                _feed(client, server)
        except TlsFailed:
            continue
        client.write(b"a")
        _feed(server, client)
        server.read()


def _feed(to: ClientEngine | ServerEngine, of: ClientEngine | ServerEngine) -> None:
    data = of.take()
    if data:
        to.feed(data)


def _leaf() -> Leaf:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, _NAME)])
    now = dt.datetime.now(dt.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - dt.timedelta(days=1))
        .not_valid_after(now + dt.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(_NAME)]), critical=False)
        .sign(key, hashes.SHA256())
    )
    return Leaf(
        chain=certificate.public_bytes(serialization.Encoding.PEM),
        key=key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        ),
    )
