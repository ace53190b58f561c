"""What an expiry costs: loads, and readers that wait for them, with and without early refreshes.

``python -m tests.simulation.expiries`` reads one hot row in several processes, of the real reading side, on virtual
time, and prints a line of JSON for each policy.
"""

import asyncio
import json
import random
from collections.abc import Sequence
from dataclasses import dataclass

import typer
from typing_extensions import override

from core.definitions import ServingPolicy
from core.metrics import Metrics
from core.ports import RowKey, StoredRow
from core.windows import seconds
from serving.tiers.floor import VersionFloor
from serving.tiers.local import LocalCopies
from serving.tiers.reader import TieredReader
from serving.tiers.wanted import Terms, Wanted
from stores.memory import MemoryStore
from tests.simulation.caches import MEANING, packed
from tests.simulation.loop import VirtualLoop
from tests.simulation.worker import WallClock

KEY = RowKey("user#i0", "spend@v1")
LIFE_S = 10.0
_REDIS_MS, _RECORD_MS = 0.5, 6.0
_WAITED_MS = 5
_STEPS_MAX = 1 << 40


class Delayed(MemoryStore):
    """A store behind a network: half of its time, and an exponential rest, pass before each answer."""

    def __init__(self, name: str, clock: WallClock, mean_ms: float, chance: random.Random) -> None:
        super().__init__(clock)
        self.name = name
        self.reads = 0
        self._mean_s, self._chance = mean_ms / 1000, chance

    @override
    async def read(self, keys: Sequence[RowKey], *, deadline_ms: int) -> dict[RowKey, bytes]:
        self.reads += len(keys)
        await self._pass()
        return await super().read(keys, deadline_ms=deadline_ms)

    @override
    async def lease(
        self, keys: Sequence[RowKey], *, token: bytes, lease_ms: int, deadline_ms: int
    ) -> dict[RowKey, bytes]:
        await self._pass()
        return await super().lease(keys, token=token, lease_ms=lease_ms, deadline_ms=deadline_ms)

    async def _pass(self) -> None:
        await asyncio.sleep(self._mean_s * (0.5 + 0.5 * self._chance.expovariate(1)))


@dataclass(frozen=True, slots=True)
class Cost:
    """What became of reads.

    Attributes:
        loads: Of the store behind, per time that a copy lives, all processes together.
        waited: Reads that took longer than a few calls of Redis, per time that a copy lives.
        slowest_ms: The read that took longest.
    """

    reads: int
    loads: float
    waited: float
    slowest_ms: float


def cost_of(*, local: bool, beta: float, processes: int, reads_per_s: float, lives: int, seed: int = 0) -> Cost:
    """Read one row for so many lives of its copy.

    Args:
        local: Whether copies in the processes end, before Redis; or rows in Redis, before the record.
        beta: Of the policy.
        processes: How many read.
        reads_per_s: Of each.
        lives: How long, in lives of a copy.
        seed: Draws everything.
    """
    loop, chance = VirtualLoop(steps_max=_STEPS_MAX), random.Random(seed)  # noqa: S311  # the same every time
    clock = WallClock(loop, 0)
    cache = Delayed("cache", clock, _REDIS_MS, chance)
    record = Delayed("record", clock, _RECORD_MS, chance)
    ttl = seconds(LIFE_S)
    # Without jitter: a copy that lives shorter makes more expiries, not more loads of each.
    policy = ServingPolicy(
        tier="local" if local else "remote", soft_ttl=ttl, hard_ttl=ttl, early_refresh=beta, jitter=0.0
    )
    wanted, took_ms = [Wanted(KEY, Terms(policy, True, MEANING))], list[float]()  # noqa: FBT003  # written through

    async def read(reader: TieredReader) -> None:
        began_at = loop.time()
        await reader.read(wanted)
        took_ms.append((loop.time() - began_at) * 1000)

    async def ask(reader: TieredReader) -> None:
        reading = set()
        while loop.time() < lives * LIFE_S:
            await asyncio.sleep(chance.expovariate(reads_per_s))
            task = loop.create_task(read(reader))
            reading.add(task)
            task.add_done_callback(reading.discard)
        await asyncio.gather(*reading)

    async def drive() -> None:
        row = StoredRow(KEY, 1, packed(1))
        await record.write([row], deadline_ms=1)
        if local:
            await cache.write([row], deadline_ms=1)
        readers = [
            TieredReader(
                local=LocalCopies(bytes_max=100_000, is_announced=lambda _: False) if local else None, cache=cache,
                record=record, clock=clock, metrics=Metrics(), monotonic=loop.time, draw=chance.random,
                floor=VersionFloor(rows_max=64),
            )
            for _ in range(processes)
        ]  # fmt: skip
        await asyncio.gather(*map(ask, readers))

    loop.run_until(loop.create_task(drive()))
    loads = (cache if local else record).reads
    waited_ms = _REDIS_MS / 4 if local else _WAITED_MS
    return Cost(len(took_ms), loads / lives, sum(one > waited_ms for one in took_ms) / lives, max(took_ms))


def main(processes: int = 4, lives: int = 50) -> None:
    """Print what expiries cost."""
    for local in (True, False):
        for reads_per_s in (200.0, 20.0, 1.0):
            for beta in (0.0, 1.0, 4.0):
                cost = cost_of(local=local, beta=beta, processes=processes, reads_per_s=reads_per_s, lives=lives)
                what = {"ends": "copy" if local else "row in Redis", "reads_per_s": reads_per_s, "beta": beta}
                figures = {"loads": cost.loads, "waited": cost.waited, "slowest_ms": round(cost.slowest_ms, 1)}
                print(json.dumps(what | figures), flush=True)


if __name__ == "__main__":
    typer.run(main)
