"""The certificate that a context shows the other side."""

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from OpenSSL import SSL

from services.vm_runner.egress_worker.orders import Leaf


def show_certificate(context: SSL.Context, leaf: Leaf) -> None:
    """Has a context show a certificate with its chain, and use its key.

    Raises:
        ValueError: it is not a certificate, or its key is not its own or not of EC or RSA.
        TypeError: the key is encrypted.
    """
    first, *others = x509.load_pem_x509_certificates(leaf.chain)
    key = load_pem_private_key(leaf.key, None)
    if not isinstance(key, ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey):
        raise ValueError("neither a key of an elliptic curve nor of RSA")  # noqa: TRY004 - a value
    try:
        context.use_certificate(first)
        for other in others:
            context.add_extra_chain_cert(other)
        context.use_privatekey(key)
        context.check_privatekey()
    except SSL.Error as error:
        raise ValueError("the key is not that of the certificate") from error
