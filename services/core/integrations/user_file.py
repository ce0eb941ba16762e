"""`.lns-integrations.yaml`: a user's own integrations, and prices of the user's own."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from services.core.artifacts import families
from services.core.artifacts.documents import Artifact, parse_artifact, parse_document
from services.core.artifacts.schemas import integrations_file_validator
from services.core.artifacts.violations import to_violations
from services.core.errors import ArtifactInvalid, LimitExceeded
from services.core.integrations.catalogue import Catalogue, integration_of_document

MAX_ENTRIES: Final = 256
VERSION: Final = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class UserFile:
    """What a user's file says.

    Attributes:
        documents: integrations by id.
        prices: tables of prices by the id of an integration, as `spec.usage.prices` has them.
    """

    documents: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    prices: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)


def parse_user_file(data: bytes, *, name: str) -> UserFile:
    """Parses `{version: 1, integrations: [document…], prices: {id: {model: price}}}`.

    Raises:
        ArtifactInvalid: it is not such a file, or an entry is not a valid integration.
        LimitExceeded: it has more than 256 integrations.
    """
    if not data.strip():
        return UserFile()
    document = parse_document(data)
    found = to_violations(integrations_file_validator().errors(document))
    if found:
        raise ArtifactInvalid(
            f"{name} is not a file of integrations of this lns: {found[0].subject}"
            f" {found[0].description}",
            hint="it has `version: 1`, a list `integrations` of documents of the kind Integration,"
            " and perhaps `prices`; `lns integration add` writes it",
            violations=found,
        )
    entries = document["integrations"]
    if len(entries) > MAX_ENTRIES:
        raise LimitExceeded(f"{name} has more than {MAX_ENTRIES} integrations")
    documents = {one.name: one.document for one in map(_entry, entries)}
    return UserFile(documents=documents, prices=document.get("prices", {}))


def with_user_file(catalogue: Catalogue, file: UserFile, *, name: str) -> Catalogue:
    """Returns a catalogue with the integrations of a user's file, and its prices.

    Raises:
        ArtifactInvalid: its prices are for what cannot use them.
        NameTaken: an integration of it has the id of another.
    """
    own = [
        integration_of_document(json.dumps(one).encode(), origin=name)
        for one in file.documents.values()
    ]
    return catalogue.with_more(own).with_prices(file.prices)


def _entry(document: Any) -> Artifact:
    return parse_artifact(json.dumps(document).encode(), families.INTEGRATION)
