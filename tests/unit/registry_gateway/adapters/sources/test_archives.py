"""Tar files of images are indexed with memory and time that their size bounds."""

import tracemalloc
from collections.abc import Iterable
from pathlib import Path

import pytest

from services.core.errors import DeadlineExceeded, RequestInvalid
from services.registry_gateway.adapters.sources.archives import opened_archive
from services.registry_gateway.adapters.sources.spool import Spool
from services.registry_gateway.progress import Stop
from tests.support.tars import END, archive, base256, entry, gnu_long, header, pax, record

MIB = 1 << 20


def indexed(directory: Path, parts: Iterable[bytes], stop: Stop | None = None) -> list[str]:
    """Returns the names of the files of an archive."""
    path = directory / "archive.tar"
    with path.open("wb") as file:
        file.writelines(parts)
    with opened_archive(path, Spool(directory), stop or Stop()) as members:
        return sorted(members.names())


def records(count: int) -> bytes:
    return b"".join(record(b"key%05d" % number, b"x") for number in range(count))


def test_a_global_header_is_not_kept_for_each_member(tmp_path: Path) -> None:
    bomb = [pax(raw=records(3500), kind=b"g"), *[header(b"member")] * 5000, END]

    tracemalloc.start()
    try:
        assert indexed(tmp_path, bomb) == ["member"]
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 8 * MIB


REFUSED = {
    "a large global header": [pax(raw=records(20_000), kind=b"g"), entry(b"f"), END],
    "global headers without end": [pax(raw=records(3000), kind=b"g")] * 100,
    "large headers for each member": [pax(raw=records(3000)), entry(b"f")] * 100,
    "long names for each member": [gnu_long(b"L", b"n" * 60_000), entry(b"f")] * 100,
    "a sparse file of 1 PiB": [
        header(
            b"f",
            kind=b"S",
            magic=b"ustar  \0",
            gnu=bytes(41) + base256(1 << 50, 12) + bytes(85) + base256(1 << 50, 12),
        ),
        END,
    ],
    "members without end": [header(b"f")] * 20_001,
    "a member that is cut off": [header(b"f", size=5000), bytes(1024)],
    "no archive": [b"text" * 1000],
}


@pytest.mark.parametrize("parts", REFUSED.values(), ids=REFUSED)
def test_what_costs_more_than_an_image_is_refused(tmp_path: Path, parts: list[bytes]) -> None:
    with pytest.raises(RequestInvalid, match=r"archive\.tar"):
        indexed(tmp_path, parts)


def test_reading_ends_when_nobody_waits_for_it(tmp_path: Path) -> None:
    stop = Stop()
    stop.set()

    with pytest.raises(DeadlineExceeded):
        indexed(tmp_path, [archive(entry(b"f", b"x"))], stop)


def test_members_are_found_where_they_lie(tmp_path: Path) -> None:
    path = tmp_path / "a.tar"
    long = b"d/" * 60 + b"name"
    path.write_bytes(
        archive(
            entry(b"./big", b"0123456789" * 30_000),
            pax((b"path", long)) + entry(b"short", b"in depth"),
            entry(b"link", kind=b"2", link=b"./big"),
        )
    )

    with opened_archive(path, Spool(tmp_path), Stop()) as members:
        assert sorted(members.names()) == ["big", long.decode()]
        for name, content in ((long.decode(), b"in depth"), ("link", b"0123456789" * 30_000)):
            source = members.get(name)
            assert source is not None
            with source.open() as file:
                assert file.read() == content
