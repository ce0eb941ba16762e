"""What the suite's settings say to one service about another."""

from pathlib import Path

from services.chassis.settings_tree import load
from services.suite.settings import SuiteProcess, of_runner


def test_the_runner_hears_which_registries_are_believed_without_tls(tmp_path: Path) -> None:
    environment = {
        "HOME": str(tmp_path),
        "LNS_HOME": str(tmp_path),
        "LNS_REGISTRY_PLAIN_HTTP": "192.168.1.5:5610,r.local",
    }
    settings = load(SuiteProcess, file=None, environment=environment)

    assert of_runner(settings).plain_registries == ("192.168.1.5:5610", "r.local")
