"""Images outside of the store, by the prefix that names their kind."""

import contextlib
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, AbstractContextManager
from pathlib import Path
from typing import Final

from services.chassis.blocking import Blocking
from services.core.errors import RequestInvalid
from services.registry_gateway.adapters.sources.docker_archive import open_docker_archive
from services.registry_gateway.adapters.sources.docker_daemon import open_docker_daemon
from services.registry_gateway.adapters.sources.image_layout import open_archive, open_directory
from services.registry_gateway.adapters.sources.spool import Spool
from services.registry_gateway.ports import OpenedSource
from services.registry_gateway.progress import Stop

OCI: Final = "oci"
OCI_ARCHIVE: Final = "oci-archive"
DOCKER_ARCHIVE: Final = "docker-archive"
DOCKER_DAEMON: Final = "docker-daemon"
_KINDS: Final = frozenset({OCI, OCI_ARCHIVE, DOCKER_ARCHIVE, DOCKER_DAEMON})


class LocalImageSources:
    """Layouts, archives and a daemon of this machine; implements `ImageSources`."""

    def __init__(self, blocking: Blocking, *, spool: Spool, docker_socket: Path) -> None:
        """Touches nothing yet.

        Args:
            blocking: where files are read and layers compressed.
            spool: takes what has to be unpacked.
            docker_socket: the socket of the Docker daemon.
        """
        self._blocking = blocking
        self._spool = spool
        self._docker_socket = docker_socket

    def accepts(self, text: str) -> bool:
        """See `ImageSources`."""
        kind, colon, _ = text.partition(":")
        return bool(colon) and kind in _KINDS

    @contextlib.asynccontextmanager
    async def _opened(
        self, opening: AbstractContextManager[OpenedSource], stop: Stop
    ) -> AsyncIterator[OpenedSource]:
        with contextlib.ExitStack() as stack:
            yield await self._blocking.run_cancellable(stop, stack.enter_context, opening)

    def open(self, text: str) -> AbstractAsyncContextManager[OpenedSource]:
        """See `ImageSources`."""
        stop = Stop()
        return self._opened(self._open(text, stop), stop)

    def _open(self, text: str, stop: Stop) -> AbstractContextManager[OpenedSource]:
        kind, _, rest = text.partition(":")
        if kind == DOCKER_DAEMON:
            return open_docker_daemon(
                rest, daemon=self._docker_socket, spool=self._spool, stop=stop
            )
        path, name = split_path(rest)
        if kind == DOCKER_ARCHIVE:
            return open_docker_archive(path, name, spool=self._spool, stop=stop)
        if kind == OCI_ARCHIVE:
            return open_archive(path, name, spool=self._spool, stop=stop)
        return open_directory(path, name)


def split_path(text: str) -> tuple[Path, str]:
    """Splits `PATH[:NAME]` at the first colon after the path, whose own name has none.

    Raises:
        RequestInvalid: the path is not absolute.
    """
    path, _, name = text.partition(":")
    if not path:
        raise RequestInvalid("the source names no path", hint="write oci:DIR or oci-archive:FILE")
    if not path.startswith("/") or "\0" in path:
        raise RequestInvalid(
            f"{path[:200]!r} is not an absolute path", hint="paths are those of the gateway's host"
        )
    return Path(path), name
