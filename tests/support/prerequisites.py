"""What a test needs of the machine, and what happens when the machine has it not.

By default a test whose prerequisite is missing is skipped, so that a contributor without Docker
can work. `LNS_REQUIRE` (comma-separated, e.g. `registry,qemu`) names the prerequisites that a run
promises: a missing one then fails the test. `make test` and CI require all of them.
"""

import os
from enum import StrEnum
from typing import NoReturn

import pytest


class Prerequisite(StrEnum):
    """Names that `LNS_REQUIRE` accepts."""

    REGISTRY = "registry"
    """A Docker daemon with the image `registry:2`, or `LNS_TEST_REGISTRY`."""

    QEMU = "qemu"
    """`qemu-system-*`, a guest kernel and the guest agent."""


def is_required(prerequisite: Prerequisite) -> bool:
    """Whether this run promised that the prerequisite exists.

    Raises:
        pytest.UsageError: `LNS_REQUIRE` names something unknown.
    """
    names = {name.strip() for name in os.environ.get("LNS_REQUIRE", "").split(",")} - {""}
    unknown = names - set(Prerequisite)
    if unknown:
        raise pytest.UsageError(f"LNS_REQUIRE names unknown prerequisites: {sorted(unknown)}")
    return prerequisite in names


def missing(prerequisite: Prerequisite, why: str) -> NoReturn:
    """End the test because a prerequisite is not there: fail if it was promised, else skip."""
    if is_required(prerequisite):
        pytest.fail(f"{prerequisite} is required (LNS_REQUIRE) but missing: {why}", pytrace=False)
    pytest.skip(f"{prerequisite} is missing: {why}")
