"""What a VMM says: bounded, kept across services, kept behind its end."""

import os
from pathlib import Path

import pytest

from services.vm_runner.adapters.qemu.message_pipe import LOG_FILE, PIPE, MessagePipe


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

    assert 0 < len(pipe.read()) <= 4000
    pipe.close()
    assert (tmp_path / LOG_FILE).stat().st_size <= 4001


def test_a_later_service_reads_what_the_earlier_one_did_not(tmp_path: Path) -> None:
    with MessagePipe(tmp_path).create() as writer:
        os.write(writer, b"unread\n")
        later = MessagePipe(tmp_path)
        later.open()

        assert later.read() == "unread"
        later.close()


def test_the_end_leaves_a_file_for_people_and_no_pipe(tmp_path: Path) -> None:
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
