"""TLS towards the guest and towards the other end, all from memory.

Towards the guest OpenSSL is used through pyOpenSSL, which takes certificate and key as values;
Python's `ssl` reads them from files only, and a worker can open none. Towards the other end it is
`ssl`, whose verification of names is the one that everybody checks.
"""

import contextlib
import ssl
from collections import OrderedDict
from pathlib import Path
from typing import Any, Final, Protocol

from OpenSSL import SSL

from services.vm_runner.egress_worker.orders import Leaf
from services.vm_runner.egress_worker.own_certificate import show_certificate
from services.vm_runner.egress_worker.sides import CHUNK_BYTES, SideLost

H2: Final = b"h2"
HTTP_1: Final = b"http/1.1"
PROTOCOLS: Final = (H2, HTTP_1)
"""The protocols that are looked into."""

_CONTEXTS_MOST: Final = 256
_RECORD_BYTES: Final = 16 * 1024


class TlsFailed(SideLost):
    """A handshake failed, or what came is no TLS."""


class Engine(Protocol):
    """One end of TLS between two buffers."""

    def feed(self, data: bytes) -> None:
        """Takes what came from the other end; empty for its end."""
        ...

    def take(self) -> bytes:
        """Returns what is to be sent to the other end."""
        ...

    def handshake(self) -> bool:
        """Goes on with the handshake; returns whether it is done."""
        ...

    def read(self) -> bytes | None:
        """Returns plain bytes; empty at the end, None while more has to be fed."""
        ...

    def write(self, data: bytes) -> None:
        """Encrypts bytes."""
        ...

    def end(self) -> None:
        """Says that nothing more is written."""
        ...


class ServerEngine:
    """The end that the guest's program speaks to.

    Args:
        context: with the certificate; see `GuestContexts`.
        protocol: that is chosen; empty for none.
    """

    def __init__(self, context: SSL.Context, protocol: bytes) -> None:
        self._connection = SSL.Connection(context, None)
        self._connection.set_app_data(protocol)
        self._connection.set_accept_state()
        self._ended = False

    def feed(self, data: bytes) -> None:
        """Takes what came from the guest."""
        if not data:
            self._ended = True
            self._connection.bio_shutdown()
        view = memoryview(data)
        while view:
            view = view[self._connection.bio_write(bytes(view)) :]

    def take(self) -> bytes:
        """Returns what is to be sent to the guest."""
        try:
            return self._connection.bio_read(CHUNK_BYTES)
        except SSL.WantReadError:
            return b""

    def handshake(self) -> bool:
        """Goes on with the handshake; returns whether it is done."""
        try:
            self._connection.do_handshake()
        except SSL.WantReadError:
            if self._ended:
                raise TlsFailed("it ended in the handshake") from None
            return False
        except SSL.Error as error:
            raise TlsFailed(_reason(error)) from error
        return True

    def read(self) -> bytes | None:
        """Returns plain bytes; empty at the end, None while more has to be fed."""
        try:
            return self._connection.recv(_RECORD_BYTES)
        except SSL.ZeroReturnError:
            return b""
        except SSL.WantReadError:
            return b"" if self._ended else None
        except SSL.Error as error:
            if self._ended:
                return b""
            raise TlsFailed(_reason(error)) from error

    def write(self, data: bytes) -> None:
        """Encrypts bytes."""
        try:
            self._connection.sendall(data)
        except SSL.Error as error:
            raise TlsFailed(_reason(error)) from error

    def end(self) -> None:
        """Says that nothing more is written."""
        try:
            self._connection.shutdown()
        except SSL.Error:
            return


class ClientEngine:
    """The end that speaks to what was dialled.

    Args:
        context: the roots that count.
        name: what the certificate has to be for: a name, or an address as text.
        protocols: that are offered.
    """

    def __init__(self, context: ssl.SSLContext, name: str) -> None:
        self._incoming = ssl.MemoryBIO()
        self._outgoing = ssl.MemoryBIO()
        self._tls = context.wrap_bio(self._incoming, self._outgoing, server_hostname=name)

    @property
    def protocol(self) -> bytes:
        """The protocol that was chosen; empty for none."""
        return (self._tls.selected_alpn_protocol() or "").encode()

    def feed(self, data: bytes) -> None:
        """Takes what came from the other end."""
        if data:
            self._incoming.write(data)
        else:
            self._incoming.write_eof()

    def take(self) -> bytes:
        """Returns what is to be sent."""
        return self._outgoing.read()

    def handshake(self) -> bool:
        """Goes on with the handshake; returns whether it is done."""
        try:
            self._tls.do_handshake()
        except ssl.SSLWantReadError:
            return False
        except ssl.SSLCertVerificationError as error:
            raise TlsFailed(f"its certificate is not valid: {error.verify_message}") from error
        except ssl.SSLError as error:
            raise TlsFailed(error.reason or "no TLS") from error
        return True

    def read(self) -> bytes | None:
        """Returns plain bytes; empty at the end, None while more has to be fed."""
        try:
            return self._tls.read(_RECORD_BYTES)
        except ssl.SSLWantReadError:
            return None
        except (ssl.SSLZeroReturnError, ssl.SSLEOFError):
            return b""
        except ssl.SSLError as error:
            raise TlsFailed(error.reason or "broken TLS") from error

    def write(self, data: bytes) -> None:
        """Encrypts bytes."""
        try:
            self._tls.write(data)
        except ssl.SSLError as error:
            raise TlsFailed(error.reason or "broken TLS") from error

    def end(self) -> None:
        """Says that nothing more is written."""
        try:
            self._tls.unwrap()
        except ssl.SSLError:
            return


