"""Stores in SQLite: every version of a layout is brought up to date, every failure is typed."""

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from services.chassis.databases import Database, open_database
from services.core.digest import Digest
from services.core.errors import CapacityExhausted, ContentCorrupt, SettingsInvalid
from services.core.reference import Reference
from services.materializer.adapters.catalogue import Catalogue
from services.registry_gateway.adapters.store.sqlite_index import SqliteIndex

STATE = Path(__file__).parents[2] / "data" / "state"
DIGEST = Digest("sha256:" + "ab" * 32)
FIRST = "CREATE TABLE things (name TEXT PRIMARY KEY) STRICT;"
SECOND = "ALTER TABLE things ADD COLUMN size INTEGER NOT NULL DEFAULT 7;"


def opened(path: Path, *layouts: str) -> Database:
    return open_database(path, what="the things", layouts=layouts)


def restored(tmp_path: Path, name: str) -> Path:
    """Returns a file as the first released layout left it."""
    path = tmp_path / "first.sqlite"
    with closing(sqlite3.connect(path)) as database:
        database.executescript((STATE / name).read_text())
    return path


@pytest.fixture
def full(tmp_path: Path) -> Iterator[Database]:
    """A database whose disk is full: SQLite has one bound for both."""
    with closing(opened(tmp_path / "things", FIRST)) as database:
        (pages,) = database.execute("PRAGMA page_count").fetchone()
        database.execute(f"PRAGMA max_page_count = {pages}")
        yield database


def test_a_file_of_an_earlier_layout_is_brought_up_to_date_with_what_it_has(tmp_path: Path) -> None:
    with closing(opened(tmp_path / "things", FIRST)) as database:
        database.execute("INSERT INTO things VALUES ('a')")
    with closing(opened(tmp_path / "things", FIRST, SECOND)) as database:
        assert database.execute("SELECT * FROM things").fetchall() == [("a", 7)]
    with closing(opened(tmp_path / "things", FIRST, SECOND)) as database:
        assert database.execute("PRAGMA user_version").fetchone() == (2,)


def test_a_step_that_fails_leaves_the_file_as_it_was(tmp_path: Path) -> None:
    opened(tmp_path / "things", FIRST).close()

    with pytest.raises(sqlite3.OperationalError):
        opened(tmp_path / "things", FIRST, f"{SECOND} NONSENSE;")
    with closing(opened(tmp_path / "things", FIRST, SECOND)) as database:
        database.execute("INSERT INTO things (name) VALUES ('a')")


def test_a_file_of_a_newer_lns_is_refused_in_words(tmp_path: Path) -> None:
    opened(tmp_path / "things", FIRST, SECOND).close()

    with pytest.raises(SettingsInvalid, match=r"things, the things, was written by a newer lns"):
        opened(tmp_path / "things", FIRST)


def test_what_is_no_database_or_cannot_be_opened_is_said(tmp_path: Path) -> None:
    (tmp_path / "noise").write_bytes(b"noise" * 1000)

    with pytest.raises(ContentCorrupt, match="is damaged") as caught:
        opened(tmp_path / "noise", FIRST)
    with pytest.raises(SettingsInvalid, match="cannot be opened"):
        opened(tmp_path / "missing" / "things", FIRST)

    assert "made anew" in caught.value.hint


def test_a_full_disk_is_typed_and_leaves_nothing_half_done(full: Database) -> None:
    def much(database: Database) -> None:
        database.execute("INSERT INTO things VALUES ('little')")
        database.execute("INSERT INTO things VALUES (?)", ("x" * 100_000,))

    for _ in range(2):  # the failure of the first does not break the second
        with pytest.raises(CapacityExhausted, match="no room for the things"):
            full.transaction(much)

    assert full.execute("SELECT count(*) FROM things").fetchone() == (0,)


async def test_the_index_of_the_first_layout_is_read(tmp_path: Path) -> None:
    with closing(SqliteIndex(restored(tmp_path, "gateway-index-1.sql"))) as index:
        tag = await index.get_tag("h.example/a:v")
        origins = await index.origins(DIGEST, "h.example")
        await index.add_origin([DIGEST], Reference.parse("h.example/b:v"))

    assert tag is not None
    assert (tag.root.digest, tag.family, tag.total_bytes) == (DIGEST, "agent", 9)
    assert list(origins) == ["a"]


def test_the_catalogue_of_the_first_layout_is_read(tmp_path: Path) -> None:
    with closing(Catalogue(restored(tmp_path, "catalogue-1.sql"))) as catalogue:
        found = catalogue.made_by("key")
        catalogue.release("l1")

    assert found is not None
    assert (found.image_digest, found.inode_count) == (DIGEST, 3)
