"""The pages that are written from the code say what the code says."""

import re
from pathlib import Path

from app.reference import aggregations_markdown, settings_markdown
from core.metrics import Metrics

ROOT = Path(__file__).parents[2]


def test_the_page_of_settings_is_what_the_settings_are():
    """
    An operator who looks a variable up must find the one that the worker reads: `freshet settings` renews the page.
    """
    assert (ROOT / "docs/reference/settings.md").read_text() == settings_markdown()


def test_the_page_of_aggregations_is_what_the_classes_are():
    """
    Who chooses an aggregation must find its error and its size: `freshet aggregations` renews the page.
    """
    assert (ROOT / "docs/reference/aggregations.md").read_text() == aggregations_markdown()


def test_what_is_to_be_alerted_on_are_metrics_that_there_are():
    """
    An alert on a name that no worker tells never fires, and nobody notices.
    """
    named = set(re.findall(r"freshet_[a-z_]+", (ROOT / "docs/how-to/monitor.md").read_text()))
    there = {name for family in Metrics().registry.collect() for name in _names(family.name, family.type)}

    assert named
    assert named <= there


def _names(name: str, kind: str) -> set[str]:
    return {"counter": {f"{name}_total"}, "histogram": {f"{name}_bucket"}}.get(kind, {name})
