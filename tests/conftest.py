"""What tests of every tier may ask for."""

import gc
import os
import shutil
import signal
import tempfile
from collections.abc import Generator, Iterator
from pathlib import Path

import pytest
import structlog
from hypothesis import HealthCheck, settings
from structlog.testing import LogCapture

from tests.support.artifacts import keep_logs

# How long an example takes says nothing on a machine that does other things too.
settings.register_profile("lns", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("lns")


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, object, object]:
    """Keeps the collector of garbage away from what pytest collects, which lives to its end."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.freeze()
        gc.enable()


def pytest_configure() -> None:
    """Hears the signals of a terminal also when started by `nohup` or behind `&`.

    Whoever starts pytest so has them ignored, and so would every process that a test starts.
    """
    for number, handler in (
        (signal.SIGHUP, signal.SIG_DFL),
        (signal.SIGINT, signal.default_int_handler),
        (signal.SIGQUIT, signal.SIG_DFL),
    ):
        if signal.getsignal(number) is signal.SIG_IGN:
            signal.signal(number, handler)


@pytest.fixture
def short_directory() -> Iterator[Path]:
    """An empty private directory with a path short enough for unix sockets."""
    directory = Path(tempfile.mkdtemp(prefix="lns", dir="/tmp"))
    yield directory
    shutil.rmtree(directory)


@pytest.fixture
def log_entries() -> Iterator[list[dict[str, object]]]:
    """The structured log of the test, one dictionary an entry, context variables included."""
    before = structlog.get_config()
    capture = LogCapture()
    structlog.configure(
        processors=[structlog.contextvars.merge_contextvars, capture],
        wrapper_class=structlog.make_filtering_bound_logger(0),
        cache_logger_on_first_use=False,
    )
    structlog.contextvars.clear_contextvars()
    yield capture.entries  # type: ignore[misc]  # mutable mappings are dictionaries here
    structlog.contextvars.clear_contextvars()
    structlog.configure(**before)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item,
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Keeps the logs of the services and runs that a failed test used."""
    report = yield
    if report.failed:
        values = getattr(item, "funcargs", {}).values()
        homes = {home for value in values if isinstance(home := getattr(value, "home", None), Path)}
        keep_logs(item.nodeid, sorted(homes))
    return report


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Fails a run in CI that skipped anything: set-up has to bring what the tests need."""
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    if os.environ.get("CI") and reporter and reporter.stats.get("skipped"):
        reporter.write_line("tests were skipped in CI, where none may be", red=True)
        session.exitstatus = pytest.ExitCode.TESTS_FAILED
