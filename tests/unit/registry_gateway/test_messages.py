"""What requests say is checked where it is taken apart."""

from collections.abc import AsyncIterator

import pytest
from hypothesis import given
from hypothesis import strategies as st
from lns.registry.v1 import registry_service_pb2 as pb

from services.core.digest import Digest
from services.core.errors import LnsError, RequestInvalid
from services.registry_gateway import messages
from services.registry_gateway.blobs import Commit, Header
from services.registry_gateway.progress import Snapshot, Stage
from tests.support.outcomes import passes_or


@given(st.text(max_size=300))
def test_a_page_token_stands_for_the_name_it_was_made_of(after: str) -> None:
    try:
        after.encode()
    except UnicodeEncodeError:
        return
    token = messages.format_token(after)

    assert token.isascii()
    assert messages.parse_token(token) == after


@given(st.text(max_size=60))
def test_any_page_token_is_a_name_or_refused(token: str) -> None:
    with passes_or(RequestInvalid):
        messages.parse_token(token)


@pytest.mark.parametrize(
    ("wanted", "expected"), [(0, 100), (1, 1), (100, 100), (1000, 1000), (2**31 - 1, 1000)]
)
def test_a_page_has_a_size_within_bounds(wanted: int, expected: int) -> None:
    assert messages.parse_page_size(wanted, default=100, most=1000) == expected


def test_a_page_of_fewer_than_none_is_refused() -> None:
    with pytest.raises(RequestInvalid):
        messages.parse_page_size(-1, default=100, most=1000)


@pytest.mark.parametrize("stage", Stage)
def test_every_stage_has_a_name_on_the_wire(stage: Stage) -> None:
    snapshot = Snapshot(digest=Digest.of(b""), stage=stage, done=1, total=2)

    assert messages.format_progress(snapshot).stage != 0


async def test_the_steps_of_a_write_are_distinguished() -> None:
    async def sent() -> AsyncIterator[pb.WriteBlobRequest]:
        header = pb.WriteBlobHeader(digest=Digest.of(b"x"), size_bytes=1)
        yield pb.WriteBlobRequest(header=header)
        yield pb.WriteBlobRequest(chunk=b"x")
        yield pb.WriteBlobRequest(commit=pb.WriteBlobCommit())

    steps = [step async for step in messages.parse_steps(sent())]

    assert steps == [Header(digest=Digest.of(b"x"), size=1), b"x", Commit()]


@given(seconds=st.integers(-(2**62), 2**62), nanos=st.integers(-(2**31), 2**31 - 1))
def test_any_life_of_a_lease_is_a_span_or_refused(seconds: int, nanos: int) -> None:
    request = pb.AcquireLeaseRequest()
    request.time_to_live.seconds = seconds
    request.time_to_live.nanos = nanos
    try:
        life = messages.parse_life(request)
    except LnsError:
        return
    assert life is not None
    assert life.total_seconds() > 0
