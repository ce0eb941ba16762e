import io

import pytest
from lns.types.v1 import usage_pb2

from cli.context import Context
from cli.render.progress import BarReporter, LineReporter
from cli.render.writer import StatusLine, write_line

HOSTILE = "a\x1b[2J\x9b31m\u202eb\rc"
SHOWN = "a\\x1b[2J\\x9b31m\\u202eb\\rc"


@pytest.mark.parametrize("error", [False, True])
def test_whatever_is_written_steers_no_terminal(
    capsys: pytest.CaptureFixture[str], error: bool
) -> None:
    write_line(f"{HOSTILE}\tx\ny", mark=HOSTILE, error=error)

    streams = capsys.readouterr()
    assert (streams.out, streams.err)[error] == f"{SHOWN}{SHOWN}\tx\ny\n"
    assert (streams.err, streams.out)[error] == ""


def test_a_context_writes_by_the_writer(capsys: pytest.CaptureFixture[str]) -> None:
    context = Context(environment={})
    context.write(HOSTILE)
    context.note(HOSTILE)

    assert capsys.readouterr() == (f"{SHOWN}\n", f"{SHOWN}\n")


def test_a_status_line_is_one_line() -> None:
    stream = io.StringIO()
    line = StatusLine(stream)
    line.show(f"{HOSTILE}\nd")
    line.clear()

    assert stream.getvalue() == f"{SHOWN}\\nd\r\x1b[2K"


def test_progress_of_strangers_is_harmless(capsys: pytest.CaptureFixture[str]) -> None:
    stream = io.StringIO()
    for reporter in (
        LineReporter(Context(environment={})),
        BarReporter(Context(environment={}), stream),
    ):
        with reporter:
            reporter.doing(HOSTILE)
            reporter.note(HOSTILE)
            reporter.progress(
                usage_pb2.Progress(digest=HOSTILE, stage=usage_pb2.STAGE_DOWNLOADING, total_bytes=5)
            )

    written = "".join(capsys.readouterr()) + stream.getvalue()
    assert SHOWN[:10] in written
    assert "\x1b[2J" not in written
    assert not set("\x9b\u202e") & set(written)
