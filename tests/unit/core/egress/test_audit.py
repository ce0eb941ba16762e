"""The audit log's chain: what was changed, taken out, put in or cut off is found."""

import json
from collections.abc import Callable

import pytest

from services.core.egress import audit
from services.core.errors import ContentCorrupt


def log_of(count: int) -> list[bytes]:
    """Returns the lines of a log, each with the hash of the one before."""
    lines, previous = [], audit.FIRST
    for sequence in range(1, count + 1):
        line = audit.seal({"host": f"h{sequence}.example"}, sequence=sequence, previous=previous)
        lines.append(line.data)
        previous = line.hash
    return lines


def test_a_log_is_read_as_it_was_written() -> None:
    read = list(audit.verified(log_of(3)))
    assert [line.sequence for line in read] == [1, 2, 3]
    assert [line.values for line in read] == [{"host": f"h{n}.example"} for n in (1, 2, 3)]


def test_a_log_that_was_rotated_begins_with_a_later_line() -> None:
    assert [line.sequence for line in audit.verified(log_of(4)[2:])] == [3, 4]


def resealed(line: bytes, host: str) -> bytes:
    """Returns a line with another host and a hash that fits it."""
    values = json.loads(line)
    del values["hash"]
    sequence, previous = values.pop("sequence"), values.pop("previous")
    return audit.seal({**values, "host": host}, sequence=sequence, previous=previous).data


@pytest.mark.parametrize(
    ("change", "first_bad"),
    [
        pytest.param(
            lambda log: [log[0], log[1].replace(b"h2", b"hx"), *log[2:]], 2, id="a changed line"
        ),
        pytest.param(
            lambda log: [log[0], resealed(log[1], "hx.example"), *log[2:]],
            3,
            id="a changed line with a hash that fits",
        ),
        pytest.param(lambda log: [log[0], *log[2:]], 2, id="a line taken out"),
        pytest.param(lambda log: [log[0], log[0], *log[1:]], 2, id="a line that stands twice"),
        pytest.param(lambda log: [log[1], log[0], *log[2:]], 2, id="lines in another order"),
        pytest.param(lambda log: [*log[:3], log[3][:-10]], 4, id="a line that is cut off"),
        pytest.param(lambda log: [*log[:3], b"{}\n"], 4, id="a line that is no record"),
        pytest.param(lambda log: [*log, log_of(9)[8]], 5, id="a line of a longer log"),
        pytest.param(
            lambda log: [audit.seal({}, sequence=1, previous="1" * 64).data, *log],
            1,
            id="a first line with one before it",
        ),
        pytest.param(
            lambda log: [audit.seal({}, sequence=7, previous=audit.FIRST).data, *log],
            1,
            id="a later line with none before it",
        ),
    ],
)
def test_the_first_line_that_cannot_be_trusted_is_named(
    change: Callable[[list[bytes]], list[bytes]], first_bad: int
) -> None:
    with pytest.raises(ContentCorrupt, match=f"from its line {first_bad} on") as caught:
        list(audit.verified(change(log_of(4))))
    assert caught.value.metadata == {"line": str(first_bad)}


def test_a_sequence_that_skips_a_number_is_a_line_taken_out() -> None:
    first = audit.seal({}, sequence=1, previous=audit.FIRST)
    third = audit.seal({}, sequence=3, previous=first.hash)
    with pytest.raises(ContentCorrupt, match="does not follow on line 1"):
        list(audit.verified([first.data, third.data]))


def test_a_line_longer_than_the_most_is_not_looked_into() -> None:
    line = audit.seal({"x": "y" * audit.LINE_MOST}, sequence=1, previous=audit.FIRST)
    with pytest.raises(ContentCorrupt):
        audit.read_line(line.data)
