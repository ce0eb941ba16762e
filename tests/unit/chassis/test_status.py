from typing import Any

import pytest
from google.protobuf import any_pb2
from google.rpc import error_details_pb2, status_pb2
from hypothesis import given
from hypothesis import strategies as st

from services.chassis.status import MAX_STATUS_BYTES, from_status, to_grpc, to_status
from services.core import errors
from services.core.errors import Kind, LnsError, Unclassified, Violation

leaves = st.sampled_from(sorted(errors.LEAVES.values(), key=lambda leaf: leaf.reason))
texts = st.text(st.characters(codec="utf-8"), max_size=50)
violations = st.lists(
    st.builds(Violation, subject=texts, description=texts, type=texts), max_size=4
)


def detail(status: status_pb2.Status, kind: Any) -> Any:
    for packed in status.details:
        made = kind()
        if packed.Unpack(made):
            return made
    raise AssertionError(f"no {kind.__name__}")


@given(
    leaf=leaves,
    message=texts.filter(bool),
    hint=texts,
    metadata=st.dictionaries(texts, texts, max_size=3),
    problems=violations,
    retry_after=st.none() | st.integers(0, 10**6).map(lambda ms: ms / 1000),
)
def test_an_error_survives_the_wire(
    leaf: type[LnsError],
    message: str,
    hint: str,
    metadata: dict[str, str],
    problems: list[Violation],
    retry_after: float | None,
) -> None:
    error = leaf(
        message, hint=hint, metadata=metadata, violations=problems, retry_after=retry_after
    )

    back = from_status(status_pb2.Status.FromString(to_status(error).SerializeToString()))

    assert type(back) is leaf
    assert vars(back) == vars(error)
    assert back.args == error.args


@given(leaf=leaves, problems=violations)
def test_mapping_twice_changes_nothing(leaf: type[LnsError], problems: list[Violation]) -> None:
    once = to_status(leaf("x", hint="y", violations=problems))

    assert to_status(from_status(once)) == once


@given(st.binary(max_size=200), st.integers(0, 20))
def test_no_hostile_detail_breaks_the_client(data: bytes, code: int) -> None:
    status = status_pb2.Status(code=code, message="x")
    for kind in (error_details_pb2.ErrorInfo, error_details_pb2.BadRequest):
        packed = status.details.add()
        packed.type_url = f"type.googleapis.com/{kind.DESCRIPTOR.full_name}"
        packed.value = data

    assert isinstance(from_status(status), LnsError)


def test_details_are_the_standard_ones() -> None:
    problem = Violation(subject="$.spec", description="is missing", type="SCHEMA")
    invalid = to_status(errors.ArtifactInvalid("x", hint="do", violations=[problem]))
    planned = to_status(errors.PlanInvalid("x", violations=[problem]))
    unknown = to_status(errors.RunUnknown("x", metadata={"run": "r1"}))
    later = to_status(errors.TooManyRequests("x", retry_after=2.5))

    info = detail(invalid, error_details_pb2.ErrorInfo)
    assert (info.reason, info.domain) == ("ARTIFACT_INVALID", "lns")
    assert detail(invalid, error_details_pb2.Help).links[0].description == "do"
    field = detail(invalid, error_details_pb2.BadRequest).field_violations[0]
    assert (field.field, field.description, field.reason) == ("$.spec", "is missing", "SCHEMA")
    one = detail(planned, error_details_pb2.PreconditionFailure).violations[0]
    assert (one.type, one.subject, one.description) == ("SCHEMA", "$.spec", "is missing")
    resource = detail(unknown, error_details_pb2.ResourceInfo)
    assert (resource.resource_type, resource.resource_name) == ("run", "r1")
    assert detail(later, error_details_pb2.RetryInfo).retry_delay.ToMilliseconds() == 2500


@pytest.mark.parametrize("kind", Kind)
def test_a_stranger_without_error_info_is_understood_by_code(kind: Kind) -> None:
    import grpc  # noqa: PLC0415  # for the number only

    error = from_status(status_pb2.Status(code=grpc.StatusCode[kind].value[0], message="m"))

    assert error.kind is kind
    assert error.message == "m"


def test_a_reason_of_another_domain_is_not_ours() -> None:
    info = error_details_pb2.ErrorInfo(reason="RUN_UNKNOWN", domain="example.com")
    packed = any_pb2.Any()
    packed.Pack(info)

    error = from_status(status_pb2.Status(code=5, message="m", details=[packed]))

    assert isinstance(error, Unclassified)


def test_names_that_are_not_unicode_can_be_reported() -> None:
    name = b"caf\xe9".decode("utf-8", "surrogateescape")

    status = to_status(
        errors.LayerUnsafe(
            f"entry {name}",
            metadata={"entry": name},
            violations=[Violation(subject=name, description=name)],
        )
    )

    assert from_status(status).metadata == {"entry": r"caf\udce9"}


def test_a_status_fits_into_a_trailer_whatever_the_error_says() -> None:
    huge = "ü" * 100_000
    error = errors.ArtifactInvalid(
        huge,
        hint=huge,
        metadata={"a": huge, "b": huge},
        violations=[Violation(subject=huge, description=huge, type="T")] * 1000,
    )

    status = to_status(error)

    assert status.ByteSize() < MAX_STATUS_BYTES
    assert to_grpc(error).details == status.message
    assert from_status(status).violations[-1].type == "TRUNCATED"


def test_an_error_without_a_message_is_named_by_its_reason() -> None:
    assert to_status(errors.Conflict("")).message == "CONFLICT"
