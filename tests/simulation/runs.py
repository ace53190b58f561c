"""Running many schedules."""

import gc
import logging
import multiprocessing
import time
import warnings
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field

from tests.simulation.schedule import draw
from tests.simulation.world import Outcome, run

_CHUNK = 100


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
        for seed in seeds:
            outcome: Outcome = run(draw(seed))
            total.schedules += 1
            total.steps += outcome.steps
            total.steps_min = min(total.steps_min, outcome.steps)
            total.faults += outcome.faults
            if outcome.wrong:
                total.wrong[seed] = outcome.wrong
    total.cpu_s = time.process_time() - started
    return total


def run_many(first: int, count: int, *, processes: int) -> Iterator[Sum]:
    """Run the schedules of many seeds on several cores; yield sums of some of them as they come."""
    with short_lived(processes) as pool:
        yield from pool.map(run_seeds, chunks(first, count, _CHUNK))


def chunks(first: int, count: int, size: int) -> list[range]:
    """Cut a range of seeds into ranges of at most some size."""
    return [range(start, min(start + size, first + count)) for start in range(first, first + count, size)]


@contextmanager
def short_lived(processes: int) -> Iterator[ProcessPoolExecutor]:
    """Open so many processes that end after one call each: nobody need collect the garbage they leave, 7 % of all."""
    server = multiprocessing.get_context("forkserver")
    # They begin with everything imported, that of the module that is run too.
    server.set_forkserver_preload(["tests.simulation.runs", "tests.simulation.caches", "typer"])
    with ProcessPoolExecutor(processes, server, initializer=gc.disable, max_tasks_per_child=1) as pool:
        yield pool


@contextmanager
def undisturbed() -> Iterator[None]:
    """Let nobody log, and garbage of a schedule wait: what was killed leaves tasks behind that never end."""
    logging.disable(logging.CRITICAL)
    is_collecting = gc.isenabled()
    gc.disable()
    # What is there before is not looked through again each time.
    gc.freeze()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
            if is_collecting:
                gc.collect()
    finally:
        gc.unfreeze()
        if is_collecting:
            gc.enable()
        logging.disable(logging.NOTSET)
