"""``make simulate-caches``: many interleavings of caches; the last line is JSON, the status 1 if anything went wrong."""

import json
import os
import sys
import time
from collections.abc import Iterator

import typer

from tests.simulation.caches import Sum, run_caches
from tests.simulation.runs import chunks, short_lived

_CHUNK = 200


def run_many_caches(first: int, count: int, *, processes: int = 0) -> Iterator[Sum]:
    """Run the interleavings of many seeds on so many cores (0 for all); yield sums of some of them as they come."""
    with short_lived(processes or os.cpu_count() or 1) as pool:
        yield from pool.map(run_caches, chunks(first, count, _CHUNK))


def main(seeds: int = 100_000, seed: int = 0, processes: int = 0) -> None:
    """Run the interleavings of so many seeds, from one on, on so many cores (0 for all)."""
    total, started = Sum(), time.monotonic()
    for some in run_many_caches(seed, seeds, processes=processes):
        total.add(some)
        for wrong, how in some.wrong.items():
            print(f"seed {wrong} is wrong: {how[0]}", flush=True)
    figures = {
        "interleavings": total.interleavings,
        "interleavings_per_s": round(total.interleavings / total.cpu_s, 1),
        "wrong": len(total.wrong),
        "steps": total.steps,
        "took_s": round(time.monotonic() - started),
        "seed": seed,
    }
    print(json.dumps(figures))
    sys.exit(bool(total.wrong))


if __name__ == "__main__":
    typer.run(main)
