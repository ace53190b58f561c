"""``make fuzz``: as many payloads as asked for, on all cores; exits with 1 if one of them crashed or was lost."""

import json
import os
import random
import time
from concurrent.futures import ProcessPoolExecutor
from functools import partial

import typer

from tests.fuzz.batches import BATCH_PAYLOADS, Figures, run_batch

_TOLD_MAX = 5


def main(payloads: int = 1_000_000, seed: int = 0, batch: int = -1) -> None:
    """Run the fuzz.

    Args:
        payloads: How many, rounded up to whole batches.
        seed: The same seed gives the same payloads; 0 draws one.
        batch: Run this batch alone, to see again what a run has told.
    """
    seed = seed or random.SystemRandom().randrange(1, 1 << 32)
    numbers = range(batch, batch + 1) if batch >= 0 else range(-(-payloads // BATCH_PAYLOADS))
    processes = min(os.cpu_count() or 1, len(numbers))
    print(f"fuzz: {len(numbers) * BATCH_PAYLOADS:,} payloads from seed {seed}, {processes} processes", flush=True)
    figures, started, told = Figures(), time.monotonic(), 0
    with ProcessPoolExecutor(processes) as pool:
        for found in pool.map(partial(run_batch, seed), numbers, chunksize=4):
            figures.add(found)
            for finding in (found.crashes + found.unaccounted)[: max(_TOLD_MAX - told, 0)]:
                told += 1
                number = finding.removeprefix("batch ").partition(":")[0]
                print(f"{finding}\n  again: make fuzz SEED={seed} BATCH={number}\n", flush=True)
    took_s = time.monotonic() - started
    print(
        json.dumps(
            {
                "payloads": figures.payloads,
                "crashes": len(figures.crashes),
                "unaccounted": len(figures.unaccounted),
                "payloads_per_s": round(figures.payloads / took_s),
                "dispatched": figures.dispatched,
                "buried": dict(sorted(figures.buried.items())),
                "damaged": figures.damaged,
                "seed": seed,
            }
        )
    )
    raise typer.Exit(bool(figures.crashes or figures.unaccounted))


if __name__ == "__main__":
    typer.run(main)
