"""Fetches one file that a user names by its address."""

import hashlib
import http.client
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import IO, Final
from urllib.parse import urlsplit

from services.core.errors import HostUnready, RequestInvalid

FILE_MOST: Final = 512 << 20
"""Bytes of the largest kernel or package."""

_PIECE = 1 << 20
_STALL_SECONDS = 30.0
_SECONDS = 900.0


class _OnlyTls(urllib.request.HTTPRedirectHandler):
    """Follows no redirection to an address without TLS."""

    def redirect_request(
        self,
        req: urllib.request.Request,
        fp: IO[bytes],
        code: int,
        msg: str,
        headers: http.client.HTTPMessage,
        newurl: str,
    ) -> urllib.request.Request | None:
        """Returns the request of the redirection."""
        if urlsplit(newurl).scheme != "https":
            raise urllib.error.URLError("it redirects to an address without TLS")
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def fetch(address: str, target: Path, *, digest: str = "") -> str:
    """Writes what an address serves into a new file and returns its digest, `sha256:…`.

    Args:
        address: of `https`; of `http` only with a digest.
        target: the file.
        digest: what it must have; empty for whatever is served.

    Raises:
        RequestInvalid: the address cannot be used, or anybody could exchange what it serves.
        HostUnready: it could not be fetched, or is not what was to be fetched.
    """
    shown = address.partition("?")[0]  # what follows may be a secret
    scheme, host = urlsplit(address)[:2]
    if scheme not in ("http", "https") or not host or "@" in host:
        raise RequestInvalid(
            "what was named is neither a file nor an https address without a login",
            hint="fetch it yourself and name the file",
        )
    if scheme == "http" and not digest:
        raise RequestInvalid(
            f"anybody on the way could exchange what {shown} serves",
            hint="use https, or say what it must be: --digest sha256:…",
        )
    opener = urllib.request.build_opener(*([] if digest else [_OnlyTls()]))
    try:
        with opener.open(address, timeout=_STALL_SECONDS) as answer, target.open("xb") as file:
            found = _copied(answer, file, shown)
    except (urllib.error.URLError, http.client.HTTPException, TimeoutError) as error:
        why = error.reason if isinstance(error, urllib.error.URLError) else error
        raise HostUnready(
            f"{shown} could not be fetched: {why}",
            hint="check the address and the network, or fetch it yourself and name the file",
        ) from error
    check_digest(found, digest, name=shown)
    return found


def digest_of(path: Path) -> str:
    """Returns the digest of a file, `sha256:…`."""
    with path.open("rb") as file:
        return f"sha256:{hashlib.file_digest(file, 'sha256').hexdigest()}"


def check_digest(found: str, wanted: str, *, name: str) -> None:
    """Passes if nothing is wanted, or what was found.

    Raises:
        HostUnready: it is something else.
    """
    if wanted and found != wanted:
        raise HostUnready(
            f"{name} is {found}, not {wanted}", hint="compare the digest with its publisher's"
        )


def _copied(answer: IO[bytes], file: IO[bytes], shown: str) -> str:
    digest, size, end = hashlib.sha256(), 0, time.monotonic() + _SECONDS
    while piece := answer.read(_PIECE):
        size += len(piece)
        if size > FILE_MOST or time.monotonic() > end:
            limit = f"{FILE_MOST >> 20} MiB" if size > FILE_MOST else f"{_SECONDS:g} s"
            raise HostUnready(f"{shown} takes more than {limit}", hint="fetch another kernel")
        digest.update(piece)
        file.write(piece)
    return f"sha256:{digest.hexdigest()}"
