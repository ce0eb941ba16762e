"""Writes Grafana's dashboard of lns: `python deploy/monitoring/dashboard.py > dashboard.json`.

`panels.yaml` says what is on it.

A test holds the committed file against this program, and every metric in it against those that the
services have.
"""

import json
import sys
from pathlib import Path
from typing import Any

import yaml

_PANELS = Path(__file__).with_name("panels.yaml")
_WIDTH, _HEIGHT, _COLUMNS = 8, 8, 3


def dashboard() -> dict[str, Any]:
    """Returns the dashboard as Grafana imports it."""
    panels: list[dict[str, Any]] = []
    top = 0
    for row in yaml.safe_load(_PANELS.read_text(encoding="utf-8")):
        place = {"x": 0, "y": top, "w": _WIDTH * _COLUMNS, "h": 1}
        panels.append({"type": "row", "title": row["row"], "gridPos": place, "panels": []})
        top += 1
        for number, panel in enumerate(row["panels"]):
            down, across = divmod(number, _COLUMNS)
            panels.append(_panel(panel, left=across * _WIDTH, top=top + down * _HEIGHT))
        top += _HEIGHT * -(-len(row["panels"]) // _COLUMNS)
    for number, panel in enumerate(panels, 1):
        panel["id"] = number
    source = {
        "name": "source",
        "label": "Prometheus",
        "type": "datasource",
        "query": "prometheus",
    }
    return {
        "uid": "lns",
        "title": "lns",
        "tags": ["lns"],
        "schemaVersion": 39,
        "timezone": "browser",
        "refresh": "30s",
        "time": {"from": "now-6h", "to": "now"},
        "templating": {"list": [source]},
        "panels": panels,
    }


def _panel(given: dict[str, Any], *, left: int, top: int) -> dict[str, Any]:
    source = {"type": "prometheus", "uid": "${source}"}
    targets = [
        {
            "refId": chr(ord("A") + number),
            "datasource": source,
            "expr": expression,
            "legendFormat": legend,
        }
        for number, (legend, expression) in enumerate(given["queries"].items())
    ]
    return {
        "type": "timeseries",
        "title": given["title"],
        "datasource": source,
        "gridPos": {"x": left, "y": top, "w": _WIDTH, "h": _HEIGHT},
        "fieldConfig": {"defaults": {"unit": given["unit"], "min": 0}, "overrides": []},
        "targets": targets,
    }


if __name__ == "__main__":
    json.dump(dashboard(), sys.stdout, indent=2)
    sys.stdout.write("\n")
