"""The documentation of metrics is right."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from trio_hub.config import HubConfig
from trio_hub.dashboard.metrics import METRICS
from trio_hub.testing import open_hub

from ..runtime.support import within_limit
from .support import open_dashboard, scrape

DOCS = Path(__file__).parents[2] / "docs"
REFERENCE = (DOCS / "reference" / "metrics.md").read_text()
HOW_TO = (DOCS / "how-to" / "prometheus.md").read_text()
GRAFANA: dict[str, Any] = json.loads((DOCS / "how-to" / "grafana-dashboard.json").read_text())
NAME = r"\b(?:trio_hub|process)_[a-z_]+\b"
LABELS = {"job", "instance", "le"}
"""The labels that Prometheus adds itself."""


def known() -> set[str]:
    """Return the names of metrics as they stand in a query."""
    names = {metric.name for metric in METRICS if metric.kind != "histogram"}
    names |= {
        f"{metric.name}_{part}"
        for metric in METRICS
        if metric.kind == "histogram"
        for part in ("bucket", "sum", "count")
    }
    return names | set(re.findall(r"^\| `(process_\w+)`", REFERENCE, re.MULTILINE))


def expressions() -> list[str]:
    found = [target["expr"] for panel in GRAFANA["panels"] for target in panel["targets"]]
    found += [variable["query"]["query"] for variable in GRAFANA["templating"]["list"] if variable["type"] == "query"]
    return found + re.findall(r"^ +expr: (.*)$", HOW_TO, re.MULTILINE)


def test_every_metric_is_in_the_reference_and_no_other() -> None:
    rows = re.findall(r"^\| `(trio_hub_\w+)` \| (\w+) \| (.*?)\s*\| (.*) \|$", REFERENCE, re.MULTILINE)
    told = [(name, kind, tuple(re.findall(r"`(\w+)`", labels)), text) for name, kind, labels, text in rows]
    assert told == [(metric.name, metric.kind, metric.labels, metric.text) for metric in METRICS]


async def test_the_metrics_of_the_process_are_in_the_reference_and_no_other() -> None:
    async with within_limit(), open_hub(HubConfig()) as hub, open_dashboard(hub) as dashboard:
        names = (await scrape(dashboard)).names
    assert {name for name in known() if name.startswith("process_")} == {
        name for name in names if not name.startswith("trio_hub_")
    }


def test_what_grafana_and_the_alerts_ask_for_exists() -> None:
    assert len(expressions()) > 20
    for expression in expressions():
        asked = set(re.findall(NAME, expression)) - {"trio_hub"}
        assert asked <= known(), expression
        assert asked or expression.startswith("up{"), expression
        labels = {label for metric in METRICS if metric.name in expression for label in metric.labels} | LABELS
        used = set(re.findall(r"(\w+)=~?\"", expression))
        used |= {name.strip() for by in re.findall(r"by \((.*?)\)", expression) for name in by.split(",")}
        assert used <= labels, expression
        assert expression.count("(") == expression.count(")")


def test_grafana_shows_each_panel_in_a_place_of_its_own() -> None:
    panels = GRAFANA["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    assert len({(panel["gridPos"]["x"], panel["gridPos"]["y"]) for panel in panels}) == len(panels)
    assert all(panel["targets"] and panel["title"] for panel in panels)
    assert not re.search(r"\b(10\.|192\.168|localhost)", json.dumps(GRAFANA))
