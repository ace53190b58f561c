"""The pages that are written from the code say what the code says."""

from pathlib import Path

from app.reference import aggregations_markdown, settings_markdown

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
