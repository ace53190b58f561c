"""A mutant: one rule of the pipeline broken on purpose, by a small replacement in one file."""

from dataclasses import dataclass
from pathlib import Path

FUZZ = "tests/fuzz/test_fuzz.py::test_no_payload_crashes_the_pipeline_or_is_lost"
SIMULATION = "tests/simulation/test_simulation.py::test_no_schedule_leaves_a_wrong_value_a_lost_event_or_a_stale_copy"

CACHES = "tests/simulation/test_simulation.py::test_no_interleaving_of_caches_leaves_an_old_row_or_none"

RACES = "tests/simulation/test_simulation.py::test_no_order_of_a_race_tells_anybody_what_is_not_so"


class StaleMutantError(Exception):
    """The text that a mutant replaces is not in its file exactly once: the code has moved on, and it must follow."""


@dataclass(frozen=True, slots=True)
class Mutant:
    """One bug.

    Attributes:
        name: What is broken, as the end of "What if ...".
        rule: The rule that it breaks: a line of docs/explanation/protocol.md (P1 - P10, or 2 and 3 for its sections),
            or of docs/explanation/semantics.md by the name of its section.
        file: Of the product, from the root.
        old: Text that stands in it exactly once.
        new: What stands there instead.
        caught_by: Tests, as pytest names them, each of which must fail.
    """

    name: str
    rule: str
    file: str
    old: str
    new: str
    caught_by: tuple[str, ...]

    def apply_to(self, root: Path) -> None:
        """Break the file in a tree.

        Raises:
            StaleMutantError: The old text is not there, or more than once.
        """
        place = root / self.file
        text = place.read_text()
        if (count := text.count(self.old)) != 1:
            raise StaleMutantError(f"{self.name}: {self.file} has its old text {count} times: {self.old!r}")
        place.write_text(text.replace(self.old, self.new))
