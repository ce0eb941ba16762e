"""Dashboard and alerts name only metrics that the services have, and say what to do."""

import importlib
import json
import re
import subprocess
import sys
from pathlib import Path

import prometheus_client
import pytest
import yaml

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "deploy" / "monitoring"
MODULES = sorted(path for path in (ROOT / "services").rglob("metrics.py"))
NAME = re.compile(r"\blns_[a-z_]+\b")


@pytest.fixture(scope="module")
def metrics() -> dict[str, str]:
    """Every sample that the services can show, with the documentation of its metric."""
    for path in MODULES:
        module = ".".join(path.relative_to(ROOT).with_suffix("").parts)
        importlib.import_module(module)
    found = {}
    for family in prometheus_client.REGISTRY.collect():
        ends = {
            "counter": ("_total",),
            "histogram": ("_bucket", "_count", "_sum"),
        }.get(family.type, ("",))
        found.update({family.name + end: family.documentation for end in ends})
    return found


def expressions() -> list[str]:
    panels = json.loads((FOLDER / "dashboard.json").read_text())["panels"]
    rules = yaml.safe_load((FOLDER / "alerts.yaml").read_text())["groups"]
    return [
        *(target["expr"] for panel in panels for target in panel.get("targets", ())),
        *(rule["expr"] for group in rules for rule in group["rules"]),
    ]


def test_every_metric_that_is_looked_at_exists(metrics: dict[str, str]) -> None:
    named = {name for expression in expressions() for name in NAME.findall(expression)}

    assert named
    assert sorted(named - set(metrics)) == []


def test_every_metric_of_lns_is_on_the_dashboard(metrics: dict[str, str]) -> None:
    text = (FOLDER / "dashboard.json").read_text()
    own = {name for name in metrics if name.startswith("lns_")}
    families = {re.sub(r"_(bucket|count|sum|total)$", "", name) for name in own}

    assert [name for name in sorted(families) if name not in text] == ["lns_vm_runner_snapshots"]


def test_names_and_units_follow_the_conventions(metrics: dict[str, str]) -> None:
    own = {name: text for name, text in metrics.items() if name.startswith("lns_")}

    assert [name for name in own if re.search(r"_(ms|milliseconds|kb|mb|minutes)(_|$)", name)] == []
    assert [name for name, text in own.items() if not text.endswith((".", ":"))] == []


def test_the_dashboard_is_what_its_program_writes() -> None:
    made = subprocess.run(
        [sys.executable, FOLDER / "dashboard.py"], capture_output=True, text=True, check=True
    )

    assert made.stdout == (FOLDER / "dashboard.json").read_text()


def test_every_alert_says_what_to_do() -> None:
    for group in yaml.safe_load((FOLDER / "alerts.yaml").read_text())["groups"]:
        for rule in group["rules"]:
            assert len(rule["annotations"]["runbook"].split()) > 15, rule["alert"]
            assert rule["annotations"]["summary"]
            assert rule["labels"]["severity"] in {"info", "warning", "critical"}
