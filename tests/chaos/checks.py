"""Checks: once everything has settled, all keys everywhere are compared with the oracle, and the ledgers with the logs."""

import asyncio
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp

from app.clock import SystemClock
from app.dead_letters import headers_of, letter_of
from app.endpoints import open_cache, open_endpoints, open_record
from app.kafka.admin import KafkaAdmin
from app.kafka.groups import group_of
from app.settings import Role, load_settings
from core.errors import BrokerError
from core.leases import NO_ROW, is_lease
from core.plans import plan_group
from core.ports import RowKey, Store
from core.rows import unpack_change, unpack_row, unpack_tail
from core.tiles import finish
from core.topics import DEAD_LETTERS, changelog_topic, repartition_topic
from tests.chaos.domain import FEATURES, REGISTRY
from tests.chaos.findings import Findings
from tests.chaos.fleet import Fleet
from tests.chaos.ground import Ground
from tests.chaos.ledger import read_ledger
from tests.chaos.log import Logs
from tests.chaos.oracle import Oracle
from tests.chaos.readers import ask

SETTLE_S = 180.0
_POLL_S = 0.2
_STORE_KEYS = 500
_DEADLINE_S = 30.0
_MEND_S = 30.0
"""Several times what a worker takes to see that a dead one's bytes landed late."""
_COUNTS = ("taps_all", "buys_all")


