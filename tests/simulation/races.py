"""Races around one row, each in so many orders: what is written, cancelled, broken or killed while it is being read.

The general worlds (``tests.simulation.caches``) have all of these now and then; here each happens in every one. The real
reading side runs on the loop without time; the stores are in memory, and each call takes a while before and after it is
done there. ``make simulate-caches`` begins with them.
"""

import asyncio
import json
import os
import random
import sys
from collections.abc import Callable, Coroutine, Sequence
from functools import partial
from typing import Any, TypeVar

import typer
from typing_extensions import override

from core.definitions import ServingPolicy
from core.errors import StoreError, StoreTimeoutError
from core.leases import is_lease
from core.ports import Filling, RowKey, StoredRow
from core.versions import version_of
from core.windows import seconds
from serving.tiers.fills import LEASE_MS
from serving.tiers.floor import VersionFloor
from serving.tiers.local import LocalCopies
from serving.tiers.reader import TieredReader
from serving.tiers.wanted import Terms, Wanted
from stores.memory import MemoryStore
from tests.simulation.caches import MEANING, packed
from tests.simulation.loop import Process, VirtualLoop
from tests.simulation.runs import chunks, short_lived, undisturbed
from tests.simulation.worker import METRICS, WallClock

T = TypeVar("T")

KEY = RowKey("user#i0", "spend@v1")
POLICY = ServingPolicy(soft_ttl=seconds(0.05), hard_ttl=seconds(60), jitter=0.5, early_refresh=4)
_WANTED = [Wanted(KEY, Terms(POLICY, True, MEANING))]  # noqa: FBT003  # written through
_WAY_S = 0.004
_READERS = 3
_CHUNK = 1_000
_MOMENT_S = 0.2


class SlowStore(MemoryStore):
    """A store that is some way off.

    Attributes:
        reads: How often it was read.
        failing: How many of the next reads fail.
    """

    def __init__(self, name: str, clock: WallClock, chance: random.Random) -> None:
        super().__init__(clock)
        self.name = name
        self.reads = self.failing = 0
        self._chance = chance

    @override
    async def read(self, keys: Sequence[RowKey], *, deadline_ms: int) -> dict[RowKey, bytes]:
        self.reads += 1
        fails, self.failing = self.failing > 0, max(self.failing - 1, 0)
        found = await self._there_and_back(super().read(keys, deadline_ms=1))
        if fails:
            raise StoreTimeoutError("it is told to fail")
        return found

    @override
    async def write(self, rows: Sequence[StoredRow], *, deadline_ms: int) -> int:
        return await self._there_and_back(super().write(rows, deadline_ms=1))

    @override
    async def lease(
        self, keys: Sequence[RowKey], *, token: bytes, lease_ms: int, deadline_ms: int
    ) -> dict[RowKey, bytes]:
        return await self._there_and_back(super().lease(keys, token=token, lease_ms=lease_ms, deadline_ms=1))

    @override
    async def fill(self, fillings: Sequence[Filling], *, token: bytes, deadline_ms: int) -> int:
        return await self._there_and_back(super().fill(fillings, token=token, deadline_ms=1))

    @override
    async def renew(self, fillings: Sequence[Filling], *, deadline_ms: int) -> int:
        return await self._there_and_back(super().renew(fillings, deadline_ms=1))

    async def _there_and_back(self, work: Coroutine[Any, Any, T]) -> T:
        try:
            await asyncio.sleep(self._chance.uniform(0, _WAY_S))
        except asyncio.CancelledError:
            work.close()
            raise
        done = await work
        await asyncio.sleep(self._chance.uniform(0, _WAY_S))
        return done


class Race:
    """One order of one race.

    Attributes:
        wrong: What went wrong.
    """

    def __init__(self, seed: int) -> None:
        self.chance = random.Random(seed)  # noqa: S311  # the same every time
        self.loop = VirtualLoop()
        self.clock = WallClock(self.loop, 0)
        self.cache, self.record = (SlowStore(name, self.clock, self.chance) for name in ("cache", "record"))
        self.local = LocalCopies(bytes_max=10_000, is_announced=lambda _: True)
        self.reader = self.new_reader(self.local)
        self.wrong: list[str] = []

    def new_reader(self, local: LocalCopies | None = None) -> TieredReader:
        """Return the reading side of a process."""
        return TieredReader(
            local=local, cache=self.cache, record=self.record, clock=self.clock, metrics=METRICS,
            monotonic=self.loop.time, draw=self.chance.random, floor=VersionFloor(rows_max=8),
        )  # fmt: skip

    def run(self, race: "Callable[[Race], Coroutine[Any, Any, None]]") -> list[str]:
        """Let it happen; return what went wrong."""
        try:
            self.loop.run_until(self.loop.create_task(race(self)))
        except (Exception, asyncio.CancelledError) as error:  # noqa: BLE001  # whatever it is, its seed must be told
            self.wrong.append(f"{type(error).__name__}: {error}")
        return self.wrong

    async def read(self, reader: TieredReader | None = None, *, after_s: float = 0.0) -> int:
        """Return the version that somebody is told, 0 for none."""
        await asyncio.sleep(self.chance.uniform(0, after_s))
        rows = await (reader or self.reader).read(_WANTED)
        return rows[KEY].ver if KEY in rows else 0

    async def write(self, ver: int, *, after_s: float = 0.0) -> None:
        """Write a version as its owner does: the record, the cache, then the word to those who keep copies."""
        await asyncio.sleep(self.chance.uniform(0, after_s))
        row = StoredRow(KEY, ver, packed(ver))
        await self.record.write([row], deadline_ms=1)
        await self.cache.write([row], deadline_ms=1)
        self.local.announce([row])

    def expect(self, told: object, wanted: object, what: str) -> None:
        """Note what is not as it must be."""
        if told != wanted:
            self.wrong.append(f"{what}: {told}, must be {wanted}")

    async def expect_all_told(self, ver: int) -> None:
        """Whoever asks now is told a version, here and in a process that has just begun."""
        self.expect(await self.read(), ver, "here is told")
        self.expect(await self.read(self.new_reader()), ver, "elsewhere is told")


