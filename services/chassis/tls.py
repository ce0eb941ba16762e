"""Mutual TLS: the certificates of both sides."""

import contextlib
from pathlib import Path

import grpc

from services.chassis.file_version import file_version
from services.chassis.settings import TlsSettings
from services.core.errors import SettingsInvalid


class TlsFiles:
    """The files of one side, read again when one of them was replaced.

    A set that cannot be read, as in the middle of a replacement, leaves the former in force.

    Raises:
        SettingsInvalid: a file cannot be read now.
    """

    def __init__(self, settings: TlsSettings) -> None:
        self._settings = settings
        self._versions = self._look()
        self._read()

    def renewed(self) -> bool:
        """Says whether there is another set of readable files than at the last call."""
        versions = self._look()
        if versions == self._versions:
            return False
        try:
            self._read()
        except SettingsInvalid:
            return False
        self._versions = versions
        return True

    def channel_credentials(self) -> grpc.ChannelCredentials:
        """Returns what a client shows and trusts."""
        return grpc.ssl_channel_credentials(
            root_certificates=self._authority,
            private_key=self._key,
            certificate_chain=self._certificate,
        )

    def server_configuration(self) -> grpc.ServerCertificateConfiguration:
        """Returns what a server shows and trusts."""
        return grpc.ssl_server_certificate_configuration(
            [(self._key, self._certificate)], root_certificates=self._authority
        )

    def _read(self) -> None:
        certificate, key, authority = (
            _content(path)
            for path in (self._settings.certificate, self._settings.key, self._settings.authority)
        )
        self._certificate, self._key, self._authority = certificate, key, authority

    def _look(self) -> list[tuple[int, int, int] | None]:
        paths = (self._settings.certificate, self._settings.key, self._settings.authority)
        return [file_version(path) for path in paths]


def server_credentials(settings: TlsSettings) -> grpc.ServerCredentials:
    """Returns what a server shows and trusts; every client must show a certificate.

    The files are looked at before each handshake.

    Raises:
        SettingsInvalid: a file cannot be read.
    """
    from services.chassis import metrics  # noqa: PLC0415 - clients need none

    files = TlsFiles(settings)

    def renewed() -> grpc.ServerCertificateConfiguration | None:
        metrics.TLS_HANDSHAKES.inc()  # gRPC asks at the beginning of each
        if not files.renewed():
            return None
        _show_expiry(settings.certificate)
        return files.server_configuration()

    _show_expiry(settings.certificate)

    return grpc.dynamic_ssl_server_credentials(
        files.server_configuration(),
        renewed,  # type: ignore[arg-type]  # None means no change; the stubs do not know
        require_client_authentication=True,
    )


def _show_expiry(path: Path) -> None:
    """Has the metrics say when a certificate expires; what cannot be read is gRPC's to refuse."""
    from cryptography import x509  # noqa: PLC0415 - a client without TLS should not pay for it

    from services.chassis import metrics  # noqa: PLC0415 - the same

    with contextlib.suppress(OSError, ValueError, IndexError):
        first = x509.load_pem_x509_certificates(path.read_bytes())[0]
        until = first.not_valid_after_utc.timestamp()
        metrics.CERTIFICATE_EXPIRY.labels(str(path)).set(until)


def _content(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise SettingsInvalid(
            f"{path} cannot be read: {error.strerror}", metadata={"path": str(path)}
        ) from error
