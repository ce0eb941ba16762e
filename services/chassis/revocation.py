"""Certificates that their authority has taken back: a revocation list, read again when it changes.

gRPC for Python knows no revocation lists, so a handshake with such a certificate succeeds and every
call over the connection is refused.
"""

import functools
from pathlib import Path
from typing import TYPE_CHECKING

from services.chassis.file_version import file_version
from services.core.errors import CallerDenied, SettingsInvalid

if TYPE_CHECKING:
    from cryptography.x509 import CertificateRevocationList

_CERTIFICATES_KEPT = 1024


class RevocationList:
    """The list in one file, PEM.

    A file that cannot be read any more, as in the middle of a replacement, leaves the former list
    in force.

    Raises:
        SettingsInvalid: it cannot be read now.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._version = file_version(path)
        self._list = _read(path)

    def check(self, certificate: bytes) -> None:
        """Makes sure that a certificate holds.

        Args:
            certificate: of a caller, PEM, which its handshake has verified.

        Raises:
            CallerDenied: it was revoked.
        """
        self._renew()
        serial, subject = _identity(certificate)
        found = self._list.get_revoked_certificate_by_serial_number(serial)
        if found is not None:
            raise CallerDenied(
                f"the certificate of {subject} (serial {serial:x}) was revoked on"
                f" {found.revocation_date_utc:%Y-%m-%d}",
                hint="get another certificate from the authority",
                metadata={"serial": f"{serial:x}"},
            )

    def _renew(self) -> None:
        version = file_version(self._path)
        if version is None or version == self._version:
            return
        try:
            self._list = _read(self._path)
        except SettingsInvalid:
            return
        self._version = version


def _read(path: Path) -> "CertificateRevocationList":
    from cryptography import x509  # noqa: PLC0415 - only where a list is configured

    try:
        return x509.load_pem_x509_crl(path.read_bytes())
    except OSError as error:
        raise SettingsInvalid(f"{path} cannot be read: {error.strerror}") from error
    except ValueError as error:
        raise SettingsInvalid(f"{path} is no revocation list (PEM)") from error


@functools.lru_cache(_CERTIFICATES_KEPT)
def _identity(certificate: bytes) -> tuple[int, str]:
    from cryptography import x509  # noqa: PLC0415 - only where a list is configured

    parsed = x509.load_pem_x509_certificate(certificate)
    return parsed.serial_number, parsed.subject.rfc4514_string()
