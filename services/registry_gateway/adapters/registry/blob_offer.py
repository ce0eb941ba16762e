"""Giving a repository a blob without sending it: it has it already, or can mount it."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final
from urllib.parse import urlencode

from services.core.descriptor import Descriptor
from services.core.errors import LnsError, RegistryProtocol
from services.registry_gateway.adapters.credentials.authenticator import Access
from services.registry_gateway.adapters.registry.exchange import Exchange, Request
from services.registry_gateway.adapters.transport.http_reply import Reply
from services.registry_gateway.adapters.transport.origin import Origin, check_target, resolve_url
from services.registry_gateway.progress import Stage, Stop

_OK: Final = 200
_CREATED: Final = 201
_ACCEPTED: Final = 202
_MAX_MOUNTS: Final = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class UploadTarget:
    """Where a blob goes.

    Attributes:
        what: the repository, for messages.
        blob_url: the blob's own URL.
        uploads_url: where upload sessions begin.
        access: what is asked for there.
    """

    what: str
    blob_url: str
    uploads_url: str
    access: Access

    def request(self, method: str, url: str) -> Request:
        """Returns a request to a place of the target, which is shown credentials only there."""
        return Request(
            method=method,
            url=url,
            access=self.access,
            headers={},
            home=Origin.of_url(self.uploads_url),
        )

    def location(self, reply: Reply) -> str:
        """Returns where an upload goes on.

        Raises:
            RegistryProtocol: the answer does not say, or names a place that must not be.
        """
        location = reply.headers.get("Location", "")
        if not location:
            raise RegistryProtocol(f"{self.what}: the registry began an upload without a place")
        return check_target(Origin.of_url(self.uploads_url), resolve_url(reply.url, location))


class BlobOffer:
    """Asks registries for blobs and mounts; used by many threads."""

    def __init__(self, exchange: Exchange) -> None:
        self._exchange = exchange

    def offer(
        self, target: UploadTarget, descriptor: Descriptor, mount_from: Sequence[str], stop: Stop
    ) -> Stage | None:
        """Says whether the target has the blob or could mount it; else None."""
        if self.exists(target, stop):
            return Stage.EXISTS
        for path in mount_from[:_MAX_MOUNTS]:
            if self._mount(target, descriptor, path, stop):
                return Stage.MOUNTED
        return None

    def exists(self, target: UploadTarget, stop: Stop) -> bool:
        """Says whether the target has the blob."""
        request = Request(method="HEAD", url=target.blob_url, access=target.access, headers={})
        with self._exchange.send(request, stop=stop) as reply:
            return reply.status_code == _OK

    def _mount(self, target: UploadTarget, descriptor: Descriptor, path: str, stop: Stop) -> bool:
        query = urlencode({"mount": descriptor.digest, "from": path})
        request = Request(
            method="POST",
            url=f"{target.uploads_url}?{query}",
            access=target.access.and_pull(path),
            headers={"Content-Length": "0"},
        )
        try:
            with self._exchange.send(request, stop=stop) as reply:
                if reply.status_code == _ACCEPTED:
                    self._cancel(target, target.location(reply), stop)
                return reply.status_code == _CREATED
        except LnsError:
            stop.check()
            return False  # a mount only saves time: what is wrong shows when the bytes go

    def _cancel(self, target: UploadTarget, location: str, stop: Stop) -> None:
        with self._exchange.send(target.request("DELETE", location), stop=stop):
            pass
