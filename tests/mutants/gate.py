"""The gate: each mutant must be caught, and by every test that is said to catch it.

First the tests that are named run, in a copy of the tree that is broken in that one place. Only if none of them fails
all tests of the core run, to tell what is missing: a test, or a name.
"""

import tempfile
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path

from tests.mutants.mutant import Mutant
from tests.mutants.trees import ROOT, copy_mutated, copy_tree, run_pytest

LIMIT_S = 900.0
"""How long one run may take: for a busy machine, since nothing is decided by it."""

EVERYTHING = ("tests/unit", "tests/contract", "tests/fuzz", "tests/simulation")


@dataclass(frozen=True, slots=True)
class Finding:
    """What became of a mutant.

    Attributes:
        caught_by: Tests that failed.
        missed_by: Tests that were named and did not fail.
        error: Why nothing is known.
    """

    mutant: Mutant
    caught_by: tuple[str, ...] = ()
    missed_by: tuple[str, ...] = ()
    error: str = ""
    took_s: float = 0.0

    @property
    def is_good(self) -> bool:
        """Whether it was caught by all who are said to catch it."""
        return bool(self.caught_by) and not self.missed_by and not self.error


class RedTreeError(Exception):
    """A test that shall catch a mutant fails without it."""


def try_mutants(
    mutants: Sequence[Mutant], *, processes: int, last: Sequence[str] = EVERYTHING, source: Path = ROOT
) -> Iterator[Finding]:
    """Yield what becomes of each mutant, in the order in which it is known.

    Args:
        mutants: What is tried.
        processes: How many at once.
        last: Tests that run where none of the named ones fails.
        source: The tree of which copies are broken.

    Raises:
        RedTreeError: Tests fail on the tree as it is; then nothing is tried.
    """
    with tempfile.TemporaryDirectory(prefix="freshet-mutants-") as scratch, ThreadPoolExecutor(processes) as pool:
        whole = Path(scratch) / "whole"
        copy_tree(whole, source)
        _require_green(whole, mutants)
        trying = [
            pool.submit(_try, mutant, whole, Path(scratch) / f"{number}", last) for number, mutant in enumerate(mutants)
        ]
        try:
            for done in as_completed(trying):
                yield done.result()
        finally:
            pool.shutdown(cancel_futures=True)


def _require_green(tree: Path, mutants: Sequence[Mutant]) -> None:
    named = list(dict.fromkeys(test for mutant in mutants for test in mutant.caught_by))
    run = run_pytest(tree, named, limit_s=LIMIT_S)
    if run.failed or run.error:
        raise RedTreeError("without any mutant: " + (run.error or f"{', '.join(run.failed)} fail"))


def _try(mutant: Mutant, whole: Path, tree: Path, last: Sequence[str]) -> Finding:
    copy_mutated(mutant, tree, whole)
    named = run_pytest(tree, mutant.caught_by, limit_s=LIMIT_S)
    if named.failed or named.error or not last:
        failed = {_function(test) for test in named.failed}
        missed = tuple(test for test in mutant.caught_by if _function(test) not in failed)
        return Finding(mutant, named.failed, missed, named.error, named.took_s)
    every = run_pytest(tree, last, "-x", limit_s=LIMIT_S)
    return Finding(mutant, every.failed, mutant.caught_by, every.error, named.took_s + every.took_s)


def _function(test: str) -> str:
    """Return a test's name without its parameters."""
    return test.partition("[")[0]
