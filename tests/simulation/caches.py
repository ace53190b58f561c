"""Caches in simulated worlds: one owner writes rows, several processes read them, and copies come, go and are late.

Copies end early and are read again before they do, processes that do not hear of changes hold copies in some worlds, and
one is killed in others.

What runs is the reading side as it is (``serving.tiers.reader`` with its fills, flights and copies) and what writes the cache
(``agents.cache_debt``). The stores, the network before them, evictions and time are simulated.
``tests.simulation.cache_runs`` runs many.
"""

import asyncio
import random
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial

from agents.cache_debt import CacheDebt
from agents.store_write import try_write
from core.definitions import ServingPolicy
from core.errors import StoreError
from core.leases import NO_ROW, is_lease
from core.ports import Cache, Filling, RowKey, StoredRow
from core.rows import pack_row
from core.versions import version_of
from core.windows import NEVER_MS, seconds
from serving.tiers.floor import VersionFloor
from serving.tiers.local import LocalCopies
from serving.tiers.reader import TieredReader
from serving.tiers.wanted import Terms, Wanted
from stores.memory import MemoryStore
from tests.simulation.loop import Process, StuckError, VirtualLoop
from tests.simulation.network import Network
from tests.simulation.runs import undisturbed
from tests.simulation.stores import SimulatedStore, run_now
from tests.simulation.worker import METRICS, WallClock

THROUGH, AROUND = "spend@v1", "quiet@v1"
KEYS = (RowKey("user#i0", THROUGH), RowKey("user#i1", THROUGH), RowKey("user#i0", AROUND))
MEANING = bytes(8)
_TTLS_S = (0.05, 0.5, 30.0)
_BUSY_S = 0.12
_LATER_S = 3.5
"""Until when something happens in some worlds: leases and copies have ended by then."""
_SETTLE_S = 6.0
"""Longer than a lease lasts and than a message is late."""
_ONE_READ_S = 1.0
_LATEST_S = (0.12, 0.3, 1.5)


class SimulatedCache(SimulatedStore, Cache):
    """One process' way to the cache."""

    async def lease(
        self, keys: Sequence[RowKey], *, token: bytes, lease_ms: int, deadline_ms: int
    ) -> dict[RowKey, bytes]:
        held = self._held
        return await self._ask(
            lambda: run_now(held.lease(keys, token=token, lease_ms=lease_ms, deadline_ms=1)), deadline_ms
        )

    async def fill(self, fillings: Sequence[Filling], *, token: bytes, deadline_ms: int) -> int:
        held = self._held
        return await self._ask(lambda: run_now(held.fill(fillings, token=token, deadline_ms=1)), deadline_ms)

    async def renew(self, fillings: Sequence[Filling], *, deadline_ms: int) -> int:
        held = self._held
        return await self._ask(lambda: run_now(held.renew(fillings, deadline_ms=1)), deadline_ms)


@dataclass(slots=True)
class Sum:
    """What became of several interleavings.

    Attributes:
        wrong: Seeds that went wrong, and how.
        cpu_s: Seconds of one core.
    """

    interleavings: int = 0
    steps: int = 0
    cpu_s: float = 0.0
    wrong: dict[int, list[str]] = field(default_factory=dict)

    def add(self, other: "Sum") -> None:
        """Add others."""
        self.interleavings += other.interleavings
        self.steps += other.steps
        self.cpu_s += other.cpu_s
        self.wrong |= other.wrong


def packed(ver: int) -> bytes:
    """Return a row whose one value is its version."""
    return pack_row(
        ver=ver, fingerprint=MEANING, as_of_ms=1, valid_from_ms=1, valid_until_ms=2, expires_at_ms=NEVER_MS,
        event_time_ms=1, values=[ver], tail=[],
    )  # fmt: skip


