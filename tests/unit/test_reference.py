"""The pages that are written from the code say what the code says."""

from pathlib import Path

from app.reference import settings_markdown

ROOT = Path(__file__).parents[2]


def test_the_page_of_settings_is_what_the_settings_are():
    """
    An operator who looks a variable up must find the one that the worker reads: `freshet settings` renews the page.
    """
    assert (ROOT / "docs/reference/settings.md").read_text() == settings_markdown()
