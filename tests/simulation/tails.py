"""What a second read of the record does to the slowest answers, and what it costs: ``python -m tests.simulation.tails``.

DynamoDB's own figures are modelled, on virtual time: 4 ms in the middle, and one read of a hundred that takes 50 to 400 ms,
by accident, or while a partition is slow for everybody.
"""

import asyncio
import json
import random

import typer

from serving.tiers.hedges import SHARE, Hedges
from tests.simulation.loop import VirtualLoop

_STEPS_MAX = 1 << 40
_READS_PER_S = 500.0
_EPISODE_S = 20.0
_EPISODE_SLOW_S = 0.2


class Record:
    """How long reads take."""

    def __init__(self, loop: VirtualLoop, chance: random.Random, *, is_shared: bool) -> None:
        self.reads = 0
        self._loop, self._chance, self._is_shared = loop, chance, is_shared

    async def read(self) -> None:
        """Read something."""
        self.reads += 1
        await asyncio.sleep(self._takes_s())

    def _takes_s(self) -> float:
        usual_s = self._chance.lognormvariate(0, 0.35) * 0.004
        if self._is_shared:
            # As large a part of all reads, but all at once: the end of the slow time is not drawn anew.
            into_s = self._loop.time() % _EPISODE_S
            return usual_s + max(_EPISODE_SLOW_S - into_s, 0)
        return self._chance.uniform(0.05, 0.4) if self._chance.random() < 0.01 else usual_s


def tail(*, share: float, is_shared: bool, reads: int, seed: int = 0) -> dict[str, float]:
    """Return percentiles of many reads, milliseconds, and how many reads the record was asked for each."""
    loop, chance = VirtualLoop(steps_max=_STEPS_MAX), random.Random(seed)  # noqa: S311  # the same every time
    record, hedges, took_ms = Record(loop, chance, is_shared=is_shared), Hedges(share=share), list[float]()

    async def read() -> None:
        began_at = loop.time()
        await hedges.read(record.read)
        took_ms.append((loop.time() - began_at) * 1000)

    async def drive() -> None:
        reading = []
        for _ in range(reads):
            await asyncio.sleep(chance.expovariate(_READS_PER_S))
            reading.append(loop.create_task(read()))
        await asyncio.gather(*reading)

    loop.run_until(loop.create_task(drive()))
    took_ms.sort()
    shares = {f"p{100 * one:g}_ms": round(took_ms[int(one * reads)], 1) for one in (0.5, 0.95, 0.99, 0.999)}
    return shares | {"reads": round(record.reads / reads, 3)}


def main(reads: int = 50_000) -> None:
    """Print what hedges do."""
    for is_shared in (False, True):
        for share in (0.0, SHARE):
            what = {"slow": "all at once" if is_shared else "by accident", "second reads": share}
            print(json.dumps(what | tail(share=share, is_shared=is_shared, reads=reads)), flush=True)


if __name__ == "__main__":
    typer.run(main)
