"""Shrinking: of a schedule that goes wrong, the least that still does."""

from collections.abc import Callable, Iterator
from dataclasses import replace

from tests.simulation.schedule import Schedule

_TRIES_MAX = 300


def shrink(schedule: Schedule, goes_wrong: Callable[[Schedule], bool]) -> Schedule:
    """Leave out faults, records and chance, one after the other, as long as it still goes wrong.

    What is left out changes what chance brings to the rest, so the least found is not the least there is.
    """
    tries = 0
    while True:
        for smaller in _smaller(schedule):
            tries += 1
            if tries > _TRIES_MAX:
                return schedule
            if goes_wrong(smaller):
                schedule = smaller
                break
        else:
            return schedule


def _smaller(schedule: Schedule) -> Iterator[Schedule]:
    if schedule.loss:
        yield replace(schedule, loss=0.0)
    if schedule.late:
        yield replace(schedule, late=0.0)
    for number in range(len(schedule.faults)):
        yield replace(schedule, faults=[*schedule.faults[:number], *schedule.faults[number + 1 :]])
    size = len(schedule.arrivals) // 2
    while size:
        for start in range(0, len(schedule.arrivals), size):
            yield replace(schedule, arrivals=[*schedule.arrivals[:start], *schedule.arrivals[start + size :]])
        size //= 2
    if any(schedule.skews_ms):
        yield replace(schedule, skews_ms=(0,) * schedule.workers)
