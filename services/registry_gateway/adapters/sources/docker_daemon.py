"""Images of a Docker daemon of this machine (`docker-daemon:NAME`), by its socket."""

import contextlib
import http.client
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Final
from urllib.parse import quote

from services.core.errors import ImageUnknown, RequestInvalid
from services.registry_gateway.adapters.sources.docker_archive import open_docker_archive
from services.registry_gateway.adapters.sources.spool import Spool
from services.registry_gateway.ports import OpenedSource
from services.registry_gateway.progress import Stop

_SECONDS: Final = 60.0
_CHUNK: Final = 1 << 20
_OK: Final = 200
_NOT_FOUND: Final = 404


@contextlib.contextmanager
def open_docker_daemon(
    name: str, *, daemon: Path, spool: Spool, stop: Stop
) -> Iterator[OpenedSource]:
    """Has a daemon save an image and opens it; blocks.

    Args:
        name: `name`, `name:tag` or an id.
        daemon: its socket.
        spool: takes the image, twice.
        stop: ends the work.

    Raises:
        ImageUnknown: the daemon has no such image.
        RequestInvalid: there is no daemon, or it does not give the image.
        CapacityExhausted: the disk has no room for it.
    """
    with spool.folder() as folder:
        archive = folder / "image.tar"
        try:
            _save(_with_tag(name), daemon, archive, spool, stop)
        except (OSError, http.client.HTTPException) as error:
            raise RequestInvalid(
                f"the Docker daemon at {daemon} did not give {name}: {error}",
                hint="is it running, and may you use its socket?",
            ) from error
        with open_docker_archive(archive, "", spool=spool, stop=stop) as opened:
            yield opened


def _save(name: str, daemon: Path, archive: Path, spool: Spool, stop: Stop) -> None:
    with contextlib.closing(_UnixConnection(daemon)) as connection:
        with stop.waking(connection.cut):
            connection.request("GET", f"/images/{quote(name, safe='')}/get")
            response = connection.getresponse()
            if response.status == _NOT_FOUND:
                raise ImageUnknown(
                    f"the Docker daemon has no image {name}",
                    hint="`docker image ls` lists what it has",
                    metadata={"image": name},
                )
            if response.status != _OK:
                raise RequestInvalid(f"the Docker daemon answered {response.status} for {name}")
            spool.write(archive, stop.watched(iter(lambda: response.read(_CHUNK), b"")))
        stop.check()


class _UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: Path) -> None:
        super().__init__("localhost", timeout=_SECONDS)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(_SECONDS)
        self.sock.connect(str(self._path))

    def cut(self) -> None:
        if self.sock is not None:
            with contextlib.suppress(OSError):
                self.sock.shutdown(socket.SHUT_RDWR)


def _with_tag(name: str) -> str:
    """Returns the name with a tag: without one the daemon saves every tag of the repository."""
    last = name.rpartition("/")[2]
    if ":" in last or "@" in name or (len(name) >= 12 and not name.strip("0123456789abcdef")):  # noqa: PLR2004 - a short id
        return name
    return f"{name}:latest"
