"""What every RPC and every reason of the protos says about itself."""

import re

import pytest
from google.protobuf.descriptor_pb2 import MethodOptions

from protos.descriptors import EnumValue, Method, iter_enum_values, iter_methods, read_files
from services.core.errors import LEAVES

FILES = read_files()
METHODS = list(iter_methods(FILES))
REASONS = [v for v in iter_enum_values(FILES, "lns.errors.v1.ErrorReason") if v.number]
PREFIX = "ERROR_REASON_"

# Doing these twice is not the same as doing them once.
NOT_IDEMPOTENT = {
    "RegistryService.StartDeviceLogin",  # every start is another code for the user
    "CredentialService.FinishAuthorization",
    "CredentialService.StartAuthorization",
    "RegistryService.FinishDeviceLogin",  # the code is spent
    "VmService.KillRun",  # two signals are not one
    "VmService.Attach",  # what was typed is typed twice
    "VmService.CopyIn",  # the stream cannot be read again
}


def short_name(method: Method) -> str:
    return f"{method.service.rpartition('.')[2]}.{method.name}"


@pytest.mark.parametrize("method", METHODS, ids=short_name)
def test_every_method_says_whether_it_may_be_repeated(method: Method) -> None:
    declared = method.idempotency != MethodOptions.IDEMPOTENCY_UNKNOWN

    assert declared is (short_name(method) not in NOT_IDEMPOTENT)


@pytest.mark.parametrize("method", METHODS, ids=short_name)
def test_every_method_lists_its_errors(method: Method) -> None:
    _, found, listed = method.comment.partition("Errors:")
    # What stands in brackets explains and may have capitals of its own.
    names = re.findall(r"\b[A-Z]+(?:_[A-Z]+)+\b|\bUNIMPLEMENTED\b", re.sub(r"\(.*?\)", "", listed))

    assert found
    assert names or listed.strip().startswith(("none", "those of", "as "))
    assert set(names) <= set(LEAVES)


def test_nothing_is_excused_that_does_not_exist() -> None:
    assert {short_name(method) for method in METHODS} >= NOT_IDEMPOTENT


def test_reasons_and_error_classes_are_one_to_one() -> None:
    assert {value.name.removeprefix(PREFIX) for value in REASONS} == set(LEAVES)


@pytest.mark.parametrize("value", REASONS, ids=lambda value: value.name)
def test_the_code_beside_a_reason_is_that_of_its_class(value: EnumValue) -> None:
    reason = value.name.removeprefix(PREFIX)
    match = re.search(r"\(([A-Z_]+)(?:, with RetryInfo)?\)\.$", value.comment)

    assert match is not None
    assert match[1] == LEAVES[reason].kind


def test_class_names_are_their_reasons() -> None:
    for reason, leaf in LEAVES.items():
        words = re.findall(r"[A-Z][a-z]*", leaf.__name__)
        assert "_".join(word.upper() for word in words) == reason
