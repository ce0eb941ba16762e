"""Progress on standard error: bars on a terminal, plain lines elsewhere."""

import contextlib
from collections.abc import Iterator
from types import TracebackType
from typing import TYPE_CHECKING, Protocol, Self, TextIO

from lns.types.v1 import usage_pb2

from cli.context import Context
from cli.render.text import format_size, printable, short_id
from cli.render.writer import StatusLine

if TYPE_CHECKING:
    from rich.progress import Progress as Bars
    from rich.progress import TaskID

_MOVING = {
    usage_pb2.STAGE_DOWNLOADING: "downloading",
    usage_pb2.STAGE_UPLOADING: "uploading",
    usage_pb2.STAGE_UNPACKING: "unpacking",
    usage_pb2.STAGE_RETRYING: "trying again",
}
_ENDED = {
    usage_pb2.STAGE_DONE: "done",
    usage_pb2.STAGE_MOUNTED: "mounted from another repository",
}


class Reporter(Protocol):
    """Shows a person what is going on. A context manager: afterwards the terminal is as before."""

    def __enter__(self) -> Self:
        """Begins to show."""
        ...

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Takes away what is not meant to stay."""
        ...

    def doing(self, what: str) -> None:
        """Says what happens now: `pulling localhost:5000/images/base`."""
        ...

    def progress(self, progress: usage_pb2.Progress) -> None:
        """Says how far one blob or layer is."""
        ...

    def note(self, text: str) -> None:
        """Shows a line that stays."""
        ...


def open_reporter(context: Context, stream: TextIO, *, quiet: bool = False) -> Reporter:
    """Returns the reporter that fits where `stream` goes."""
    if quiet:
        return SilentReporter(context)
    return BarReporter(context, stream) if stream.isatty() else LineReporter(context)


class SilentReporter:
    """Shows notes only."""

    def __init__(self, context: Context) -> None:
        self._context = context

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        pass

    def doing(self, what: str) -> None:
        """Shows nothing."""

    def progress(self, progress: usage_pb2.Progress) -> None:
        """Shows nothing."""

    def note(self, text: str) -> None:
        """Writes the line."""
        self._context.note(printable(text))


class LineReporter(SilentReporter):
    """A line when a blob starts to move and one when it has arrived; none for stored blobs."""

    def __init__(self, context: Context) -> None:
        super().__init__(context)
        self._moving: dict[str, int] = {}

    def progress(self, progress: usage_pb2.Progress) -> None:
        """Writes a line if the stage is a new one."""
        shown = printable(short_id(progress.digest))
        stage = progress.stage
        if stage in _MOVING and self._moving.get(progress.digest) != stage:
            self._moving[progress.digest] = stage
            size = f" {format_size(progress.total_bytes)}" if progress.total_bytes else ""
            self.note(f"{shown} {_MOVING[stage]}{size}")
        elif stage in _ENDED and self._moving.pop(progress.digest, None) is not None:
            self.note(f"{shown} {_ENDED[stage]}")


class BarReporter(SilentReporter):
    """A bar for each blob that moves, and below them what is going on. All of it vanishes.

    Most commands find everything in the store, so that the bars' library is only imported when
    something moves.
    """

    def __init__(self, context: Context, stream: TextIO) -> None:
        super().__init__(context)
        self._stream = stream
        self._status = StatusLine(stream)
        self._bars: Bars | None = None
        self._tasks: dict[str, TaskID] = {}
        self._line = ""

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._clear()
        self._line = ""
        if self._bars is not None:
            self._bars.stop()

    def doing(self, what: str) -> None:
        """Replaces the line that says what happens now."""
        with self._replaced():
            self._line = f"{what} …" if what else ""

    def note(self, text: str) -> None:
        """Writes the line above the bars."""
        with self._replaced():
            super().note(text)

    def progress(self, progress: usage_pb2.Progress) -> None:
        """Moves the bar of a blob, makes it, or completes it."""
        if progress.stage in _MOVING:
            self._move(progress)
        elif progress.digest in self._tasks and self._bars is not None:
            task = self._tasks.pop(progress.digest)
            total = progress.total_bytes or progress.done_bytes or 1
            self._bars.update(task, completed=total, total=total)

    def _move(self, progress: usage_pb2.Progress) -> None:
        if self._bars is None:
            self._clear()
            self._bars = _make_bars(self._stream)
            self._bars.start()
        name = f"{printable(short_id(progress.digest))} {_MOVING[progress.stage]}"
        task = self._tasks.get(progress.digest)
        if task is None:
            task = self._tasks[progress.digest] = self._bars.add_task(name)
        self._bars.update(
            task,
            description=name,
            completed=progress.done_bytes,
            total=progress.total_bytes or None,
        )

    @contextlib.contextmanager
    def _replaced(self) -> Iterator[None]:
        self._clear()
        yield
        if self._line and self._bars is None:
            self._status.show(self._line)

    def _clear(self) -> None:
        if self._bars is None and self._line:
            self._status.clear()


def _make_bars(stream: TextIO) -> "Bars":
    from rich.console import Console  # noqa: PLC0415 - see BarReporter
    from rich.progress import (  # noqa: PLC0415 - see BarReporter
        BarColumn,
        DownloadColumn,
        Progress,
        TextColumn,
        TransferSpeedColumn,
    )

    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        DownloadColumn(),
        TransferSpeedColumn(),
        console=Console(file=stream),
        transient=True,
    )