class GuestContexts:
    """Contexts with the certificates of names. The ones used last are kept made."""

    def __init__(self) -> None:
        self._leaves: dict[str, Leaf] = {}
        self._by_name: OrderedDict[str, SSL.Context] = OrderedDict()

    def add(self, name: str, leaf: Leaf) -> None:
        """Takes a certificate for a name.

        Raises:
            ValueError: it is not a certificate, or the key is not its key.
            TypeError: the key is encrypted.
        """
        self._make(name, leaf)
        self._leaves[name] = leaf

    def get(self, name: str) -> SSL.Context | None:
        """Returns the context of a name, if its certificate came."""
        context = self._by_name.get(name)
        if context is not None:
            self._by_name.move_to_end(name)
            return context
        leaf = self._leaves.get(name)
        return None if leaf is None else self._make(name, leaf)

    def _make(self, name: str, leaf: Leaf) -> SSL.Context:
        context = SSL.Context(SSL.TLS_SERVER_METHOD)
        context.set_min_proto_version(SSL.TLS1_2_VERSION)
        context.set_options(SSL.OP_NO_RENEGOTIATION | SSL.OP_NO_COMPRESSION | SSL.OP_NO_TICKET)
        context.set_session_cache_mode(SSL.SESS_CACHE_OFF)
        context.set_mode(SSL.MODE_RELEASE_BUFFERS)
        show_certificate(context, leaf)
        context.set_alpn_select_callback(_chosen)
        self._by_name[name] = context
        self._by_name.move_to_end(name)
        if len(self._by_name) > _CONTEXTS_MOST:
            self._by_name.popitem(last=False)
        return context


def _chosen(connection: SSL.Connection, offered: list[bytes]) -> Any:
    chosen: bytes = connection.get_app_data()
    return chosen if chosen in offered else SSL.NO_OVERLAPPING_PROTOCOLS


class UpstreamContexts:
    """Contexts towards other ends: the host's roots, or those that a setting names.

    Made before a worker is confined, since it reads the host's roots from their files.
    """

    def __init__(self) -> None:
        self._roots = host_roots()
        self._own: dict[tuple[bytes, ...], ssl.SSLContext] = {}
        for protocols in (PROTOCOLS, (HTTP_1,)):  # a fifth of a second each; the others are rare
            self._own[protocols] = _context(self._roots, protocols)
        self._named: OrderedDict[tuple[str, tuple[bytes, ...]], ssl.SSLContext] = OrderedDict()

    def get(self, ca: str, protocols: tuple[bytes, ...]) -> ssl.SSLContext:
        """Returns a context.

        Args:
            ca: PEM of the roots that count; empty for the host's own.
            protocols: that are offered by ALPN: those of `PROTOCOLS` that the guest offers.

        Raises:
            ssl.SSLError: `ca` is no PEM.
        """
        if not ca:
            if protocols not in self._own:
                self._own[protocols] = _context(self._roots, protocols)
            return self._own[protocols]
        context = self._named.get((ca, protocols))
        if context is None:
            context = self._named[ca, protocols] = _context(ca, protocols)
            if len(self._named) > _CONTEXTS_MOST:
                self._named.popitem(last=False)
        return context


def host_roots() -> bytes:
    """Returns the roots that this host trusts, DER one behind the other."""
    context = ssl.create_default_context()
    found = context.get_ca_certs(binary_form=True)
    if not found:  # they lie in a directory, of which OpenSSL opens what it needs when it does
        folder = Path(ssl.get_default_verify_paths().capath or "/etc/ssl/certs")
        for path in sorted(folder.glob("*.[0-9]")):
            with contextlib.suppress(OSError, ssl.SSLError):
                context.load_verify_locations(cafile=path)
        found = context.get_ca_certs(binary_form=True)
    return b"".join(found)


def _context(roots: str | bytes, protocols: tuple[bytes, ...]) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    if roots:
        context.load_verify_locations(cadata=roots)
    if protocols:
        context.set_alpn_protocols([protocol.decode("ascii") for protocol in protocols])
    return context


def _reason(error: SSL.Error) -> str:
    """Returns what OpenSSL says, without its codes."""
    errors = error.args[0] if error.args else ()
    if isinstance(errors, list | tuple) and errors and isinstance(errors[-1], tuple):
        return str(errors[-1][-1])
    return "broken TLS"
