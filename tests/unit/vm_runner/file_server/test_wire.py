"""FUSE messages of a hostile guest, as bytes."""

import contextlib
import os
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.vm_runner.file_server import answers, requests, wire
from services.vm_runner.file_server.wire import Malformed
from tests.support.fuse_client import message, parse_attr, parse_listing
from tests.support.outcomes import passes_or

PARSERS = (
    requests.parse_name,
    requests.parse_init,
    requests.parse_forget,
    requests.parse_getattr,
    requests.parse_setattr,
    requests.parse_symlink,
    requests.parse_mknod,
    requests.parse_mkdir,
    requests.parse_create,
    requests.parse_link,
    requests.parse_open,
    requests.parse_read,
    requests.parse_write,
    requests.parse_handle,
    requests.parse_fsync,
    requests.parse_access,
    requests.parse_fallocate,
    requests.parse_lseek,
    requests.parse_copy,
)
NAME = st.binary(min_size=1, max_size=255).filter(
    lambda name: not set(name) & {0, ord("/")} and name not in (b".", b"..")
)


def test_a_message_says_how_long_it_is() -> None:
    data = message(1, 1, b"name\0")
    assert [wire.message_size(data[:n]) for n in (0, 4, 39)] == [0, 0, 0]
    assert wire.message_size(data[:40]) == len(data) == 45


@pytest.mark.parametrize("size", [0, 1, 39, wire.MAX_REQUEST + 1, 0xFFFFFFFF])
def test_a_message_of_no_possible_length_is_the_end(size: int) -> None:
    with pytest.raises(Malformed):
        wire.message_size(struct.pack("<I", size) + bytes(36))


@pytest.mark.parametrize("parse", PARSERS)
@given(data=st.binary(max_size=200))
def test_any_bytes_are_read_or_malformed(parse: object, data: bytes) -> None:
    assert callable(parse)
    with contextlib.suppress(Malformed, OSError):
        parse(memoryview(data))


@given(st.binary(max_size=100))
def test_forgetting_many_is_read_or_malformed(data: bytes) -> None:
    with passes_or(Malformed):
        list(requests.parse_batch_forget(memoryview(data)))


def test_a_count_that_does_not_fit_its_message_is_malformed() -> None:
    with pytest.raises(Malformed):
        list(requests.parse_batch_forget(memoryview(struct.pack("<II", 1 << 31, 0) + bytes(16))))


@pytest.mark.parametrize("name", [b"", b".", b"..", b"a/b", b"/", b"../x"])
def test_a_name_that_leads_elsewhere_is_malformed(name: bytes) -> None:
    with pytest.raises(Malformed):
        requests.parse_name(memoryview(name + b"\0"))


def test_a_name_is_not_longer_than_names_are() -> None:
    assert requests.parse_name(memoryview(b"n" * 255 + b"\0")) == b"n" * 255
    with pytest.raises(OSError, match="too long"):
        requests.parse_name(memoryview(b"n" * 256 + b"\0"))
    with pytest.raises(Malformed):
        requests.parse_name(memoryview(b"without an end"))


@given(NAME, NAME, st.integers(0, 2**64 - 1), st.integers(0, 2**32 - 1))
def test_both_names_of_a_rename_are_read(old: bytes, new: bytes, parent: int, flags: int) -> None:
    names = old + b"\0" + new + b"\0"
    plain = memoryview(struct.pack("<Q", parent) + names)
    assert requests.parse_rename(plain, with_flags=False) == (old, parent, new, 0)
    flagged = memoryview(struct.pack("<QII", parent, flags, 0) + names)
    assert requests.parse_rename(flagged, with_flags=True) == (old, parent, new, flags)


@given(st.binary(max_size=64), st.integers(0, 128))
def test_a_write_has_all_the_bytes_that_it_announces(data: bytes, size: int) -> None:
    body = memoryview(struct.pack("<QQIIQII", 1, 2, size, 0, 0, 0, 0) + data)
    if size > len(data):
        with pytest.raises(Malformed):
            requests.parse_write(body)
    else:
        assert bytes(requests.parse_write(body)[1]) == data[:size]


@pytest.mark.parametrize("offset", [1 << 63, (1 << 64) - 1])
def test_offsets_are_not_negative(offset: int) -> None:
    body = memoryview(struct.pack("<QQIIQII", 1, offset, 1, 0, 0, 0, 0))
    with pytest.raises(Malformed):
        requests.parse_read(body)


@given(st.lists(NAME, max_size=8), st.booleans())
def test_a_listing_is_read_as_it_was_written(names: list[bytes], plus: bool) -> None:
    entry = b"" if plus else None
    data = b"".join(answers.format_dirent(name, 7, 4, 1, entry) for name in names)
    assert set(parse_listing(data, plus=plus)[0]) == set(names)
    assert len(data) == sum(answers.dirent_size(name, plus=plus) for name in names)


@pytest.mark.parametrize(
    ("uid", "gid", "seen"),
    [(10, 20, (7, 8)), (10, 21, (7, 8)), (11, 20, (65534, 8)), (0, 0, (65534, 65534))],
)
def test_the_owner_is_seen_as_one_user_and_others_as_nobody(
    uid: int, gid: int, seen: tuple[int, int]
) -> None:
    owners = wire.Owners(uid=10, gids=(20, 21), shown_uid=7, shown_gid=8)
    times = {f"st_{which}time_ns": 0 for which in "amc"}
    status = os.stat_result(
        (0o106755, 1, 1, 1, uid, gid, 5, 0, 0, 0), times | {"st_blksize": 4096, "st_blocks": 8}
    )
    attr = parse_attr(answers.format_attr(status, owners))
    assert (attr.uid, attr.gid) == seen
    assert attr.mode == 0o100755  # nothing here runs as its owner
