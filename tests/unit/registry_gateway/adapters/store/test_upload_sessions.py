"""Uploads under way are remembered for a week, and never trusted."""

import json
from pathlib import Path

import pytest

from services.registry_gateway.adapters.store.upload_sessions import UploadSessionFiles
from services.registry_gateway.ports import UploadSession

DAY = 24 * 3600.0
KEY = "registry.example/team/app@sha256:00"
SESSION = UploadSession(location="https://registry.example/v2/uploads/1", offset=7)


class Clock:
    """Seconds since the epoch, moved by hand."""

    def __init__(self) -> None:
        self.seconds = 1_000_000.0

    def __call__(self) -> float:
        return self.seconds


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def sessions(tmp_path: Path, clock: Clock) -> UploadSessionFiles:
    return UploadSessionFiles(directory=tmp_path / "uploads", now=clock)


def only_file(sessions: UploadSessionFiles) -> Path:
    (path,) = sessions.directory.iterdir()
    return path


def test_another_process_goes_on_where_the_first_one_was(sessions: UploadSessionFiles) -> None:
    sessions.save(KEY, SESSION)

    another = UploadSessionFiles(directory=sessions.directory, now=sessions.now)
    assert another.load(KEY) == SESSION
    assert sessions.load("registry.example/team/app@sha256:01") is None


def test_a_file_of_one_upload_is_not_taken_for_another(sessions: UploadSessionFiles) -> None:
    sessions.save(KEY, SESSION)
    path = only_file(sessions)
    path.write_text(path.read_text().replace("team/app", "team/other"))

    assert sessions.load(KEY) is None


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "[]",
        "null",
        '{"key": 1}',
        json.dumps({"key": KEY, "time": "soon", "location": "x", "offset": 1}),
        json.dumps({"key": KEY, "time": 1_000_000, "location": "x", "offset": "far"}),
        json.dumps({"key": KEY, "time": 1_000_000, "location": "x" * 70_000, "offset": 1}),
    ],
    ids=["empty", "cut", "list", "null", "other key", "no time", "no number", "too long"],
)
def test_a_file_that_is_not_one_begins_the_blob_anew(
    sessions: UploadSessionFiles, text: str
) -> None:
    sessions.save(KEY, SESSION)
    only_file(sessions).write_text(text)

    assert sessions.load(KEY) is None
    sessions.save(KEY, SESSION)
    assert sessions.load(KEY) == SESSION


def test_an_upload_is_forgotten_after_a_week(sessions: UploadSessionFiles, clock: Clock) -> None:
    sessions.save(KEY, SESSION)
    clock.seconds += 7 * DAY
    assert sessions.load(KEY) == SESSION
    clock.seconds += 1
    assert sessions.load(KEY) is None


def test_sweeping_removes_old_files_and_no_others(
    sessions: UploadSessionFiles, clock: Clock
) -> None:
    sessions.sweep()  # before anything was begun
    sessions.save(KEY, SESSION)
    clock.seconds = only_file(sessions).stat().st_mtime + 7 * DAY

    sessions.sweep()
    assert sessions.directory.joinpath(only_file(sessions).name).exists()
    clock.seconds += 1
    sessions.sweep()

    assert list(sessions.directory.iterdir()) == []


def test_a_dropped_upload_is_gone_and_may_be_dropped_again(sessions: UploadSessionFiles) -> None:
    sessions.save(KEY, SESSION)
    sessions.drop(KEY)
    sessions.drop(KEY)

    assert sessions.load(KEY) is None


def test_only_the_owner_reads_what_is_kept(sessions: UploadSessionFiles) -> None:
    sessions.save(KEY, SESSION)

    assert sessions.directory.stat().st_mode & 0o777 == 0o700
    assert only_file(sessions).stat().st_mode & 0o777 == 0o600
