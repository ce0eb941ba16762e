"""Log lines: one configuration for a process, one form for all of them.

Events are constant `snake_case` names, everything else is a field; no secrets, no blob bytes. Lines
of the standard library's loggers, hence of installed packages, take the same form.
"""

import logging
import sys
import traceback
from typing import TextIO

import structlog

from services.chassis.settings import LogFormat, LogSettings
from services.core.text import printable


def configure(settings: LogSettings, *, stream: TextIO | None = None) -> None:
    """Sets up logging for the whole process, to standard error unless a stream is given."""
    stream = stream or sys.stderr
    level = logging.getLevelNamesMapping()[settings.level.upper()]
    shared: list[structlog.typing.Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_logger_name,
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    handler = logging.StreamHandler(stream)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[*shared, structlog.stdlib.PositionalArgumentsFormatter()],
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                *_renderers(settings.format, stream),
            ],
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level)
    # The libraries below log every request of theirs, addresses and headers included.
    for noisy in ("urllib3", "requests", "asyncio"):
        logging.getLogger(noisy).setLevel(max(level, logging.WARNING))
    structlog.configure(
        processors=[*shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=structlog.stdlib.LoggerFactory(),
        cache_logger_on_first_use=True,
    )


def _renderers(form: LogFormat, stream: TextIO) -> list[structlog.typing.Processor]:
    if form is LogFormat.CONSOLE or (form is LogFormat.AUTO and stream.isatty()):
        return [
            _made_printable,
            structlog.dev.ConsoleRenderer(
                colors=stream.isatty(), exception_formatter=_write_traceback
            ),
        ]
    # Local variables may hold secrets, so tracebacks go without.
    transformer = structlog.tracebacks.ExceptionDictTransformer(show_locals=False)
    return [
        structlog.processors.ExceptionRenderer(transformer),
        structlog.processors.JSONRenderer(),
    ]


def _made_printable(
    _logger: object, _method: str, event: structlog.typing.EventDict
) -> structlog.typing.EventDict:
    """Foreign text of a log line steers no terminal; the JSON lines escape it anyway."""
    return {
        key: printable(value) if isinstance(value, str) else value for key, value in event.items()
    }


def _write_traceback(output: TextIO, failure: structlog.typing.ExcInfo) -> None:
    lines = traceback.format_exception(*failure)
    output.write("\n" + printable("".join(lines), keep="\n").rstrip("\n"))
