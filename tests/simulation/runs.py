"""Running many schedules."""

import gc
import logging
import time
import warnings
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field

from tests.simulation.schedule import draw
from tests.simulation.world import Outcome, run

_CHUNK = 50
_COLLECT_EVERY = 20


@dataclass(slots=True)
class Sum:
    """What became of several schedules.

    Attributes:
        cpu_s: Seconds of one core.
        steps_min: Steps of the schedule that had fewest.
        wrong: Seeds that went wrong, and how.
    """

    schedules: int = 0
    cpu_s: float = 0.0
    steps: int = 0
    steps_min: int = 1 << 30
    faults: Counter[str] = field(default_factory=Counter)
    wrong: dict[int, tuple[str, ...]] = field(default_factory=dict)

    def add(self, other: "Sum") -> None:
        """Add others."""
        self.schedules += other.schedules
        self.cpu_s += other.cpu_s
        self.steps += other.steps
        self.steps_min = min(self.steps_min, other.steps_min)
        self.faults += other.faults
        self.wrong |= other.wrong


def run_seeds(seeds: Sequence[int]) -> Sum:
    """Run the schedules of some seeds."""
    total, started = Sum(), time.process_time()
    with undisturbed():
        for number, seed in enumerate(seeds):
            outcome: Outcome = run(draw(seed))
            total.schedules += 1
            total.steps += outcome.steps
            total.steps_min = min(total.steps_min, outcome.steps)
            total.faults += outcome.faults
            if outcome.wrong:
                total.wrong[seed] = outcome.wrong
            if number % _COLLECT_EVERY == 0:
                gc.collect()
    total.cpu_s = time.process_time() - started
    return total


def run_many(first: int, count: int, *, processes: int) -> Iterator[Sum]:
    """Run the schedules of many seeds on several cores; yield sums of some of them as they come."""
    chunks = [range(start, min(start + _CHUNK, first + count)) for start in range(first, first + count, _CHUNK)]
    with ProcessPoolExecutor(processes) as pool:
        yield from pool.map(run_seeds, chunks)


@contextmanager
def undisturbed() -> Iterator[None]:
    """Let nobody log, and garbage of a schedule wait: what was killed leaves tasks behind that never end."""
    logging.disable(logging.CRITICAL)
    gc.disable()
    # What is there before is not looked through again each time.
    gc.freeze()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
            gc.collect()
    finally:
        gc.unfreeze()
        gc.enable()
        logging.disable(logging.NOTSET)