@dataclass
class Checks:
    """Knows what was checked already, so that each record is looked at once.

    Attributes:
        lost_cache_ms: When Redis has last lost what it had; older rows may be missing in it.
    """

    ground: Ground
    fleet: Fleet
    findings: Findings
    ledgers: list[Path]
    oracle: Oracle = field(default_factory=Oracle)
    lost_cache_ms: int = 0
    _rows: dict[RowKey, bytes] = field(default_factory=dict)
    _last: dict[RowKey, bytes] = field(default_factory=dict)
    _ledger_ends: dict[Path, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        bootstrap = self.ground.kafka.bootstrap
        self._topics = {changelog_topic(name): name for name in REGISTRY.entities}
        self._entities = {repartition_topic(name): name for name in REGISTRY.entities}
        self._sources = Logs(bootstrap, list(REGISTRY.sources))
        self._packs = Logs(bootstrap, [*self._entities, DEAD_LETTERS])
        self._changes = Logs(bootstrap, list(self._topics))
        self._plans = {f"{group.name}@v1": plan_group(group) for group in REGISTRY.groups}

    def close(self) -> None:
        """Close the connections."""
        for logs in (self._sources, self._packs, self._changes):
            logs.close()

    async def settle(self) -> None:
        """Wait until all workers are ready, everything sent is committed and no cache is owed anything."""
        admin = KafkaAdmin(self.ground.access)
        await self._until(self._all_ready, "all workers are ready")
        for topics in (list(REGISTRY.sources), list(self._entities)):
            logs = self._sources if topics == list(REGISTRY.sources) else self._packs
            ends = {place: end for place, end in (await asyncio.to_thread(logs.ends)).items() if place[0] in topics}

            async def is_committed(ends: Mapping[tuple[str, int], int] = ends) -> str:
                try:
                    committed = await asyncio.to_thread(admin.offsets, group_of(Role.ALL))
                except BrokerError as error:
                    return str(error)
                left = {
                    place: end - committed.get(place, 0) for place, end in ends.items() if committed.get(place, 0) < end
                }
                return str(left) if left else ""

            await self._until(is_committed, f"everything of {topics} is durable")
        await self._until(self._all_paid, "no cache is owed anything")

    async def _until(self, missing: Callable[[], Any], what: str) -> None:
        deadline = time.monotonic() + SETTLE_S
        while left := await missing():
            if time.monotonic() > deadline:
                raise TimeoutError(f"not within {SETTLE_S:.0f} s: {what}: {left}")
            await asyncio.sleep(_POLL_S)

    async def _all_ready(self) -> str:
        facts = await self._facts()
        return "" if all(one.get("ready") for one in facts.values()) else str(facts)

    async def _all_paid(self) -> str:
        facts = await self._facts()
        return "" if all(one.get("cache_owed") == 0 and one.get("lag") == 0 for one in facts.values()) else str(facts)

    async def _facts(self) -> dict[str, dict[str, Any]]:
        facts = {}
        async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=2)) as session:
            for slot in [slot for slot in self.fleet.slots if slot.wanted or slot.is_alive]:
                try:
                    async with session.get(f"{slot.base_url}/ready/ingest") as answer:
                        facts[slot.name] = await answer.json()
                except (aiohttp.ClientError, TimeoutError) as error:
                    facts[slot.name] = {"ready": False, "error": repr(error)}
        return facts

    # -- everything in its place

    async def check(self) -> None:
        """Compare everything."""
        await asyncio.to_thread(self._read_logs)
        self._check_accounts()
        await self._check_served()
        await self._check_rows()

    def _read_logs(self) -> None:
        for message in self._sources.read():
            place = (message.topic(), message.partition(), message.offset())
            self.oracle.source_record(place, message.timestamp()[1], message.value())
        for message in self._packs.read():
            if message.topic() == DEAD_LETTERS:
                letter = letter_of(message)
                assert "mark" not in headers_of(message)
                self.oracle.letter((letter.topic, letter.partition, letter.offset), letter.reason)
            else:
                self.oracle.packed_record(self._entities[message.topic()], message.offset(), message.value())
        for message in self._changes.read():
            key = RowKey(*message.key().decode().split(" "))
            if message.value() is not None:
                row = self._last[key] = unpack_change(message.value())[0]
                self._rows[key] = max(self._rows.get(key, b""), row, key=lambda one: one[:8])

    def _check_accounts(self) -> None:
        for path in self.ledgers:
            for line, end in read_ledger(path, self._ledger_ends.get(path, 0)):
                self._ledger_ends[path] = end
                if not self.oracle.check_ledger(line.topic, line.partition, line.offset, line.crc):
                    self.findings.lost += 1
                    self.findings.tell(f"{line} was acknowledged and does not lie there")
                elif line.offset is not None:
                    place = (line.topic, line.partition, line.offset)
                    if not self.oracle.is_meant(place, line.kind):
                        self.oracle.problems.append(f"{line} was judged as something else")
        self.oracle.settle()
        self.findings.lost += self.oracle.counts.pop("in no set", 0)
        self.findings.double += self.oracle.counts.pop("in two sets", 0)
        self.findings.unexplained += len(self.oracle.problems)
        for problem in self.oracle.problems:
            self.findings.tell(problem)
        self.oracle.problems.clear()

    async def _check_served(self) -> None:
        async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=_DEADLINE_S)) as session:
            for slot in self.fleet.alive:
                for entity, histories in self.oracle.histories.items():
                    keys, features = list(histories), FEATURES[entity]
                    told = await ask(session, slot.base_url, entity, keys, features)
                    if told is None:
                        self.findings.unexplained += 1
                        self.findings.tell(f"{slot.process_name} does not answer")
                        continue
                    names = [feature.partition(":")[2] for feature in features]
                    for key, values in zip(keys, told.values, strict=True):
                        self._compare(
                            slot.process_name, entity, key, dict(zip(names, values, strict=True)), told.instant_ms
                        )
                        await asyncio.sleep(0)

    def _compare(self, where: str, entity: str, key: int, found: Mapping[str, Any], instant_ms: int) -> None:
        """Compare all features of a key; a count that differs says how many events are lost or double."""
        expected = self.oracle.histories[entity][key].features(entity, instant_ms)
        self.findings.answers += 1
        if found == expected:
            return
        missing = sum(expected[name] - found[name] for name in _COUNTS)
        if missing > 0:
            self.findings.lost += missing
        elif missing < 0:
            self.findings.double -= missing
        else:
            self.findings.unexplained += 1
        self.findings.tell(f"{where}: {entity} {key} is {dict(found)}, must be {expected}")

    async def _check_rows(self) -> None:
        """Compare the highest version of every row in the changelog with the oracle, the record and Redis."""
        await self._check_changelog()
        instant_ms = SystemClock().now_ms()
        for key, value in self._rows.items():
            row, plan = unpack_row(value), self._plans[key.sk]
            entity, _, encoded = key.pk.partition("#")
            finished = finish(plan, unpack_tail(row), instant_ms).values
            names = [feature.name for feature in plan.features]
            self._compare("changelog", entity, int(encoded[1:]), dict(zip(names, finished, strict=True)), instant_ms)
        names = {name.removeprefix("FRESHET_").lower(): value for name, value in self.ground.settings.items()}
        endpoints = open_endpoints(load_settings(**names), REGISTRY)
        cache = open_cache(endpoints, ca=None)
        assert cache is not None
        for store in (open_record(endpoints, SystemClock()), cache):
            try:
                stored = await _read_all(store, list(self._rows))
            finally:
                await store.close()
            for key, value in self._rows.items():
                if stored.get(key) == value:
                    continue
                if store is cache and key not in stored and unpack_row(value).as_of_ms <= self.lost_cache_ms:
                    continue
                self.findings.stale += 1
                version = unpack_row(stored[key]).ver if key in stored else None
                self.findings.tell(f"{key} is {unpack_row(value).ver} in the changelog and {version} in {store.name}")

    async def _check_changelog(self) -> None:
        """Note keys without a row, and rows after which an older one stands for good: compaction would keep that."""
        has = {(entity, int(encoded[1:])) for entity, _, encoded in (key.pk.partition("#") for key in self._rows)}
        for entity, histories in self.oracle.histories.items():
            for key, history in histories.items():
                if history.events and (entity, key) not in has:
                    self.findings.lost += len(history.events)
                    self.findings.tell(f"{entity} {key} has no row in the changelog")
        ends = time.monotonic() + _MEND_S
        while (hidden := self._hidden()) and time.monotonic() < ends:
            await asyncio.sleep(_POLL_S)
            await asyncio.to_thread(self._read_logs)
        for key in hidden:
            self.findings.stale += 1
            self.findings.tell(f"{key} stands last in the changelog in a version that is not its highest")

    def _hidden(self) -> list[RowKey]:
        return [key for key, row in self._rows.items() if self._last[key][:8] < row[:8]]


async def _read_all(store: Store, keys: list[RowKey]) -> dict[RowKey, bytes]:
    found: dict[RowKey, bytes] = {}
    for start in range(0, len(keys), _STORE_KEYS):
        held = await store.read(keys[start : start + _STORE_KEYS], deadline_ms=30_000)
        # A reader's lease is no row; neither is there one where the cache is told so, which is found out as missing.
        found |= {key: value for key, value in held.items() if value != NO_ROW and not is_lease(value)}
    return found
