"""Tests that may do to their machine what they want."""

from lns.client import SyncRun


def test_a_program_may_remove_everything(lns_run: SyncRun) -> None:
    done = lns_run.exec("python3", "-c", "import shutil; shutil.rmtree('/usr/share')")

    assert done.ok
    assert not lns_run.exec("test", "-e", "/usr/share").ok
