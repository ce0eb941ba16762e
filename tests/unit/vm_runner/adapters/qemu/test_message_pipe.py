"""What a VMM says: bounded, kept across services, kept behind its end."""

import os
import select
from pathlib import Path

import pytest

from services.vm_runner.adapters.qemu.message_pipe import LOG_FILE, PIPE, MessagePipe, printable
from tests.support.eventually import eventually


def test_what_is_written_can_be_read_again_and_again(tmp_path: Path) -> None:
    pipe = MessagePipe(tmp_path)
    with pipe.create() as writer:
        os.write(writer, b"one\n")
        assert pipe.read() == "one"
        os.write(writer, b"two\n")
        assert pipe.read() == "one\ntwo"
    assert pipe.read() == "one\ntwo"
    pipe.close()


def test_a_flood_is_cut_off_and_blocks_nobody(tmp_path: Path) -> None:
    pipe = MessagePipe(tmp_path)
    with pipe.create() as writer, pytest.raises(BlockingIOError):
        while True:
            os.write(writer, b"flood " * 1000)

    assert 0 < len(pipe.read()) <= 8000
    pipe.close()
    assert (tmp_path / LOG_FILE).stat().st_size <= 8001


def test_a_later_service_reads_what_the_earlier_one_did_not(tmp_path: Path) -> None:
    with MessagePipe(tmp_path).create() as writer:
        os.write(writer, b"unread\n")
        later = MessagePipe(tmp_path)
        later.open()

        assert later.read() == "unread"
        later.close()


def test_the_end_leaves_a_file_for_readers_and_no_pipe(tmp_path: Path) -> None:
    pipe = MessagePipe(tmp_path)
    with pipe.create() as writer:
        os.write(writer, b"qemu: failed\n")
    pipe.close()
    pipe.close()

    assert (tmp_path / LOG_FILE).read_text() == "qemu: failed\n"
    assert not (tmp_path / PIPE).exists()


def test_silence_leaves_no_file(tmp_path: Path) -> None:
    pipe = MessagePipe(tmp_path)
    with pipe.create():
        pass
    pipe.close()

    assert list(tmp_path.iterdir()) == []


def test_without_a_pipe_there_are_no_messages(tmp_path: Path) -> None:
    pipe = MessagePipe(tmp_path)
    pipe.open()

    assert pipe.read() == ""
    pipe.close()


def test_a_new_boot_begins_a_new_pipe(tmp_path: Path) -> None:
    first = MessagePipe(tmp_path)
    with first.create() as writer:
        os.write(writer, b"old\n")
        second = MessagePipe(tmp_path)
        with second.create() as newer:
            os.write(newer, b"new\n")
            assert second.read() == "new"
    first.close()
    second.close()


def test_bytes_that_are_no_text_are_shown_all_the_same(tmp_path: Path) -> None:
    pipe = MessagePipe(tmp_path)
    with pipe.create() as writer:
        os.write(writer, b"\xff\xfe bad\n")

    assert pipe.read().endswith("bad")
    pipe.close()


async def test_what_is_watched_never_fills(tmp_path: Path) -> None:
    pipe = MessagePipe(tmp_path)
    with pipe.create() as writer:
        pipe.watch()
        for number in range(100):
            await eventually(lambda: has_room(writer))
            os.write(writer, b"%4000d\n" % number)
        await eventually(lambda: pipe.read().endswith("99"))
    await eventually(lambda: pipe._loop is None)  # nobody can write any more
    pipe.close()

    assert (tmp_path / LOG_FILE).read_text().endswith("99\n")


def has_room(descriptor: int) -> bool:
    return bool(select.select([], [descriptor], [], 0)[1])


@pytest.mark.parametrize(
    ("said", "shown"),
    [
        (b"one\r\ntwo\n", "one\ntwo"),
        (b"\x1b[2J\x1b[1;1H\x1bcBooting\x1b[?7l from ROM\n", "Booting from ROM"),
        (b"a\x07b\x00c\rd", "a\ufffdb\ufffdc\ufffdd"),
        (b"\x9b31m", "\ufffd31m"),
        (b"\xc2\x9b31mred", "\ufffd31mred"),
        ("\u202egnp.exe".encode(), "\ufffdgnp.exe"),
        (b"cut \x1b[31", "cut 31"),
        (b"cut \x1b", "cut \ufffd"),
        (b"\ttab kept", "tab kept"),
    ],
)
def test_nothing_of_a_guest_moves_a_terminal(said: bytes, shown: str) -> None:
    assert printable(said) == shown