class CacheWorld:
    """One interleaving."""

    def __init__(self, seed: int) -> None:
        self._chance = chance = random.Random(seed)  # noqa: S311  # the same every time
        self._loop = loop = VirtualLoop()
        loss = chance.choice((0.0, 0.0, 0.05))
        late, latest_s = chance.choice((0.0, 0.2, 0.4)), chance.choice(_LATEST_S)
        self._network = Network(loop, chance, loss=loss, late=late, latest_s=latest_s)
        self._clock = clock = WallClock(loop, 0)
        self._cache, self._record = MemoryStore(clock), MemoryStore(clock)
        cache = SimulatedCache("cache", self._cache, self._network)
        record = SimulatedStore("record", self._record, self._network)
        self._record_way = record
        ttls_s = sorted(chance.choices(_TTLS_S, k=2))
        self._policy = ServingPolicy(
            tier=chance.choice(("remote", "remote", "local")),
            soft_ttl=seconds(ttls_s[0]),
            hard_ttl=seconds(ttls_s[1]),
            negative_ttl=seconds(chance.choice(_TTLS_S)),
            jitter=chance.choice((0.0, 0.1, 0.9)),
            early_refresh=chance.choice((0.0, 1.0, 8.0)),
        )
        # The first process owns the rows' partition, but for a while in some worlds; then another one writes them.
        self._owns = True
        self._local = LocalCopies(bytes_max=100_000, is_announced=lambda _key: self._owns)
        self._wanted = {key: Wanted(key, Terms(self._policy, key.sk == THROUGH, MEANING)) for key in KEYS}
        self._open_reader = partial(
            TieredReader, cache=cache, record=record, clock=clock, metrics=METRICS, monotonic=loop.time,
            hears=lambda: self._owns, draw=chance.random,
        )  # fmt: skip
        self._readers = [
            self._new_reader(local=self._local),
            self._new_reader(local=self._deaf_copies() if self._policy.tier == "local" else None),
        ]
        lifetimes = {THROUGH: int(ttls_s[1] * 1000)}
        self._debt = CacheDebt(cache, record, METRICS, clock, lifetimes=lifetimes, announce=self._announce)
        self._seen: dict[tuple[int, RowKey], int] = {}
        self._vers = dict.fromkeys(KEYS, 0)
        self._wrong: list[str] = []

    def _new_reader(self, *, local: LocalCopies | None) -> TieredReader:
        # To make room for 65,536 versions takes longer than everything else in some worlds.
        return self._open_reader(local=local, floor=VersionFloor(rows_max=256))

    def _deaf_copies(self) -> LocalCopies:
        return LocalCopies(bytes_max=100_000, is_announced=lambda _key: False)

    def run(self) -> tuple[list[str], int]:
        """Run it to its end; return what is wrong, and the number of steps."""
        loop = self._loop
        try:
            loop.run_until(loop.create_task(self._drive()))
        except StuckError as error:
            self._wrong.append(f"it does not end: {error}")
        except Exception as error:  # noqa: BLE001  # whatever it is, its seed must be told
            self._wrong.append(f"{type(error).__name__}: {error}")
        return self._wrong, loop.steps

    async def _drive(self) -> None:
        chance, loop = self._chance, self._loop
        settling = loop.create_task(self._debt.settle())
        self._busy_s = chance.choice((_BUSY_S, _BUSY_S, _LATER_S))
        work = [loop.create_task(self._write(key, chance.randint(0, 3))) for key in KEYS]
        work += [
            loop.create_task(self._read(number, chance.randint(1, 4)))
            for number in range(len(self._readers))
            for _ in range(chance.randint(1, 2))
        ]
        if chance.random() < 0.3:
            self._start_mortal()
        for _ in range(chance.randint(0, 8)):
            loop.later(chance.uniform(0, 3 * self._busy_s), self._evict, chance.choice(KEYS))
        for service in ("cache", "record"):
            if chance.random() < 0.2:
                loop.later(chance.uniform(0, self._busy_s), self._cut, service, chance.uniform(0, 2 * self._busy_s))
        if chance.random() < 0.3:
            away_s = chance.uniform(0, self._busy_s)
            loop.later(away_s, self._lose)
            loop.later(away_s + chance.uniform(0, self._busy_s), self._gain)
        await asyncio.gather(*work)
        # Whatever may still break breaks before this.
        await asyncio.sleep(max(3 * self._busy_s - loop.time(), 0))
        self._network.loss = self._network.late = 0.0
        self._network.cut_until.clear()
        await asyncio.sleep(_SETTLE_S)
        settling.cancel()
        if self._policy.tier == "local":
            # Who does not hear of changes may be that far behind.
            await asyncio.sleep(max(_TTLS_S))
        await self._check()

    # -- what happens

    async def _write(self, key: RowKey, times: int) -> None:
        """Write versions of a row as the publisher does: the record, then the cache or a debt, then all copies here."""
        chance = self._chance
        for _ in range(times):
            await asyncio.sleep(chance.uniform(0, self._busy_s))
            self._vers[key] += 1
            row = StoredRow(key, self._vers[key], packed(self._vers[key]))
            left = [row]
            while left:
                left, _, _ = await try_write(self._record_way, left, deadline_ms=100, metrics=METRICS)
                if not left and chance.random() < 0.1:
                    # The writer has died between record and cache; its successor writes the row once more.
                    await asyncio.sleep(chance.uniform(0, _BUSY_S))
                    left = [row]
            await self._debt.write([row])
            self._announce([row])

    def _announce(self, rows: Sequence[StoredRow]) -> None:
        if self._owns:
            self._local.announce(rows)

    def _lose(self) -> None:
        self._owns = False
        self._local.clear()

    def _gain(self) -> None:
        # As a worker does when it takes partitions over.
        self._owns = True
        self._local.clear()

    def _start_mortal(self) -> None:
        """Let another process read for a while and then die, perhaps with a lease, perhaps in the middle of a filling."""
        process = Process("mortal")
        self._readers.append(self._new_reader(local=None))
        self._loop.start(process, self._read(len(self._readers) - 1, 3))
        self._loop.later(self._chance.uniform(0, self._busy_s), self._loop.kill, process)

    def _cut(self, service: str, for_s: float) -> None:
        self._network.cut_until[service] = self._loop.time() + for_s

    async def _read(self, number: int, times: int) -> None:
        chance = self._chance
        for _ in range(times):
            await asyncio.sleep(chance.uniform(0, self._busy_s))
            keys = KEYS if chance.random() < 0.5 else (chance.choice(KEYS),)
            before = {key: self._seen.get((number, key), 0) for key in keys}
            reading = self._loop.create_task(self._readers[number].read([self._wanted[key] for key in keys]))
            if chance.random() < 0.1:
                self._loop.later(chance.uniform(0, 0.01), reading.cancel)
            try:
                rows = await reading
            except (StoreError, asyncio.CancelledError):
                continue
            for key in keys:
                self._judge(number, key, rows[key].values[0] if key in rows else 0, before[key])

    def _judge(self, number: int, key: RowKey, ver: int, before: int) -> None:
        if ver < before:
            self._wrong.append(f"process {number} was told {ver} of {key} after {before}")
        if ver > self._vers[key]:
            self._wrong.append(f"process {number} was told {ver} of {key}, which there is not yet")
        self._seen[number, key] = max(ver, self._seen.get((number, key), 0))

    def _evict(self, key: RowKey) -> None:
        self._cache._rows.pop(key, None)

    def _lives_s(self) -> float:
        policy = self._policy
        return min(policy.hard_ttl, policy.negative_ttl).total_seconds() * (1 - policy.jitter)

    # -- the end

    async def _check(self) -> None:
        # The last one has just begun: it has no copies and asks the cache.
        readers = [*self._readers[:2], self._new_reader(local=None)]
        for key, ver in self._vers.items():
            for number, reader in enumerate(readers):
                rows = await reader.read([self._wanted[key]])
                told = rows[key].values[0] if key in rows else 0
                if told != ver:
                    self._wrong.append(f"process {number} is told {told} of {key} for good, must be {ver}")
            held = self._cache._rows.get(key)
            if key.sk == AROUND or (held is not None and (held.expires_at_ms or NEVER_MS) <= self._clock.now_ms()):
                continue
            if held is None and self._lives_s() < _ONE_READ_S:
                # It has expired while it was read, and who wanted to renew it has found it gone.
                continue
            if held is None or is_lease(held.value):
                self._wrong.append(f"the cache was not filled with {key}")
            elif (held.value == NO_ROW) is not (ver == 0) or (ver and version_of(held.value) != ver):
                self._wrong.append(f"the cache holds {held.value[:8]!r} of {key}, must be {ver}")


def run_caches(seeds: Sequence[int]) -> Sum:
    """Run the interleavings of some seeds."""
    total, started = Sum(interleavings=len(seeds)), time.process_time()
    with undisturbed():
        for seed in seeds:
            wrong, steps = CacheWorld(seed).run()
            total.steps += steps
            if wrong:
                total.wrong[seed] = wrong
    total.cpu_s = time.process_time() - started
    return total
