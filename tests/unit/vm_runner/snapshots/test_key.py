"""What the key of a snapshot stands for: everything that it depends on, and nothing of a run."""

import os
from dataclasses import replace
from pathlib import Path

import pytest

from services.vm_runner.channel.requests import GuestConfig
from services.vm_runner.snapshots.snapshot import Root, file_identity, snapshot_key

ROOT = Root(
    image_digest="sha256:" + "a" * 64,
    config=GuestConfig(hostname="", metadata_disk="meta", pack_disks=("pack0",)),
    writable_disk="writable",
    disks=(Path("/images/a.cfs"), Path("/layers/a")),
)
KEY = snapshot_key("fingerprint", ROOT, ("one", "two"))


@pytest.mark.parametrize(
    "other",
    [
        ("another fingerprint", ROOT, ("one", "two")),
        ("fingerprint", replace(ROOT, image_digest="sha256:" + "b" * 64), ("one", "two")),
        ("fingerprint", replace(ROOT, writable_disk="w"), ("one", "two")),
        ("fingerprint", ROOT, ("one", "replaced")),
        ("fingerprint", ROOT, ("two", "one")),
        ("fingerprint", ROOT, ("onetwo",)),
        (
            "fingerprint",
            replace(ROOT, config=replace(ROOT.config, no_acl=True)),
            ("one", "two"),
        ),
        (
            "fingerprint",
            replace(ROOT, config=replace(ROOT.config, read_only_paths=("/etc/agent",))),
            ("one", "two"),
        ),
    ],
    ids=["VMM", "image", "writable disk", "a file", "order", "bounds", "acl", "read-only paths"],
)
def test_whatever_a_snapshot_depends_on_changes_its_key(
    other: tuple[str, Root, tuple[str, ...]],
) -> None:
    assert snapshot_key(*other) != KEY


def test_equal_inputs_have_one_key() -> None:
    assert snapshot_key("fingerprint", replace(ROOT), ("one", "two")) == KEY


def test_a_file_that_was_replaced_or_written_to_has_another_identity(tmp_path: Path) -> None:
    file, other = tmp_path / "file", tmp_path / "other"
    file.write_text("content")
    other.write_text("content")
    before = file_identity(file)
    assert file_identity(file) == before

    other.rename(file)
    replaced = file_identity(file)
    file.write_text("longer content")

    assert len({before, replaced, file_identity(file)}) == 3

    written = file_identity(file)
    file.write_text("LONGER CONTENT")  # of the same length
    os.utime(file, ns=(0, file.stat().st_mtime_ns + 1))
    assert file_identity(file) != written
