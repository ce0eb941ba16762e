"""A file that is skipped through gives the same bytes as one that is read."""

import io

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.archives.limits import ArchiveUnsafe
from services.archives.stream import ByteStream, FileStream

DATA = bytes(range(256)) * 1500
STEPS = st.lists(st.tuples(st.booleans(), st.integers(0, 90_000)), max_size=12)


def walk(stream: ByteStream, steps: list[tuple[bool, int]]) -> list[bytes | int | str]:
    seen: list[bytes | int | str] = []
    try:
        for skips, size in steps:
            if skips:
                stream.skip(size)
            else:
                seen.append(stream.read(size))
            seen.append(stream.position)
    except ArchiveUnsafe as error:
        seen.append(error.reason)
    return seen


@given(STEPS)
def test_skipping_in_a_file_is_as_reading_on(steps: list[tuple[bool, int]]) -> None:
    chunks = iter([DATA[:100], b"", DATA[100:70_000], DATA[70_000:]])

    assert walk(FileStream(io.BytesIO(DATA)), steps) == walk(ByteStream(chunks), steps)


def test_a_skip_beyond_the_end_of_a_file_is_a_truncation() -> None:
    with pytest.raises(ArchiveUnsafe, match="truncated"):
        FileStream(io.BytesIO(b"x" * 100)).skip(1 << 60, within=b"name")


def test_reading_a_file_can_be_stopped() -> None:
    def stop() -> None:
        raise TimeoutError

    with pytest.raises(TimeoutError):
        FileStream(io.BytesIO(DATA), stop).read(1)


@pytest.mark.parametrize(("most", "found"), [(0, 0), (5, 5), (10, 10), (11, 10)])
def test_the_rest_of_a_stream_is_read_up_to_a_most(most: int, found: int) -> None:
    stream = ByteStream(iter([b"ab", b"0123", b"456789"]))
    stream.read(2)

    assert len(stream.rest(most)) == found
