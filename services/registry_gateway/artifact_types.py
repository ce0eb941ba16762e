"""Which documents are valid: by the schemas of lns, or by those of a registry with authority."""

from collections.abc import Sequence
from dataclasses import dataclass

from services.chassis.blocking import Blocking
from services.core.artifacts.bounded_validator import SchemaValidator
from services.core.artifacts.documents import Artifact, parse_artifact
from services.core.artifacts.families import FAMILIES, Family, family_by_slug
from services.core.artifacts.schemas import schema_json
from services.core.reference import STORE_HOST, Reference
from services.registry_gateway.ports import TypeAuthority
from services.registry_gateway.progress import Stop


@dataclass(frozen=True, slots=True, kw_only=True)
class ArtifactType:
    """A family with the schema that decides about it."""

    family: Family
    schema: str


class ArtifactTypes:
    """Lists families and checks documents."""

    def __init__(self, authority: TypeAuthority, blocking: Blocking) -> None:
        self._authority = authority
        self._blocking = blocking

    async def list_types(self, registry: str) -> tuple[Sequence[ArtifactType], str]:
        """Returns the families, and the host of the authority or the empty string.

        Args:
            registry: host of a registry that may have an authority; empty asks none.
        """
        schemas = await self._authority.schemas(registry) if registry else None
        texts = schemas.texts if schemas else {}
        types = [
            ArtifactType(family=family, schema=texts.get(family.slug) or schema_json(family))
            for family in FAMILIES
        ]
        return types, registry if schemas else ""

    async def validate(self, document: bytes, *, family: str, registry: str) -> Artifact:
        """Checks a document without pushing it.

        Args:
            document: YAML or JSON.
            family: slug; empty takes the document's `kind`.
            registry: host whose authority decides, if it has one; empty asks none.

        Raises:
            ArtifactInvalid: it is not valid.
            RequestInvalid: there is no such family.
        """
        wanted = family_by_slug(family) if family else None
        if registry:
            wanted = wanted or (await self._parse(document, None)).family
            return await self._parse(document, wanted, await self._validator(registry, wanted))
        return await self._parse(document, wanted)

    async def check(
        self, reference: Reference, family: Family, document: bytes, *, offline: bool = False
    ) -> Artifact:
        """Checks a document that goes to, or came from, a registry.

        Raises:
            ArtifactInvalid: it is not valid.
        """
        validator = await self._validator(reference.host, family, offline=offline)
        return await self._parse(document, family, validator)

    async def _parse(
        self, document: bytes, family: Family | None, validator: SchemaValidator | None = None
    ) -> Artifact:
        stop = Stop()
        return await self._blocking.run_cancellable(
            stop, parse_artifact, document, family, validator=validator, wanted=stop.check
        )

    async def _validator(
        self, host: str, family: Family, *, offline: bool = False
    ) -> SchemaValidator | None:
        if host == STORE_HOST:
            return None
        schemas = await self._authority.schemas(host, offline=offline)
        return schemas.validators.get(family.slug) if schemas else None
