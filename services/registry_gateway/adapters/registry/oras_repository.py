"""One repository of a registry through oras, fenced: the only module that knows it.

oras gives the shape of the API: the URLs of a repository, and paging of tags. Every request that it
makes goes through `do_request`, which is ours: so are transport, credentials, retries, limits, and
the bytes, which oras would lose or not verify (ADR 0030).
"""

from collections.abc import Mapping, Sequence
from typing import Final

import oras.container
import oras.provider

from services.core.digest import Digest
from services.core.errors import LnsError, ManifestUnknown, RegistryProtocol
from services.core.reference import Reference
from services.registry_gateway.adapters.credentials.authenticator import Access
from services.registry_gateway.adapters.registry.exchange import Exchange, Request
from services.registry_gateway.adapters.registry.paging import Paging
from services.registry_gateway.adapters.registry.registry_errors import error_of
from services.registry_gateway.adapters.transport.http_reply import Reply
from services.registry_gateway.adapters.transport.origin import Locator, resolve_url
from services.registry_gateway.progress import Stop

GOOD: Final = frozenset({200, 201, 202, 204})
"""Answers that are no failure."""


class OrasRepository(oras.provider.Registry):
    """One repository for the time of one call: oras' methods over our requests."""

    def __init__(
        self, exchange: Exchange, locator: Locator, reference: Reference, actions: str, stop: Stop
    ) -> None:
        origin = locator.origin(reference.host)
        super().__init__(hostname=origin.authority, insecure=origin.scheme == "http")
        self.what = str(reference)
        self.access = Access.to(reference.path, actions)
        self.container = oras.container.Container(
            f"{origin.authority}/{reference.path}", registry=origin.authority
        )
        self._exchange = exchange
        self._origin = origin
        self._stop = stop
        self._paging = Paging(self.what)

    @property
    def uploads_url(self) -> str:
        """The URL at which uploads begin."""
        return self._url(self.container.upload_blob_url())

    def blob_url(self, digest: Digest) -> str:
        """Returns the URL of a blob."""
        return self._url(self.container.get_blob_url(digest))

    def manifest_url(self, selector: str) -> str:
        """Returns the URL of the manifest of a tag or digest."""
        return self._url(self.container.manifest_url(selector))

    def referrers_url(self, digest: str) -> str:
        """Returns the URL of what refers to a digest; oras does not know it."""
        return f"{self._origin}/v2/{self.access.repository}/referrers/{digest}"

    def list_tags(self) -> Sequence[str]:
        """Returns the tags, sorted.

        Raises:
            RegistryProtocol: what the registry sends is no list of tags.
            LimitExceeded: there are too many.
        """
        try:
            tags = self.get_tags(self.container)
        except (TypeError, ValueError):  # oras expects a list, and links that are addresses
            tags = [None]
        if not all(isinstance(tag, str) for tag in tags):
            raise RegistryProtocol(f"{self.what}: the list of tags is not one")
        return sorted(set(tags))

    def request(
        self, method: str, url: str, headers: Mapping[str, str], body: bytes | None = None
    ) -> Reply:
        """Sends a request and returns the answer, whatever it is; the caller closes it."""
        request = Request(
            method=method,
            url=url,
            access=self.access,
            headers=headers,
            body=None if body is None else lambda: body,
            home=self._origin,
        )
        return self._exchange.send(request, stop=self._stop)

    def checked(
        self, method: str, url: str, headers: Mapping[str, str], body: bytes | None = None
    ) -> Reply:
        """Like `request`; raises the error of an answer that is not good."""
        reply = self.request(method, url, headers, body)
        if reply.status_code not in GOOD:
            with reply:
                raise self.error(reply)
        return reply

    def do_request(
        self, url: str, method: str = "GET", headers: Mapping[str, str] | None = None
    ) -> Reply:
        """What oras sends its requests through: one page of a list each.

        Raises:
            RegistryProtocol: a page names itself as the next, or page after page is empty.
            LimitExceeded: the pages are too many, too large or too slow in all.
        """
        self._paging.turn(url)
        reply = self.checked(method, url, headers or {})
        size = reply.hold(self._paging.room)
        self._paging.took(size, entries=len(reply.json().get("tags") or ()))
        return reply

    def next_page(self, reply: Reply) -> str:
        """Returns the URL of the page after this one, or the empty string."""
        link = reply.links.get("next", {}).get("url", "")
        return resolve_url(reply.url, link) if link else ""

    def error(self, reply: Reply) -> LnsError:
        """Returns the error of a failing answer."""
        return error_of(reply, what=self.what, not_found=ManifestUnknown)

    def _url(self, path: str) -> str:
        """Returns the URL of what a `Container` calls `host/v2/…`."""
        return f"{self.prefix}://{path}"