async def put_against_refresh(race: Race) -> None:
    """A row is written while its copy is read again, and while others read it."""
    await race.write(1)
    await race.read()
    # About to end: whoever comes now reads it again, early or not.
    await asyncio.sleep(race.chance.uniform(0.0, 0.06))
    writing = asyncio.ensure_future(race.write(2, after_s=0.01))
    told = [await race.read(after_s=0.006) for _ in range(_READERS)]
    race.expect(told, sorted(told), "who asks again is told")
    await writing
    await race.expect_all_told(2)
    await asyncio.sleep(0.03)
    await race.expect_all_told(2)


async def cancelled_leader(race: Race) -> None:
    """Whoever began a load goes away, at any moment of it; the others are told all the same, from one load."""
    await race.record.write([StoredRow(KEY, 1, packed(1))], deadline_ms=1)
    leader = asyncio.ensure_future(race.read())
    followers = [asyncio.ensure_future(race.read(after_s=0.01)) for _ in range(_READERS)]
    await asyncio.sleep(race.chance.uniform(0, 0.03))
    leader.cancel()
    told = await asyncio.gather(*followers)
    race.expect(told, [1] * _READERS, "followers are told")
    race.expect(race.record.reads <= 1, wanted=True, what="the record was asked once")
    await race.expect_all_told(1)


async def failed_leader(race: Race) -> None:
    """A load fails; nobody is told what is not so, and who asks afterwards is told the row."""
    await race.record.write([StoredRow(KEY, 1, packed(1))], deadline_ms=1)
    race.record.failing = 1
    asked = [asyncio.ensure_future(race.read(after_s=0.02)) for _ in range(_READERS)]
    is_written = race.chance.random() < 0.5
    writing = asyncio.ensure_future(race.write(2, after_s=0.03)) if is_written else None
    for told in await asyncio.gather(*asked, return_exceptions=True):
        if not isinstance(told, StoreError):
            race.expect(told in (1, 2), wanted=True, what=f"told {told}, that it is a version")
    if writing is not None:
        await writing
    await race.expect_all_told(2 if is_written else 1)


async def killed_holder(race: Race) -> None:
    """A process that holds the lease dies, at any moment; the others wait for it a moment, and the cache is filled."""
    await race.record.write([StoredRow(KEY, 1, packed(1))], deadline_ms=1)
    process, its = Process("holder"), race.new_reader()
    race.loop.start(process, race.read(its))
    race.loop.later(race.chance.uniform(0, 0.03), race.loop.kill, process)
    began_at = race.loop.time()
    told = await asyncio.gather(*(race.read(after_s=0.01) for _ in range(_READERS)))
    race.expect(told, [1] * _READERS, "who waited is told")
    race.expect(race.loop.time() - began_at < _MOMENT_S, wanted=True, what="they have waited for a moment")
    if race.chance.random() < 0.5:
        await race.write(2)
    ver = race.record._rows[KEY].ver
    await asyncio.sleep(LEASE_MS / 1000)
    await race.expect_all_told(ver)
    await race.expect_all_told(ver)
    held = race.cache._rows[KEY].value
    race.expect(not is_lease(held) and version_of(held), ver, "the cache holds")


async def late_holder(race: Race) -> None:
    """A process that holds the lease stands still while the row is written and evicted, and then fills in what it has."""
    await race.record.write([StoredRow(KEY, 1, packed(1))], deadline_ms=1)
    process, its = Process("holder"), race.new_reader()
    race.loop.start(process, race.read(its))
    await asyncio.sleep(race.chance.uniform(0, 0.03))
    race.loop.stop_process(process)
    await race.write(2)
    # A row that is evicted leaves nothing behind to compare an older one with.
    race.cache._rows.pop(KEY, None)
    reading = asyncio.ensure_future(race.read(after_s=0.01))
    await asyncio.sleep(race.chance.uniform(0, 0.02))
    race.loop.resume(process)
    race.expect(await reading, 2, "who reads meanwhile is told")
    await asyncio.sleep(0.03)
    await race.expect_all_told(2)


RACES = {
    race.__name__: race for race in (put_against_refresh, cancelled_leader, failed_leader, killed_holder, late_holder)
}


def run_race(name: str, seeds: Sequence[int]) -> dict[int, list[str]]:
    """Run one race in the orders of some seeds; return what went wrong, by seed."""
    with undisturbed():
        found = ((seed, Race(seed).run(RACES[name])) for seed in seeds)
        return {seed: wrong for seed, wrong in found if wrong}


def main(seeds: int = 10_000, seed: int = 0, processes: int = 0) -> None:
    """Run each race in so many orders, from a seed on, on so many cores (0 for all)."""
    total = 0
    with short_lived(processes or os.cpu_count() or 1) as pool:
        for name in RACES:
            wrong: dict[int, list[str]] = {}
            for some in pool.map(partial(run_race, name), chunks(seed, seeds, _CHUNK)):
                wrong |= some
            print(json.dumps({"race": name, "orders": seeds, "seed": seed, "wrong": wrong}), flush=True)
            total += len(wrong)
    sys.exit(bool(total))


if __name__ == "__main__":
    typer.run(main)
