"""Commented starter documents, one a family, for `lns init`."""

from importlib import resources

from services.core.artifacts.families import Family


def starter(family: Family) -> str:
    """Returns the text of a commented YAML document that fits the family's schema."""
    return resources.files(__name__).joinpath(f"{family.slug}.yaml").read_text(encoding="utf-8")
