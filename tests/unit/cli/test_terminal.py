import asyncio
import os
import pty
import signal
import struct
import termios
from collections.abc import Iterator
from fcntl import ioctl

import click
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cli.terminal import (
    DetachFilter,
    InputReader,
    Size,
    cancelled_by_signals,
    forwarded_signals,
    hidden,
    parse_detach_keys,
    raw_mode,
    resizes,
    terminal_size,
    write_all,
)
from services.core.errors import SettingsInvalid
from tests.support.eventually import eventually


@pytest.mark.parametrize(
    ("text", "keys"),
    [
        ("ctrl-p,ctrl-q", b"\x10\x11"),
        ("ctrl-],x", b"\x1dx"),
        ("a", b"a"),
        ("ctrl-@", b"\x00"),
        ("-", b"-"),
    ],
)
def test_detach_keys_are_written_as_dockers(text: str, keys: bytes) -> None:
    assert parse_detach_keys(text) == keys


@pytest.mark.parametrize("text", ["", "ctrl-", "ctrl-pp", "ctrl-P", "ab", "ctrl-1", "ä", "a,,b"])
def test_other_detach_keys_are_refused(text: str) -> None:
    with pytest.raises(SettingsInvalid):
        parse_detach_keys(text)


@pytest.mark.parametrize(
    ("pieces", "sent", "leaves"),
    [
        ([b"ab"], b"ab", False),
        ([b"a\x10\x11b"], b"a", True),
        ([b"a\x10", b"\x11"], b"a", True),
        ([b"a\x10", b"b"], b"a\x10b", False),
        ([b"\x10\x10\x11"], b"\x10", True),
        ([b"\x10"], b"", False),
    ],
)
def test_the_detach_keys_are_found_wherever_they_are_cut(
    pieces: list[bytes], sent: bytes, leaves: bool
) -> None:
    keys = DetachFilter(b"\x10\x11")
    results = [keys.feed(piece) for piece in pieces]

    assert b"".join(data for data, _ in results) == sent
    assert results[-1][1] is leaves


@given(st.lists(st.binary(max_size=8)), st.sampled_from([b"\x10\x11", b"x", b"aab", b"abab"]))
def test_nothing_that_is_typed_gets_lost(pieces: list[bytes], keys: bytes) -> None:
    detach = DetachFilter(keys)
    sent = b""
    for piece in pieces:
        data, leaves = detach.feed(piece)
        sent += data
        if leaves:
            break

    typed = b"".join(pieces)
    cut = typed.find(keys)
    if cut >= 0:
        assert sent == typed[:cut]
    else:
        held = typed[len(sent) :]
        assert sent + held == typed
        assert keys.startswith(held)
        assert len(held) < len(keys)


async def test_input_is_read_from_pipes_and_its_end_is_reported_once() -> None:
    readable, writable = os.pipe()
    reader = InputReader(readable)
    os.write(writable, b"one")
    first = await reader.next()
    os.close(writable)

    assert (first, await reader.next()) == (b"one", b"")
    reader._thread.join(5)
    os.close(readable)


async def test_input_of_a_slow_taker_stays_in_the_pipe() -> None:
    readable, writable = os.pipe()
    reader = InputReader(readable)
    os.set_blocking(writable, False)
    written = 0
    for _ in range(100):
        try:
            written += os.write(writable, b"x" * 65536)
        except BlockingIOError:
            await asyncio.sleep(0.01)

    assert written <= (4 + 1 + 1) * 65536
    os.set_blocking(writable, True)
    os.close(writable)
    taken = 0
    while piece := await reader.next():
        taken += len(piece)
    assert taken == written
    reader._thread.join(5)
    os.close(readable)


async def test_output_is_written_whole() -> None:
    readable, writable = os.pipe()
    data = os.urandom(1 << 20)
    writing = asyncio.ensure_future(write_all(writable, data))
    received = bytearray()
    while len(received) < len(data):
        received += await asyncio.to_thread(os.read, readable, 65536)
    await writing

    assert received == data
    os.close(readable)
    os.close(writable)


def test_a_hidden_terminal_shows_again_what_is_typed_also_after_a_failure() -> None:
    controller, terminal = pty.openpty()
    before = termios.tcgetattr(terminal)

    with pytest.raises(RuntimeError), hidden(terminal):
        assert not termios.tcgetattr(terminal)[3] & termios.ECHO
        raise RuntimeError

    assert termios.tcgetattr(terminal) == before
    os.close(controller)
    os.close(terminal)


def test_raw_mode_is_taken_back_also_after_a_failure() -> None:
    controller, terminal = pty.openpty()
    before = termios.tcgetattr(terminal)

    with pytest.raises(RuntimeError), raw_mode(terminal):
        assert not termios.tcgetattr(terminal)[3] & termios.ECHO
        raise RuntimeError

    assert termios.tcgetattr(terminal) == before
    os.close(controller)
    os.close(terminal)


def test_only_a_terminal_has_a_size() -> None:
    controller, terminal = pty.openpty()
    ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
    readable, writable = os.pipe()

    assert terminal_size(terminal) == Size(rows=24, columns=80)
    assert terminal_size(readable) is None
    for descriptor in (controller, terminal, readable, writable):
        os.close(descriptor)


async def test_signals_are_delivered_by_name_and_no_longer_afterwards() -> None:
    names: list[str] = []
    with forwarded_signals(names.append):
        os.kill(os.getpid(), signal.SIGUSR1)
        os.kill(os.getpid(), signal.SIGTERM)
        await eventually(lambda: len(names) == 2)

    assert sorted(names) == ["TERM", "USR1"]
    assert signal.getsignal(signal.SIGUSR1) is signal.SIG_DFL


async def test_a_new_size_is_delivered() -> None:
    controller, terminal = pty.openpty()
    sizes: list[Size] = []
    with resizes(terminal, sizes.append):
        ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", 50, 132, 0, 0))
        os.kill(os.getpid(), signal.SIGWINCH)
        await eventually(lambda: bool(sizes))

    assert sizes == [Size(rows=50, columns=132)]
    os.close(controller)
    os.close(terminal)


@pytest.fixture
def unignored() -> Iterator[None]:
    """SIGHUP as it is at a terminal, also when the tests run under nohup."""
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    yield
    signal.signal(signal.SIGHUP, before)


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGHUP, 129)])
@pytest.mark.usefixtures("unignored")
async def test_a_signal_cancels_what_can_be_taken_back(number: signal.Signals, code: int) -> None:
    taken_back = []

    async def work() -> None:
        with cancelled_by_signals():
            os.kill(os.getpid(), number)
            try:
                await asyncio.Event().wait()
            finally:
                taken_back.append(True)

    with pytest.raises(click.exceptions.Exit) as ended:
        await asyncio.ensure_future(work())

    assert ended.value.exit_code == code
    assert taken_back
    assert signal.getsignal(number) is signal.SIG_DFL


async def test_a_cancellation_without_a_signal_stays_one() -> None:
    async def work() -> None:
        with cancelled_by_signals():
            await asyncio.Event().wait()

    working = asyncio.ensure_future(work())
    await asyncio.sleep(0)
    working.cancel()

    with pytest.raises(asyncio.CancelledError):
        await working


@pytest.mark.usefixtures("unignored")
async def test_a_signal_that_is_ignored_remains_ignored_as_nohup_wants_it() -> None:
    names: list[str] = []
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    with forwarded_signals(names.append):
        os.kill(os.getpid(), signal.SIGHUP)
        os.kill(os.getpid(), signal.SIGUSR1)
        await eventually(lambda: bool(names))
    assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN

    assert names == ["USR1"]
