import io
import json
import logging
from collections.abc import Iterator

import pytest
import structlog

from services.chassis import logs
from services.chassis.settings import LogFormat, LogLevel, LogSettings


@pytest.fixture
def stream() -> Iterator[io.StringIO]:
    """A stream that takes the log of the process during the test."""
    before = structlog.get_config()
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield io.StringIO()
    root.handlers[:] = handlers
    root.setLevel(level)
    for name in ("urllib3", "requests", "asyncio"):
        logging.getLogger(name).setLevel(logging.NOTSET)
    structlog.configure(**before)


def lines(stream: io.StringIO) -> list[dict[str, object]]:
    return [json.loads(line) for line in stream.getvalue().splitlines()]


def test_our_lines_and_those_of_others_have_one_form(stream: io.StringIO) -> None:
    logs.configure(LogSettings(), stream=stream)

    structlog.get_logger("ours").info("blob_pulled", size_bytes=3)
    logging.getLogger("theirs").warning("retrying %s", "x")

    ours, theirs = lines(stream)
    assert ours.keys() - theirs.keys() == {"size_bytes"}
    assert (ours["event"], ours["level"], ours["logger"]) == ("blob_pulled", "info", "ours")
    assert (theirs["event"], theirs["level"]) == ("retrying x", "warning")
    assert str(ours["timestamp"]).endswith("Z")


def test_what_is_bound_to_the_context_is_on_every_line(stream: io.StringIO) -> None:
    logs.configure(LogSettings(), stream=stream)

    with structlog.contextvars.bound_contextvars(request_id="r"):
        structlog.get_logger().info("a")
        logging.getLogger("theirs").warning("b")

    assert [line["request_id"] for line in lines(stream)] == ["r", "r"]


def test_a_traceback_has_no_local_variables(stream: io.StringIO) -> None:
    """They may hold a password."""
    logs.configure(LogSettings(), stream=stream)
    password = "hunter2"

    try:
        int("x" * len(password))
    except ValueError:
        structlog.get_logger().exception("failed")

    (line,) = lines(stream)
    assert line["exception"][0]["exc_type"] == "ValueError"  # type: ignore[index]  # JSON
    assert password not in stream.getvalue()


def test_lines_below_the_level_are_not_written(stream: io.StringIO) -> None:
    logs.configure(LogSettings(level=LogLevel.WARNING), stream=stream)

    structlog.get_logger().info("a")
    logging.getLogger("theirs").info("b")
    structlog.get_logger().warning("c")

    assert [line["event"] for line in lines(stream)] == ["c"]


def test_the_console_form_is_for_eyes(stream: io.StringIO) -> None:
    logs.configure(LogSettings(format=LogFormat.CONSOLE), stream=stream)

    structlog.get_logger().info("blob_pulled", size_bytes=3)

    assert "blob_pulled" in stream.getvalue()
    assert "size_bytes=3" in stream.getvalue()


def test_foreign_text_of_the_console_form_steers_no_terminal(stream: io.StringIO) -> None:
    logs.configure(LogSettings(format=LogFormat.CONSOLE), stream=stream)

    try:
        int("\x9b31m\u202e raised")
    except ValueError:
        structlog.get_logger().exception("failed", said="\x9b31m", all=["\x1b[2J"])
    logging.getLogger("theirs").warning("said %s", "\x1b[2J")

    assert "Error" in stream.getvalue()
    assert not set("\x9b\u202e\x1b") & set(stream.getvalue())
