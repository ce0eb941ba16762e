"""The integrations of a run: shipped ones, the user's, and those that a bundle brings.

An id means one thing. A user's entry or a bundle's may not take the id of a shipped one, and a
bundle's may not take the user's: a stored secret would be sent to other hosts than its owner meant.
"""

import json
import re
from collections.abc import Iterable, Mapping
from functools import cache
from importlib import resources
from typing import Any, Final

from services.core.artifacts import families
from services.core.artifacts.documents import Artifact, parse_artifact, parse_document
from services.core.errors import ArtifactInvalid, LimitExceeded, NameTaken, RequestInvalid
from services.core.integrations.definitions import IntegrationDefinition, integration_of_spec

USER_FILE_NAME: Final = ".lns-integrations.yaml"
MAX_USER_ENTRIES: Final = 256
SHIPPED_ORIGIN: Final = "lns"

_VERSION: Final = 1
_TEMPLATE_HOST: Final = re.compile(r"\.invalid\b")


class Catalogue:
    """Integrations by their ids."""

    def __init__(self, definitions: Iterable[IntegrationDefinition] = ()) -> None:
        self._by_id: dict[str, IntegrationDefinition] = {}
        for definition in definitions:
            self._add(definition)

    def with_more(self, definitions: Iterable[IntegrationDefinition]) -> "Catalogue":
        """Returns this catalogue with further integrations.

        Raises:
            NameTaken: one has the id of an integration of the catalogue, and is not the same.
        """
        return Catalogue([*self._by_id.values(), *definitions])

    def find(self, identifier: str) -> IntegrationDefinition | None:
        """Returns the integration of an id, or None."""
        return self._by_id.get(identifier)

    def get(self, identifier: str) -> IntegrationDefinition:
        """Returns the integration of an id.

        Raises:
            RequestInvalid: no integration has it; the hint says what to do.
        """
        found = self.find(identifier)
        if found is None:
            raise RequestInvalid(
                f"no integration is called {identifier!r}",
                hint="`lns integration list` shows all; `lns integration add FILE` adds one",
            )
        return found

    def all(self) -> tuple[IntegrationDefinition, ...]:
        """Returns every integration, by id."""
        return tuple(self._by_id[name] for name in sorted(self._by_id))

    def _add(self, definition: IntegrationDefinition) -> None:
        known = self._by_id.get(definition.id)
        if known is not None and _meaning(known) != _meaning(definition):
            raise NameTaken(
                f"the integration {definition.id} of {definition.origin} has the id of one of"
                f" {known.origin}, and is another",
                hint="give it a name of its own",
            )
        self._by_id.setdefault(definition.id, definition)


@cache
def shipped_catalogue() -> Catalogue:
    """Returns the integrations that ship with lns and name their hosts."""
    return Catalogue(
        _definition(artifact, SHIPPED_ORIGIN)
        for artifact in _shipped()
        if not _is_template(artifact)
    )


@cache
def shipped_templates() -> Mapping[str, Mapping[str, Any]]:
    """Returns documents of integrations whose host only their user knows, by id.

    Their hosts end in `.invalid` (RFC 2606); `fill_template` puts the user's in their place.
    """
    return {one.name: one.document for one in _shipped() if _is_template(one)}


def fill_template(document: Mapping[str, Any], host: str) -> bytes:
    """Returns the document of an integration with a host in the place of the template's.

    Raises:
        ArtifactInvalid: the host is not one.
    """
    text = json.dumps(document)
    filled = re.sub(r"[a-z.-]+\.invalid\b", host.lower(), text)
    return parse_artifact(filled.encode(), families.INTEGRATION).config_blob


def integration_of_document(data: bytes, *, origin: str) -> IntegrationDefinition:
    """Returns the integration of an artifact's document.

    Raises:
        ArtifactInvalid: it is not a valid integration.
    """
    return _definition(parse_artifact(data, families.INTEGRATION), origin)


def parse_user_file(data: bytes, *, name: str) -> dict[str, Mapping[str, Any]]:
    """Returns the documents of a user's file, by id: `{version: 1, integrations: [document…]}`.

    Raises:
        ArtifactInvalid: it is not such a file, or an entry is not a valid integration.
        LimitExceeded: it has more than 256 entries.
    """
    if not data.strip():
        return {}
    document = parse_document(data)
    entries = document.get("integrations")
    if document.get("version") != _VERSION or not isinstance(entries, list):
        raise ArtifactInvalid(
            f"{name} is not a file of integrations of this lns",
            hint="it has `version: 1` and a list `integrations` of documents of the kind"
            " Integration; `lns integration add` writes it",
        )
    if len(entries) > MAX_USER_ENTRIES:
        raise LimitExceeded(f"{name} has more than {MAX_USER_ENTRIES} integrations")
    return {one.name: one.document for one in map(_entry, entries)}


def user_definitions(
    documents: Mapping[str, Mapping[str, Any]], *, name: str
) -> tuple[IntegrationDefinition, ...]:
    """Returns the integrations of a user's file."""
    return tuple(_definition(_entry(document), name) for document in documents.values())


def _entry(document: Any) -> Artifact:
    return parse_artifact(json.dumps(document).encode(), families.INTEGRATION)


def _definition(artifact: Artifact, origin: str) -> IntegrationDefinition:
    return integration_of_spec(
        artifact.name, artifact.spec, origin=origin, title=artifact.labels.get("title", "")
    )


def _meaning(definition: IntegrationDefinition) -> tuple[object, ...]:
    return definition.routes, definition.credential, definition.oauth, definition.metering


@cache
def _shipped() -> tuple[Artifact, ...]:
    folder = resources.files("services.core.integrations") / "shipped"
    files = sorted(
        (one for one in folder.iterdir() if one.name.endswith(".yaml")), key=lambda one: one.name
    )
    return tuple(parse_artifact(one.read_bytes(), families.INTEGRATION) for one in files)


def _is_template(artifact: Artifact) -> bool:
    return any(_TEMPLATE_HOST.search(route["match"]) for route in artifact.spec["routes"])
