"""Copies of the tree, and runs of pytest in them."""

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from tests.mutants.mutant import Mutant

ROOT = Path(__file__).parents[2]

_SUMMARY = "FAILED "
_TAIL_LINES = 15


class Run(NamedTuple):
    """What a run of pytest came to.

    Attributes:
        failed: Tests that failed, without their parameters, each once.
        error: Why it says nothing: it did not end, nothing was collected, a fixture failed.
    """

    failed: tuple[str, ...]
    error: str
    took_s: float


def copy_tree(target: Path, source: Path = ROOT) -> None:
    """Copy what tests need; caches of bytecode come along, so that not everything is compiled again."""
    shutil.copytree(
        source, target, ignore=shutil.ignore_patterns(".venv", ".git", ".?*_cache", ".hypothesis", ".freshet")
    )


def copy_mutated(mutant: Mutant, target: Path, source: Path) -> None:
    """Copy a tree and break the copy.

    Raises:
        StaleMutantError: The mutant does not apply.
    """
    copy_tree(target, source)
    mutant.apply_to(target)
    # Bytecode is known by its source's size and second, which both may be as before.
    place = target / mutant.file
    for compiled in place.parent.glob(f"__pycache__/{place.stem}.*.pyc"):
        compiled.unlink()


def run_pytest(tree: Path, tests: Sequence[str], *options: str, limit_s: float) -> Run:
    """Run tests in a tree, and nothing of any other tree."""
    plugin = ("-p", "tests.mutants.inside", "-p", "no:cacheprovider")
    started = time.monotonic()
    environment = os.environ | {"PYTHONPATH": str(tree), "COLUMNS": "200"}
    try:
        done = subprocess.run(
            [sys.executable, "-m", "pytest", "-q", "--tb=line", *plugin, *options, *tests],
            cwd=tree, env=environment, capture_output=True, text=True, timeout=limit_s, check=False,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        return Run((), f"it did not end within {limit_s:.0f} s", time.monotonic() - started)
    failed = [
        line.removeprefix(_SUMMARY).partition(" - ")[0].partition("[")[0]
        for line in done.stdout.splitlines()
        if line.startswith(_SUMMARY)
    ]
    error = ""
    if done.returncode not in (0, 1) or (done.returncode == 1 and not failed):
        tail = "\n".join((done.stdout + done.stderr).splitlines()[-_TAIL_LINES:])
        error = f"pytest ended with {done.returncode}:\n{tail}"
    return Run(tuple(dict.fromkeys(failed)), error, time.monotonic() - started)
