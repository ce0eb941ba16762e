"""Mutual TLS: the certificates of both sides."""

from pathlib import Path

import grpc

from services.chassis.settings import TlsSettings
from services.core.errors import SettingsInvalid


def channel_credentials(settings: TlsSettings) -> grpc.ChannelCredentials:
    """Returns what a client shows and trusts.

    Raises:
        SettingsInvalid: a file cannot be read.
    """
    return grpc.ssl_channel_credentials(
        root_certificates=_read(settings.authority),
        private_key=_read(settings.key),
        certificate_chain=_read(settings.certificate),
    )


def server_credentials(settings: TlsSettings) -> grpc.ServerCredentials:
    """Returns what a server shows and trusts; every client must show a certificate.

    The files are looked at before each handshake and read again when one of them was replaced. A
    set that cannot be read leaves the former in force.

    Raises:
        SettingsInvalid: a file cannot be read now.
    """
    source = _Source(settings)
    return grpc.dynamic_ssl_server_credentials(
        source.configuration(),
        source.renewed,  # type: ignore[arg-type]  # None means no change; the stubs do not know
        require_client_authentication=True,
    )


class _Source:
    def __init__(self, settings: TlsSettings) -> None:
        self._settings = settings
        self._seen = self._versions()

    def configuration(self) -> grpc.ServerCertificateConfiguration:
        return grpc.ssl_server_certificate_configuration(
            [(_read(self._settings.key), _read(self._settings.certificate))],
            root_certificates=_read(self._settings.authority),
        )

    def renewed(self) -> grpc.ServerCertificateConfiguration | None:
        """Returns the new configuration, or None as long as the files are the same."""
        versions = self._versions()
        if versions == self._seen:
            return None
        try:
            configuration = self.configuration()
        except SettingsInvalid:
            return None  # being replaced at this moment; the next handshake looks again
        self._seen = versions
        return configuration

    def _versions(self) -> list[tuple[int, int, int] | None]:
        paths = (self._settings.certificate, self._settings.key, self._settings.authority)
        return [_version(path) for path in paths]


def _version(path: Path) -> tuple[int, int, int] | None:
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_ino, status.st_mtime_ns, status.st_size


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise SettingsInvalid(
            f"{path} cannot be read: {error.strerror}", metadata={"path": str(path)}
        ) from error
