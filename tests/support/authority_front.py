"""A registry that is the authority for its artifacts: a front before a real one that validates.

What it adds is what docs/registry-authority.md asks of such a registry:

- `GET /ext/v1/types` lists the families with their media types and JSON Schemas, with a strong
  `ETag`; a request with that tag in `If-None-Match` is answered with 304.
- `PUT` of a manifest whose artifact type or config media type it knows is refused with 400 unless
  the config blob, which must have been uploaded, fits the family's schema. The refusal has one
  `MANIFEST_INVALID` for each violation, its `detail` the JSON `path` and a `message`.

Everything else passes. The validation is jsonschema's own, not that of lns: it is a second opinion.
A test may change the schemas of a running front (`replace_schema`), as an operator would.
"""

import hashlib
import http.client
import json
import threading
from collections.abc import Iterator, Mapping
from typing import Any, Self

from jsonschema import Draft202012Validator

from services.core.artifacts.families import FAMILIES
from services.core.artifacts.schemas import schema_json
from tests.support.http_messages import Kind, Request, Response, answer
from tests.support.http_peer import Exchange, HttpPeer

TYPES_PATH = "/ext/v1/types"


class AuthorityFront:
    """Stands before `upstream` (`host:port`, plain HTTP); a context manager."""

    def __init__(self, upstream: str) -> None:
        self._guard = threading.Lock()
        self._requests: list[Request] = []
        self._types: dict[str, dict[str, Any]] = {
            family.slug: {
                "slug": family.slug,
                "kind": family.kind,
                "artifactType": family.artifact_type,
                "configMediaType": family.config_media_type,
                "schema": json.loads(schema_json(family)),
            }
            for family in FAMILIES
        }
        self._peer = HttpPeer(self._serve, upstream=upstream)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._peer.close()

    @property
    def host(self) -> str:
        """`host:port` that stands for the registry's."""
        return self._peer.host

    @property
    def url(self) -> str:
        """Address without a trailing slash."""
        return self._peer.url

    @property
    def requests(self) -> tuple[Request, ...]:
        """Every request so far, in order of arrival."""
        with self._guard:
            return tuple(self._requests)

    def replace_schema(self, slug: str, schema: Mapping[str, Any]) -> None:
        """Gives a family another schema, from now on; the ETag changes with it."""
        Draft202012Validator.check_schema(schema)
        with self._guard:
            self._types[slug] = {**self._types[slug], "schema": schema}

    def _serve(self, exchange: Exchange) -> None:
        request = exchange.request
        with self._guard:
            self._requests.append(request)
        if request.kind is Kind.TYPES and request.method in ("GET", "HEAD"):
            exchange.send(self._list_types(request))
        elif request.kind is Kind.MANIFEST and request.method == "PUT":
            manifest = exchange.read_body()
            found = list(self._violations(exchange, manifest))
            exchange.send(_refusal(found) if found else exchange.forward(body=[manifest]))
        else:
            exchange.send(exchange.forward())

    def _list_types(self, request: Request) -> Response:
        with self._guard:
            body = json.dumps({"types": list(self._types.values())}).encode()
        tag = f'"{hashlib.sha256(body).hexdigest()[:32]}"'
        known = [one.strip() for one in request.headers.get("if-none-match", "").split(",")]
        if tag in known:
            return answer(304, headers={"ETag": tag})
        return answer(200, body, {"Content-Type": "application/json", "ETag": tag})

    def _violations(self, exchange: Exchange, manifest: bytes) -> Iterator[tuple[str, str]]:
        schema, config = self._schema_and_config(manifest)
        if schema is None:
            return
        blob = self._fetch_blob(exchange.request, config)
        if blob is None:
            yield "$", f"config blob {config} is not in the repository"
            return
        try:
            document = json.loads(blob)
        except ValueError as error:
            yield "$", f"config is not JSON: {error}"
            return
        for problem in Draft202012Validator(schema).iter_errors(document):
            yield problem.json_path, problem.message

    def _schema_and_config(self, manifest: bytes) -> tuple[Mapping[str, Any] | None, str]:
        """Returns the schema that the config must fit and its digest; None for what is no artifact.

        A manifest that cannot be read is for the registry behind to refuse.
        """
        try:
            parsed = json.loads(manifest)
            config = parsed["config"]
            names = {parsed.get("artifactType"), config["mediaType"]}
            digest = str(config["digest"])
        except (ValueError, KeyError, TypeError, AttributeError):
            return None, ""
        with self._guard:
            for one in self._types.values():
                if names & {one["artifactType"], one["configMediaType"]}:
                    return one["schema"], digest
        return None, ""

    def _fetch_blob(self, request: Request, digest: str) -> bytes | None:
        """Asks the registry behind, with what the client showed, for the config."""
        connection = http.client.HTTPConnection(self._peer.upstream, timeout=30)
        shown = {name: value for name, value in request.headers.items() if name == "authorization"}
        try:
            connection.request("GET", f"/v2/{request.repository}/blobs/{digest}", headers=shown)
            with connection.getresponse() as reply:
                return reply.read() if reply.status == 200 else None
        finally:
            connection.close()


def _refusal(violations: list[tuple[str, str]]) -> Response:
    errors = [
        {
            "code": "MANIFEST_INVALID",
            "message": f"{path}: {message}",
            "detail": {"path": path, "message": message},
        }
        for path, message in violations
    ]
    body = json.dumps({"errors": errors}).encode()
    return answer(400, body, {"Content-Type": "application/json"})
