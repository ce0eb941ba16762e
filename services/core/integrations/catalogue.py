"""The integrations of a run: shipped ones, the user's, and those that a bundle brings.

An id means one thing. A user's entry or a bundle's may not take the id of a shipped one, and a
bundle's may not take the user's: a stored secret would be sent to other hosts than its owner meant.
"""

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import replace
from functools import cache
from importlib import resources
from typing import Any, Final

from services.core.artifacts import families
from services.core.artifacts.documents import Artifact, parse_artifact
from services.core.errors import ArtifactInvalid, NameTaken, RequestInvalid
from services.core.integrations.definitions import IntegrationDefinition, integration_of_spec

SHIPPED_ORIGIN: Final = "lns"

_TEMPLATE_HOST: Final = re.compile(r"\.invalid\b")


class Catalogue:
    """Integrations by their ids."""

    def __init__(
        self,
        definitions: Iterable[IntegrationDefinition] = (),
        prices: Mapping[str, Mapping[str, Any]] | None = None,
    ) -> None:
        self._by_id: dict[str, IntegrationDefinition] = {}
        self._prices = dict(prices or {})
        for definition in definitions:
            self._add(definition)

    def with_more(self, definitions: Iterable[IntegrationDefinition]) -> "Catalogue":
        """Returns this catalogue with further integrations.

        Raises:
            NameTaken: one has the id of an integration of the catalogue, and is not the same.
        """
        return Catalogue([*self._by_id.values(), *definitions], self._prices)

    def with_prices(self, prices: Mapping[str, Mapping[str, Any]]) -> "Catalogue":
        """Returns this catalogue with a user's tables of prices before those of its integrations.

        Prices are no part of what an integration means: a bundle may repeat one all the same.

        Raises:
            ArtifactInvalid: a table is for what cannot use it.
        """
        for identifier in prices:
            known = self._by_id.get(identifier)
            if known is None or known.metering is None:
                raise ArtifactInvalid(
                    f"there cannot be prices for {identifier}: "
                    + ("no integration has this id" if known is None else "it counts no tokens"),
                    hint=f"remove `{identifier}` from `prices`; `lns integration list` shows ids",
                )
        return Catalogue(self._by_id.values(), prices)

    def find(self, identifier: str) -> IntegrationDefinition | None:
        """Returns the integration of an id, or None."""
        found = self._by_id.get(identifier)
        return None if found is None else self._priced(found)

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
        return tuple(self._priced(self._by_id[name]) for name in sorted(self._by_id))

    def _priced(self, definition: IntegrationDefinition) -> IntegrationDefinition:
        table = self._prices.get(definition.id)
        if table is None or definition.metering is None:
            return definition
        return replace(definition, metering=definition.metering.with_own_prices(table))

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
