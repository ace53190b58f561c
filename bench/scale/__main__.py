"""``make bench-scale``: how cost grows with events, groups, keys, windows and workers; last, one line of JSON.

The sweeps are CPU time of the steps of the hot path (``bench.steps``), without services; two runs on Kafka and Redis
follow. Exits with 1 if an answer is wrong: shapes that are not met are told, for a machine that others use too may be
the reason.
"""

import gc
import io
import json
import sys
from collections.abc import Iterator, Sequence
from datetime import timedelta
from pathlib import Path

import psutil
import typer
from rich.console import Console

from bench.scale.case import Case
from bench.scale.cost import Cost, measure
from bench.scale.figures import Found, headline, markdown, plain, tables
from bench.scale.memory import held
from bench.scale.workers import run

_EVENTS = (5_000, 10_000, 20_000, 40_000, 80_000)
_GROUPS = (1, 2, 4, 8, 16, 32, 64)
_KEYS = (1_000, 10_000, 100_000, 1_000_000, 10_000_000)
_WINDOWS = tuple(timedelta(minutes=minutes) for minutes in (5, 60, 360, 1_440, 7 * 1_440, 30 * 1_440))
_HOT = 0.5
_SMALL, _LARGE = 20_000, 1_000_000
_ROW_BYTES = 500
"""What a row takes in all that are not live, and then some."""
_SPARED = 2
_GROUPS_EVENTS, _GROUPS_KEYS = 10_000, 1_000
"""Fewer of both, for 64 groups have 64 times as many rows."""


def main(rounds: int = 3, keys_max: int = 10_000_000, events: int = 400_000, out: Path = Path("bench-scale")) -> None:
    """Measure.

    Args:
        rounds: How often each step is measured; the least counts.
        keys_max: Most keys, if the machine has twice the memory that they take.
        events: Purchases for the runs on Kafka.
        out: Where to write, with .json, .md and .svg behind it.
    """
    # As in a worker (``app.worker``): looking through the tables finds nothing.
    gc.set_threshold(50_000, 50, 1_000)
    alone = held(_SMALL), held(_LARGE)
    keys, even_keys = _keys(rounds, keys_max)
    found = Found(
        events=_told(measure([Case(events=number) for number in _EVENTS], rounds=rounds)),
        groups=[_one(Case(_GROUPS_EVENTS, groups, _GROUPS_KEYS), rounds) for groups in _GROUPS],
        windows=[_one(Case(window=window), rounds) for window in _WINDOWS],
        keys=keys,
        even_keys=even_keys,
        hot=_told(measure([Case(), Case(hot=_HOT)], rounds=rounds)),
        held=alone,
        workers=run(events, workers=(1, 2)),
    )
    _write(out, found)
    sys.stdout.write(json.dumps(headline(found)) + "\n")
    sys.exit(any(one.wrong for one in found.workers))


def _keys(rounds: int, keys_max: int) -> tuple[Sequence[Cost], Sequence[Cost]]:
    """Return costs with more and more keys: some with many events, then all with as many, of the same tables."""
    skewed, even = [], []
    for keys in _KEYS:
        if keys > _LARGE and (keys > keys_max or psutil.virtual_memory().available < _SPARED * keys * _ROW_BYTES):
            continue
        one, other = _told(measure([Case(keys=keys), Case(keys=keys, even=True)], rounds=rounds))
        skewed.append(one)
        even.append(other)
    return skewed, even


def _one(case: Case, rounds: int) -> Cost:
    (cost,) = _told(measure([case], rounds=rounds))
    return cost


def _told(costs: Iterator[Cost]) -> list[Cost]:
    """Return costs; each is told as soon as it is known."""
    found = []
    for cost in costs:
        sys.stderr.write(f"{cost.case}: {cost.event_us:.1f} us per event, {cost.steps['apply']:.1f} us to apply it\n")
        found.append(cost)
    return found


def _write(out: Path, found: Found) -> None:
    picture = Console(record=True, width=120, file=io.StringIO())
    for console in (Console(width=120), picture):
        for table in tables(found):
            console.print(table)
            console.print()
    out.with_suffix(".json").write_text(json.dumps(plain(found), indent=1, default=str) + "\n")
    out.with_suffix(".md").write_text(markdown(found) + "\n")
    picture.save_svg(str(out.with_suffix(".svg")), title="make bench-scale")


if __name__ == "__main__":
    typer.run(main)
