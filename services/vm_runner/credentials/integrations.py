"""The integrations of this node's user: those that ship and the user's own."""

from collections.abc import Mapping
from typing import Any

from services.core.artifacts import families
from services.core.artifacts.documents import parse_artifact
from services.core.errors import RequestInvalid
from services.core.integrations.catalogue import (
    Catalogue,
    fill_template,
    integration_of_document,
    shipped_catalogue,
    shipped_templates,
)
from services.core.integrations.definitions import IntegrationDefinition
from services.core.integrations.user_file import with_user_file
from services.vm_runner.credentials.ports import IntegrationRecords


class Integrations:
    """What ships, with the user's own integrations and prices."""

    def __init__(self, records: IntegrationRecords) -> None:
        self._records = records

    async def catalogue(self) -> Catalogue:
        """Returns every integration that can be used by its id.

        Raises:
            ArtifactInvalid: the user's file is not one, or has prices for what cannot use them.
            NameTaken: an entry of it has the id of one that ships.
        """
        own = await self._records.read()
        return with_user_file(shipped_catalogue(), own, name=self._records.name)

    async def document(self, identifier: str) -> Mapping[str, Any] | None:
        """Returns the document of one of the user's own, or of a template."""
        own = (await self._records.read()).documents.get(identifier)
        return own if own is not None else shipped_templates().get(identifier)

    async def add(self, data: bytes) -> IntegrationDefinition:
        """Stores an integration of the user's; returns it.

        Raises:
            ArtifactInvalid: it is not a valid integration.
            NameTaken: one that ships has its id.
            LimitExceeded: the file holds as many as it may.
        """
        definition = integration_of_document(data, origin=self._records.name)
        shipped_catalogue().with_more([definition])
        document = parse_artifact(data, families.INTEGRATION).document
        await self._records.put(definition.id, document)
        return definition

    async def add_template(self, identifier: str, host: str) -> IntegrationDefinition:
        """Stores a template with the user's host.

        Raises:
            RequestInvalid: no template has this id, or no host is given.
            ArtifactInvalid: the host is not one.
        """
        template = shipped_templates().get(identifier)
        if template is None:
            known = ", ".join(sorted(shipped_templates()))
            raise RequestInvalid(
                f"no template is called {identifier!r}", hint=f"templates are {known}"
            )
        if not host:
            raise RequestInvalid(
                f"{identifier} needs the host that it is for",
                hint=f"lns integration add {identifier} --host HOST",
            )
        return await self.add(fill_template(template, host))

    async def remove(self, identifier: str) -> bool:
        """Removes an integration of the user's; returns whether it was there.

        Raises:
            RequestInvalid: it ships with lns.
        """
        if shipped_catalogue().find(identifier) is not None:
            raise RequestInvalid(
                f"{identifier} ships with lns and cannot be removed",
                hint=f"`lns integration disconnect {identifier}` forgets its credential",
            )
        return await self._records.remove(identifier)
