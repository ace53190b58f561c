"""``make simulate``: many schedules, or one; the last line is one line of JSON, the status 1 if anything went wrong."""

import json
import os
import sys
import time

import typer

from tests.simulation.runs import Sum, run_many, run_seeds
from tests.simulation.schedule import Schedule, draw
from tests.simulation.shrink import shrink
from tests.simulation.world import run

_TOLD_EVERY_S = 30.0
_WRONG_MAX = 5


def main(seeds: int = 10_000, seed: int = 0, processes: int = 0) -> None:
    """Run the schedules of so many seeds, from one on.

    Args:
        seeds: How many.
        seed: The first; with ``--seeds 1`` its schedule is told too.
        processes: How many at once; 0 for one per core.
    """
    total, started = Sum(), time.monotonic()
    told_at = started
    if seeds == 1:
        print(_told(draw(seed)))
        print(f"trace {run(draw(seed)).trace:08x}")
        sums = iter([run_seeds([seed])])
    else:
        sums = run_many(seed, seeds, processes=processes or os.cpu_count() or 1)
    for some in sums:
        total.add(some)
        for wrong, how in some.wrong.items():
            print(f"seed {wrong} is wrong: {how[0]}" + (f" (and {len(how) - 1} more)" if how[1:] else ""), flush=True)
        if time.monotonic() - told_at > _TOLD_EVERY_S:
            told_at = time.monotonic()
            print(f"{total.schedules} schedules, {len(total.wrong)} wrong, {told_at - started:.0f} s", flush=True)
    for wrong in sorted(total.wrong)[:_WRONG_MAX]:
        least = shrink(draw(wrong), lambda one: bool(run(one).wrong))
        print(f"\nseed {wrong}, shrunk; `make simulate SEED={wrong} SEEDS=1` repeats it whole:\n{_told(least)}")
        print("\n".join(run(least).wrong[:_WRONG_MAX]))
    print("faults: " + ", ".join(f"{kind} {count}" for kind, count in total.faults.most_common()))
    figures = {
        "schedules": total.schedules,
        "schedules_per_s": round(total.schedules / total.cpu_s, 1),
        "wrong": len(total.wrong),
        "steps": total.steps,
        "steps_min": total.steps_min,
        "fault_kinds": len(total.faults),
        "took_s": round(time.monotonic() - started),
        "seed": seed,
    }
    print(json.dumps(figures))
    sys.exit(bool(total.wrong))


def _told(schedule: Schedule) -> str:
    kind = "static" if schedule.is_static else "plain"
    lines = [
        f"{schedule.workers} workers, {kind} members, clocks off by {schedule.skews_ms} ms",
        f"{schedule.loss:.0%} of messages lost, {schedule.late:.0%} very late",
        *(f"{one.at_s:8.3f} s  {one.kind}, worker {one.worker}, {one.for_s} s" for one in schedule.faults),
        *(
            f"{one.at_s:8.3f} s  {one.topic}[{one.partition}] {one.value.decode(errors='replace')}"
            for one in schedule.arrivals
        ),
    ]
    return "\n".join(lines)


if __name__ == "__main__":
    typer.run(main)
