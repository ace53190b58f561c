"""A pytest plugin for runs in a copy of the tree: it makes sure that the copy is what is imported, and that failures end.

Loaded with ``-p tests.mutants.inside``. A gate that tests the wrong tree would find that nothing is ever caught.
"""

from importlib.util import find_spec
from pathlib import Path

import pytest
from hypothesis import Phase, settings

WRONG_TREE = 90
"""Exit status of a run that would import something from elsewhere."""


def pytest_configure(config: pytest.Config) -> None:
    """Let hypothesis stop at the first counterexample: looking for the smallest one takes minutes and helps nobody."""
    settings.register_profile("mutants", phases=(Phase.explicit, Phase.generate), report_multiple_bugs=False)
    settings.load_profile("mutants")


def pytest_sessionstart(session: pytest.Session) -> None:
    """Refuse to run where a package of the tree is imported from another place."""
    root = session.config.rootpath.resolve()
    for place in sorted(root.glob("*/__init__.py")):
        spec = find_spec(place.parent.name)
        if spec is None or spec.origin is None or not Path(spec.origin).resolve().is_relative_to(root):
            pytest.exit(f"{place.parent.name} is imported from {spec and spec.origin}", returncode=WRONG_TREE)
