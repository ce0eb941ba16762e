"""Registries that are the authority for the artifacts in them: `GET /ext/v1/types`.

The answer is `{"types": [{"slug": "agent", "schema": {…}}, …]}`, schemas in JSON Schema 2020-12.
It is kept for minutes and then asked for again by its `ETag`. A registry that has no such address,
or cannot be asked, is no authority.
"""

import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

import structlog

from services.core.artifacts.bounded_validator import SchemaValidator
from services.core.artifacts.families import BY_SLUG
from services.core.errors import LnsError, RegistryProtocol
from services.registry_gateway.adapters.credentials.authenticator import Access
from services.registry_gateway.adapters.registry.exchange import Exchange, Request
from services.registry_gateway.adapters.registry.shares import Shares
from services.registry_gateway.adapters.transport.origin import Locator
from services.registry_gateway.ports import AuthoritySchemas
from services.registry_gateway.progress import Stop

log = structlog.get_logger()

_KEPT_SECONDS: Final = 300.0
_HOSTS_KEPT: Final = 64
_OK: Final = 200
_NOT_MODIFIED: Final = 304


@dataclass(frozen=True, slots=True, kw_only=True)
class _Kept:
    schemas: AuthoritySchemas | None
    etag: str
    fresh_until: float


class HttpTypeAuthority:
    """Asks registries for their schemas; implements `TypeAuthority`."""

    def __init__(
        self,
        *,
        exchange: Exchange,
        locator: Locator,
        calls: Shares,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._exchange = exchange
        self._locator = locator
        self._calls = calls
        self._clock = clock
        self._kept: dict[str, _Kept] = {}

    async def schemas(self, host: str, *, offline: bool = False) -> AuthoritySchemas | None:
        """See `TypeAuthority`."""
        kept = self._kept.get(host)
        if offline or (kept is not None and kept.fresh_until > self._clock()):
            return kept.schemas if kept else None
        stop = Stop()
        try:
            kept = await self._calls.run(host, stop, self._ask, host, kept, stop)
        except LnsError as error:
            log.warning("type_authority_unusable", registry=host, reason=error.reason)
            return kept.schemas if kept else None
        self._kept.pop(host, None)
        while len(self._kept) >= _HOSTS_KEPT:
            self._kept.pop(next(iter(self._kept)))
        self._kept[host] = kept
        return kept.schemas

    def _ask(self, host: str, kept: _Kept | None, stop: Stop) -> _Kept:
        request = Request(
            method="GET",
            url=f"{self._locator.origin(host)}/ext/v1/types",
            access=Access(),
            headers={"Accept": "application/json"}
            | ({"If-None-Match": kept.etag} if kept and kept.etag else {}),
            retried=False,
        )
        fresh_until = self._clock() + _KEPT_SECONDS
        with self._exchange.send(request, stop=stop) as reply:
            if reply.status_code == _NOT_MODIFIED and kept is not None:
                return _Kept(schemas=kept.schemas, etag=kept.etag, fresh_until=fresh_until)
            if reply.status_code != _OK:
                return _Kept(schemas=None, etag="", fresh_until=fresh_until)
            etag = reply.headers.get("ETag", "")[:256]
            return _Kept(
                schemas=parse_types(reply.document(), stop.check),
                etag=etag,
                fresh_until=fresh_until,
            )


def parse_types(
    document: dict[str, Any], wanted: Callable[[], None] = lambda: None
) -> AuthoritySchemas:
    """Returns the schemas of an authority's answer; families that lns does not know are left out.

    Args:
        document: the answer.
        wanted: called again and again meanwhile; what it raises ends the work.

    Raises:
        RegistryProtocol: it is no such answer, or a schema cannot be used.
    """
    types = document.get("types")
    if not isinstance(types, list):
        raise RegistryProtocol("the list of artifact types is not one")
    texts: dict[str, str] = {}
    validators: dict[str, SchemaValidator] = {}
    for entry in types:
        slug = entry.get("slug") if isinstance(entry, dict) else None
        if not isinstance(slug, str) or slug not in BY_SLUG:
            continue
        schema = entry.get("schema")
        if not isinstance(schema, dict):
            raise RegistryProtocol(f"the artifact type {slug} has no schema")
        validators[slug] = SchemaValidator(schema, wanted=wanted)
        texts[slug] = json.dumps(schema, indent=2, ensure_ascii=False) + "\n"
    return AuthoritySchemas(texts=texts, validators=validators)
