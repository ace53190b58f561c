"""The page of the reference that names every mutant and what catches it."""

from collections.abc import Mapping, Sequence

from tests.mutants.mutant import Mutant
from tests.mutants.trees import ROOT

PAGE = ROOT / "docs/reference/mutants.md"

_HEAD = """# Mutants

Bugs that are planted one at a time, and the tests that each of them turns red. `make mutants` plants them, runs the
tests and writes this page; a test holds it, and that each bug can still be planted. A rule is a line of the
[protocol](../explanation/protocol.md) or a section of the [semantics](../explanation/semantics.md).
"""


def mutants_markdown(parts: Mapping[str, Sequence[Mutant]]) -> str:
    """Return the page for the mutants of each part of the pipeline."""
    lines = [_HEAD]
    for part, mutants in parts.items():
        lines.append(f"\n## {part}\n\n| what if ... | rule | in | caught by |\n| --- | --- | --- | --- |\n")
        lines += (
            f"| {mutant.name} | {mutant.rule} | `{mutant.file}` | {'<br>'.join(map(_told, mutant.caught_by))} |\n"
            for mutant in mutants
        )
    return "".join(lines)


def _told(test: str) -> str:
    """Return a test as its file and its sentence."""
    file, _, name = test.partition("::")
    place = file.removeprefix("tests/").removesuffix(".py")
    return f"{place}: {name.removeprefix('test_').replace('_', ' ')}" if name else place
