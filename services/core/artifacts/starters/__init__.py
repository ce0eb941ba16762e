"""Commented starter documents, one a family, for `lns init`."""

import json
from importlib import resources
from typing import Final

from services.core.artifacts.families import AGENT, Family
from services.core.errors import RequestInvalid
from services.core.reference import Reference

AGENT_IMAGE: Final = "docker.io/library/python:3.12-slim"
"""The image of the agent's starter, unless another one is named."""


def starter(family: Family, *, image: str = "") -> str:
    """Returns the text of a commented YAML document that fits the family's schema.

    Args:
        family: what is to be written.
        image: the image of an agent, a reference; empty for `AGENT_IMAGE`.

    Raises:
        RequestInvalid: another family is given an image.
        ReferenceInvalid: the image is no reference.
    """
    path = resources.files(__name__).joinpath(f"{family.slug}.yaml")
    text = path.read_text(encoding="utf-8")
    if not image:
        return text
    if family is not AGENT:
        raise RequestInvalid(
            f"the starter of a {family.slug} names no image", hint="leave --image out"
        )
    Reference.parse(image)
    return text.replace(f"  image: {AGENT_IMAGE}\n", f"  image: {json.dumps(image)}\n")
