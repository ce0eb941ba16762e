"""Images outside of the store, by the prefix that names their kind."""

import contextlib
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AbstractAsyncContextManager, AbstractContextManager
from pathlib import Path
from typing import Final

from services.chassis.blocking import Blocking
from services.core.errors import RequestInvalid, Unimplemented
from services.registry_gateway.adapters.image_layout import open_archive, open_directory
from services.registry_gateway.ports import OpenedSource

_Open = Callable[[Path, str], AbstractContextManager[OpenedSource]]

OCI: Final = "oci"
OCI_ARCHIVE: Final = "oci-archive"
DOCKER_ARCHIVE: Final = "docker-archive"
DOCKER_DAEMON: Final = "docker-daemon"
_KINDS: Final = frozenset({OCI, OCI_ARCHIVE, DOCKER_ARCHIVE, DOCKER_DAEMON})
_FILES: Final[Mapping[str, _Open]] = {OCI: open_directory, OCI_ARCHIVE: open_archive}


class LocalImageSources:
    """Layouts and archives on this machine; implements `ImageSources`."""

    def __init__(self, blocking: Blocking) -> None:
        self._blocking = blocking

    def accepts(self, text: str) -> bool:
        """See `ImageSources`."""
        return text.partition(":")[0] in _KINDS and ":" in text

    def open(self, text: str) -> AbstractAsyncContextManager[OpenedSource]:
        """See `ImageSources`."""
        kind, _, rest = text.partition(":")
        if kind not in _FILES:
            raise Unimplemented(
                f"images of the kind {kind}: cannot be pushed yet",
                hint="copy it to an OCI layout first: skopeo copy … oci:DIR:TAG",
            )
        path, tag = split_path(rest)
        return self._opened(_FILES[kind], path, tag)

    @contextlib.asynccontextmanager
    async def _opened(self, open_file: _Open, path: Path, tag: str) -> AsyncIterator[OpenedSource]:
        with contextlib.ExitStack() as stack:
            yield await self._blocking.run(stack.enter_context, open_file(path, tag))


def split_path(text: str) -> tuple[Path, str]:
    """Splits `PATH[:TAG]`; the last colon divides unless the whole is the name of a file.

    Raises:
        RequestInvalid: the path is not absolute.
    """
    path, tag = text, ""
    if ":" in text and not Path(text).exists():
        path, _, tag = text.rpartition(":")
    if not path.startswith("/") or "\0" in path:
        raise RequestInvalid(
            f"{path[:200]!r} is not an absolute path", hint="paths are those of the gateway's host"
        )
    return Path(path), tag
