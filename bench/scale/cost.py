"""What a case costs: CPU microseconds per event of each step, and per row of what is done per row."""

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from bench.scale.case import Case
from bench.steps import STEPS, Bench
from tables.table import GroupTable, freeze, thaw

_THAWED = 5_000


@dataclass(frozen=True, slots=True)
class Cost:
    """CPU microseconds: the least of several rounds, step by step.

    Attributes:
        steps: Per event, by the name of the step: decode, pack, unpack, apply and freeze.
        rows_per_event: Rows that are flushed, per event.
        thaw_us: Per row that is made live from its bytes: a part of ``apply``, where a row was not live.
    """

    case: Case
    steps: dict[str, float]
    rows_per_event: float
    thaw_us: float

    @property
    def event_us(self) -> float:
        """All steps of an event."""
        return sum(self.steps.values())

    @property
    def all_s(self) -> float:
        """All steps of all events, in seconds."""
        return self.event_us * self.case.events / 1e6

    @property
    def flush_us(self) -> float:
        """What it takes to finish and pack a row, and to keep it as bytes again."""
        return self.steps["freeze"] / self.rows_per_event


def measure(cases: Sequence[Case], *, rounds: int) -> Iterator[Cost]:
    """Measure cases that differ in their events alone, on the same tables, one after the other."""
    tables = Bench(cases[0].load(0)).tables()
    cases[0].fill(tables)
    thaw_us = _thaw_us(cases[0], next(iter(tables.values())).groups[0])
    first = 0
    for case in cases:
        best, rows = dict.fromkeys(STEPS, float("inf")), 0
        for _ in range(rounds):
            # Ids of an earlier round would make the look-ups of a later one dearer.
            for table in tables.values():
                table.forget_ids()
            bench = Bench(case.load(first))
            first += case.events
            took = bench.round(tables)
            rows += bench.rows
            best = {step: min(best[step], took[step]) for step in STEPS}
        steps = {step: took_s / case.events * 1e6 for step, took_s in best.items()}
        yield Cost(case, steps, rows / rounds / case.events, thaw_us)


def _thaw_us(case: Case, group: GroupTable) -> float:
    change = freeze(group, "", case.full_row()).change
    started = time.process_time()
    for _ in range(_THAWED):
        thaw(group.plan, change)
    return (time.process_time() - started) / _THAWED * 1e6
