"""Stores of a service in SQLite: opened, brought up to date, and their failures typed.

The layout of a file is `user_version`; the scripts that brought it there, one a version, stay in
the code for good, so that a file of any earlier version is brought up to date when it is opened.
"""

import sqlite3
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

from services.chassis.reserve import exhausted, free_bytes
from services.core.errors import ContentCorrupt, Internal, LnsError, SettingsInvalid

_PRIMARY = 0xFF
_FULL_BYTES = 1 << 20

T = TypeVar("T")


class Database(sqlite3.Connection):
    """A connection whose failures say what a person can do about them.

    `execute` and its like raise CapacityExhausted where the disk is full, ContentCorrupt where the
    file is damaged, Internal where the disk fails; other errors of sqlite3 are defects.
    """

    path: Path
    what: str

    def execute(self, *arguments: Any) -> sqlite3.Cursor:
        """As sqlite3's."""
        with self._typed():
            return super().execute(*arguments)

    def executemany(self, *arguments: Any) -> sqlite3.Cursor:
        """As sqlite3's."""
        with self._typed():
            return super().executemany(*arguments)

    def executescript(self, *arguments: Any) -> sqlite3.Cursor:
        """As sqlite3's."""
        with self._typed():
            return super().executescript(*arguments)

    def transaction(self, work: Callable[["Database"], T]) -> T:
        """Does several things or none of them; returns what `work` returns."""
        self.execute("BEGIN IMMEDIATE")
        try:
            result = work(self)
            self.execute("COMMIT")
        except BaseException:
            if self.in_transaction:  # a full disk has it ended by SQLite itself
                self.execute("ROLLBACK")
            raise
        return result

    @contextmanager
    def _typed(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.DatabaseError as error:
            typed = _typed(error, self.path, self.what)
            if typed is None:
                raise
            raise typed from error


def open_database(path: Path, *, what: str, layouts: Sequence[str]) -> Database:
    """Opens or makes a file, with the newest layout.

    Args:
        path: of the file; its folder exists.
        what: it holds, as an error names it: `the index of the store`.
        layouts: for each version, the statements that make it of the one before, from nothing on.

    Raises:
        SettingsInvalid: it was written by a newer lns, or cannot be opened.
        CapacityExhausted: the disk is full.
        ContentCorrupt: it is no database, or damaged.
    """
    try:
        database = sqlite3.connect(
            path, check_same_thread=False, isolation_level=None, factory=Database
        )
    except sqlite3.DatabaseError as error:
        raise _typed(error, path, what) or _unopened(error, path, what) from error
    database.path, database.what = path, what
    try:
        database.execute("PRAGMA journal_mode = WAL")
        database.execute("PRAGMA synchronous = NORMAL")
        _bring_up_to_date(database, layouts)
    except BaseException:
        database.close()
        raise
    return database


def _bring_up_to_date(database: Database, layouts: Sequence[str]) -> None:
    (version,) = database.execute("PRAGMA user_version").fetchone()
    if version > len(layouts):
        raise SettingsInvalid(
            f"{database.path}, {database.what}, was written by a newer lns (version {version};"
            f" this one knows {len(layouts)})",
            hint="use that lns, or another state directory (`LNS_HOME`)",
            metadata={"path": str(database.path)},
        )
    for number, script in enumerate(layouts[version:], version + 1):
        try:
            database.executescript(f"BEGIN; {script} PRAGMA user_version = {number}; COMMIT;")
        except BaseException:
            if database.in_transaction:
                database.execute("ROLLBACK")
            raise


def _typed(error: sqlite3.DatabaseError, path: Path, what: str) -> LnsError | None:
    code = getattr(error, "sqlite_errorcode", 0) & _PRIMARY
    if code == sqlite3.SQLITE_FULL or (code == sqlite3.SQLITE_IOERR and _is_full(path)):
        return exhausted(path.parent, what=what)
    if code in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB):
        return ContentCorrupt(
            f"{path}, {what}, is damaged: {error}",
            hint="put a copy in its place, or move it away: it is made anew, empty",
            metadata={"path": str(path)},
        )
    if code in (sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_READONLY):
        return _unopened(error, path, what)
    if code == sqlite3.SQLITE_IOERR:
        return Internal(
            f"{path}, {what}, cannot be used: {error}",
            hint="check the disk; the kernel's log may say more",
        )
    return None


def _unopened(error: sqlite3.DatabaseError, path: Path, what: str) -> SettingsInvalid:
    return SettingsInvalid(
        f"{path}, {what}, cannot be opened: {error}",
        hint="check the permissions of the state directory (`LNS_HOME`)",
        metadata={"path": str(path)},
    )


def _is_full(path: Path) -> bool:
    try:
        return free_bytes(path.parent) < _FULL_BYTES
    except OSError:
        return False
