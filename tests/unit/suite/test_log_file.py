import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from services.suite.log_file import LogFile


@pytest.fixture
def descriptors(tmp_path: Path) -> Iterator[tuple[int, int]]:
    """Two descriptors that write to `tmp_path/log`, as 1 and 2 do in the suite."""
    first = os.open(tmp_path / "log", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    second = os.dup(first)
    yield first, second
    os.close(first)
    os.close(second)


def write(descriptor: int, text: str) -> None:
    os.write(descriptor, text.encode())


def test_a_full_file_is_set_aside_and_both_descriptors_go_on(
    tmp_path: Path, descriptors: tuple[int, int]
) -> None:
    log = LogFile(tmp_path / "log", limit=4, kept=2, descriptors=descriptors)
    write(descriptors[0], "first")

    assert log.rotate()
    write(descriptors[0], "a")
    write(descriptors[1], "b")

    assert (tmp_path / "log.1").read_text() == "first"
    assert (tmp_path / "log").read_text() == "ab"
    assert (tmp_path / "log").stat().st_mode & 0o777 == 0o600


def test_a_file_below_the_limit_stays(tmp_path: Path, descriptors: tuple[int, int]) -> None:
    log = LogFile(tmp_path / "log", limit=6, kept=2, descriptors=descriptors)
    write(descriptors[0], "first")

    assert not log.rotate()
    assert [path.name for path in tmp_path.iterdir()] == ["log"]


def test_only_so_many_older_files_are_kept(tmp_path: Path, descriptors: tuple[int, int]) -> None:
    log = LogFile(tmp_path / "log", limit=1, kept=2, descriptors=descriptors)
    for text in ("one", "two", "three", "four"):
        write(descriptors[0], text)
        log.rotate()

    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == {
        "log": "",
        "log.1": "four",
        "log.2": "three",
    }


def test_another_process_follows_a_file_that_was_set_aside(
    tmp_path: Path, descriptors: tuple[int, int]
) -> None:
    other = os.open(tmp_path / "log", os.O_WRONLY | os.O_APPEND)
    try:
        log = LogFile(tmp_path / "log", limit=4, kept=2, descriptors=descriptors)
        follower = LogFile(tmp_path / "log", limit=4, kept=2, descriptors=(other,), rotates=False)
        assert not follower.follow()
        write(other, "first")
        log.rotate()
        write(other, " late")

        assert follower.follow()
        write(other, "new")

        assert (tmp_path / "log.1").read_text() == "first late"
        assert (tmp_path / "log").read_text() == "new"
        assert not follower.follow()
    finally:
        os.close(other)


def test_a_terminal_is_never_rotated(tmp_path: Path) -> None:
    readable, writable = os.pipe()
    (tmp_path / "log").write_text("someone else's")

    assert not LogFile(tmp_path / "log", limit=1, kept=1, descriptors=(writable,)).rotate()
    assert not LogFile(tmp_path / "none", limit=1, kept=1, descriptors=(writable,)).rotate()
    os.close(readable)
    os.close(writable)


async def test_a_file_is_rotated_while_it_is_in_use(
    tmp_path: Path, descriptors: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    from tests.support.eventually import eventually  # noqa: PLC0415 - only here

    monkeypatch.setattr("services.suite.log_file._CHECK_SECONDS", 0.001)
    log = LogFile(tmp_path / "log", limit=3, kept=1, descriptors=descriptors)
    async with log.rotated():
        write(descriptors[1], "late")
        await eventually((tmp_path / "log.1").exists)

    assert (tmp_path / "log.1").read_text() == "late"


async def test_an_error_of_the_block_stays_what_it_is(tmp_path: Path) -> None:
    with pytest.raises(KeyError):
        async with LogFile(tmp_path / "log", limit=1, kept=1).rotated():
            raise KeyError
