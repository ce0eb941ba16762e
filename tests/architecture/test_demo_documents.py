"""The documents of the demo are what its driver says they are."""

from pathlib import Path

import pytest

from services.core.artifacts.documents import family_of_document, parse_artifact, parse_document
from services.core.artifacts.families import SLUGS, infer_family
from services.core.reference import Reference

DEMO = Path(__file__).parents[2] / "demo"
DOCUMENTS = sorted((DEMO / "documents").glob("*.yaml"))


def pushed_to(document: Path) -> str:
    """The reference that the driver pushes a document to, without the registry."""
    for line in (DEMO / "run").read_text().splitlines():
        if line.startswith("lns push") and document.name in line:
            return line.split('"$registry/')[1].split('"')[0]
    raise AssertionError(f"demo/run never pushes {document.name}")


def test_the_demo_names_every_family_that_a_bundle_can_mount_or_apply() -> None:
    slugs = {family_of_document(parse_document(path.read_bytes())).slug for path in DOCUMENTS}

    assert slugs == {*SLUGS} - {"workflow"}  # `run` refuses workflows


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.stem)
def test_a_document_is_valid_and_pushed_where_its_family_lives(path: Path) -> None:
    document = parse_document(path.read_bytes())
    family = family_of_document(document)
    reference = pushed_to(path)

    artifact = parse_artifact(path.read_bytes(), family)

    assert infer_family(Reference.parse(f"localhost:5055/{reference}")) == family
    assert reference.split("/")[-1] == f"{artifact.name}:1"


def test_the_bundle_names_exactly_what_the_driver_pushes() -> None:
    bundle = parse_document((DEMO / "documents" / "bundle.yaml").read_bytes())
    components = bundle["spec"]["components"].values()
    entries = [
        entry for value in components for entry in (value if isinstance(value, list) else [value])
    ]

    pushed = {pushed_to(path) for path in DOCUMENTS if path.stem != "bundle"}

    assert {entry["ref"] for entry in entries} == pushed
