"""`lns.egress.v1.CredentialService`: parses, calls the use cases, converts."""

from collections.abc import Iterator
from datetime import timedelta
from typing import Any

from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp
from lns.egress.v1 import credential_service_pb2 as pb
from lns.egress.v1 import credential_service_pb2_grpc as rpc

from services.core.artifacts.documents import canonical_json
from services.core.budgets.metering import Metering, dollars_per_million
from services.core.errors import RequestInvalid
from services.core.integrations.catalogue import SHIPPED_ORIGIN, shipped_templates
from services.core.integrations.definitions import IntegrationDefinition, integration_of_spec
from services.vm_runner.credentials.authorizations import Authorizations
from services.vm_runner.credentials.credential import Credential, CredentialKey
from services.vm_runner.credentials.integrations import Integrations
from services.vm_runner.credentials.vault import Vault


class CredentialServicer(rpc.CredentialServiceServicer):
    """Serves the credentials of the user whose process this is."""

    def __init__(
        self, vault: Vault, integrations: Integrations, authorizations: Authorizations
    ) -> None:
        self._vault = vault
        self._integrations = integrations
        self._authorizations = authorizations

    async def ListIntegrations(
        self, request: pb.ListIntegrationsRequest, context: Any
    ) -> pb.ListIntegrationsResponse:
        """Lists integrations with what is stored for each."""
        catalogue = await self._integrations.catalogue()
        found = [
            await self._format(definition, request.project)
            for definition in catalogue.all()
            if request.id in ("", definition.id)
        ]
        found += [
            _format_template(identifier)
            for identifier in sorted(shipped_templates())
            if request.id in ("", identifier) and catalogue.find(identifier) is None
        ]
        if request.id and not found:
            catalogue.get(request.id)  # refuses it
        return pb.ListIntegrationsResponse(integrations=found)

    async def AddIntegration(
        self, request: pb.AddIntegrationRequest, context: Any
    ) -> pb.AddIntegrationResponse:
        """Adds an integration to the user's own."""
        if bool(request.document) == bool(request.template):
            raise RequestInvalid("either a document or a template is added")
        if request.document:
            definition = await self._integrations.add(request.document.encode())
        else:
            definition = await self._integrations.add_template(request.template, request.host)
        return pb.AddIntegrationResponse(integration=await self._format(definition, ""))

    async def RemoveIntegration(
        self, request: pb.RemoveIntegrationRequest, context: Any
    ) -> pb.RemoveIntegrationResponse:
        """Removes an integration of the user's own."""
        removed = await self._integrations.remove(request.id)
        return pb.RemoveIntegrationResponse(removed=removed)

    async def PutCredential(
        self, request: pb.PutCredentialRequest, context: Any
    ) -> pb.PutCredentialResponse:
        """Stores a secret, or the command that prints it."""
        definition = (await self._integrations.catalogue()).get(request.integration)
        key = _key(request.integration, request.project)
        match request.WhichOneof("source"):
            case "value":
                stored = await self._vault.put_value(key, definition, request.value)
            case "command":
                stored = await self._vault.put_command(key, definition, request.command)
            case _:
                raise RequestInvalid("neither a secret nor a command is given")
        return pb.PutCredentialResponse(credential=_format_credential(stored))

    async def ListCredentials(
        self, request: pb.ListCredentialsRequest, context: Any
    ) -> pb.ListCredentialsResponse:
        """Lists what is stored, without secrets."""
        stored = await self._vault.list()
        return pb.ListCredentialsResponse(credentials=map(_format_credential, stored))

    async def RemoveCredential(
        self, request: pb.RemoveCredentialRequest, context: Any
    ) -> pb.RemoveCredentialResponse:
        """Forgets a credential."""
        removed = await self._vault.remove(_key(request.integration, request.project))
        return pb.RemoveCredentialResponse(removed=removed)

    async def StartAuthorization(
        self, request: pb.StartAuthorizationRequest, context: Any
    ) -> pb.StartAuthorizationResponse:
        """Begins an authorization on another device."""
        definition = (await self._integrations.catalogue()).get(request.integration)
        key = _key(request.integration, request.project)
        identifier, code = await self._authorizations.start(key, definition)
        expires_in = Duration()
        expires_in.FromTimedelta(timedelta(seconds=code.expires_in))
        return pb.StartAuthorizationResponse(
            authorization_id=identifier,
            user_code=code.user_code,
            verification_uri=code.verification_uri,
            expires_in=expires_in,
        )

    async def FinishAuthorization(
        self, request: pb.FinishAuthorizationRequest, context: Any
    ) -> pb.FinishAuthorizationResponse:
        """Waits until a person has agreed."""
        stored = await self._authorizations.finish(request.authorization_id)
        return pb.FinishAuthorizationResponse(credential=_format_credential(stored))

    async def _format(self, definition: IntegrationDefinition, project: str) -> pb.Integration:
        message = _format_definition(definition)
        message.connected = await self._vault.is_connected(definition, project)
        if definition.origin != SHIPPED_ORIGIN:
            document = await self._integrations.document(definition.id)
            message.document = canonical_json(document).decode() if document else ""
        return message


def _format_definition(definition: IntegrationDefinition) -> pb.Integration:
    credential = definition.credential
    return pb.Integration(
        id=definition.id,
        title=definition.title,
        origin=definition.origin,
        hosts=[route.match for route in definition.routes],
        domains=definition.domains,
        env_var=credential.env_var if credential is not None else "",
        auth_kind="oauth" if definition.oauth is not None else "credential",
        prices=_format_prices(definition.metering) if definition.metering is not None else (),
    )


def _format_prices(metering: Metering) -> Iterator[pb.ModelPrice]:
    for index, (model, price) in enumerate(metering.prices):
        yield pb.ModelPrice(
            model=model,
            input=dollars_per_million(price.input),
            output=dollars_per_million(price.output),
            cache_read=dollars_per_million(price.cache_read),
            cache_write=dollars_per_million(price.cache_write),
            cache_write_long=dollars_per_million(price.cache_write_long),
            origin="user" if index < metering.own_prices else "integration",
        )


def _format_template(identifier: str) -> pb.Integration:
    document = shipped_templates()[identifier]
    title = document["metadata"].get("labels", {}).get("title", "")
    definition = integration_of_spec(
        identifier, document["spec"], origin=SHIPPED_ORIGIN, title=title
    )
    message = _format_definition(definition)
    message.is_template = True
    message.document = canonical_json(document).decode()
    del message.hosts[:], message.domains[:]
    return message


def _format_credential(stored: Credential) -> pb.StoredCredential:
    create_time = Timestamp()
    create_time.FromDatetime(stored.create_time)
    return pb.StoredCredential(
        integration=stored.key.integration,
        project=stored.key.project,
        source=str(stored.source),
        stored_in=stored.stored_in,
        command=stored.command,
        domains=stored.domains,
        create_time=create_time,
    )


def _key(integration: str, project: str) -> CredentialKey:
    if project and not project.startswith("/"):
        raise RequestInvalid("the project's folder has to be absolute")
    return CredentialKey(integration=integration, project=project)
