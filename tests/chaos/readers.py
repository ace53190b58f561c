"""Readers: they ask every worker that is up, the whole time, and remember what each answer said.

A version that goes back within one process is wrong at once. Whether a value was right at its version is known when
the logs are read, so answers are kept until then.
"""

import asyncio
import random
from collections import Counter
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import aiohttp
import orjson

from tests.chaos.domain import FEATURES
from tests.chaos.findings import Findings
from tests.chaos.fleet import Fleet, Slot
from tests.chaos.oracle import ENTITIES, History, Oracle
from tests.chaos.traffic import ITEMS, USERS

KEYS = {"user": USERS, "item": ITEMS}
GROUPS = {"user": "user_activity", "item": "item_activity"}
ALL_TIME = ("taps_all", "buys_all", "spent_all")
_DEADLINE_S = 5.0
_EVERY_S = 0.1
_KEYS_PER_REQUEST = 8
_BRUTE_MAX = 300
"""So many values of windows are computed by brute force at each check; those of all time all are."""


class Explained(NamedTuple):
    """An answer of ``/explain``."""

    process: str
    entity: str
    key: int
    feature: str
    value: Any
    offset: int
    instant_ms: int


class Read(NamedTuple):
    """What ``/get-online-features`` said of one key: its features of all time."""

    process: str
    entity: str
    key: int
    values: tuple[int, int, int]


@dataclass
class Readers:
    """Whoever reads while things break.

    Attributes:
        failed: Requests without an answer, by reason: workers are killed while they answer.
    """

    fleet: Fleet
    findings: Findings
    chance: random.Random
    explained: list[Explained] = field(default_factory=list)
    reads: list[Read] = field(default_factory=list)
    failed: Counter[str] = field(default_factory=Counter)
    _floors: dict[tuple[str, int], "Floor"] = field(default_factory=dict)
    _seen: dict[tuple[str, str, int], tuple[int, int]] = field(default_factory=dict)
    _counted: dict[tuple[str, str, int], tuple[int, ...]] = field(default_factory=dict)

    async def run(self) -> None:
        """Read from all workers, for ever."""
        timeout = aiohttp.ClientTimeout(total=_DEADLINE_S)
        async with aiohttp.ClientSession(timeout=timeout) as session:
            await asyncio.gather(*(self._read_from(slot, session) for slot in self.fleet.slots))

    async def _read_from(self, slot: Slot, session: aiohttp.ClientSession) -> None:
        # One after the other: answers that overtake each other would look like versions that go back.
        while True:
            await asyncio.sleep(_EVERY_S)
            if not slot.is_alive:
                continue
            process, entity = slot.process_name, self.chance.choice(list(ENTITIES))
            try:
                if self.chance.random() < 0.5:
                    await self._explain(slot, process, entity, session)
                else:
                    await self._read(slot, process, entity, session)
            except (aiohttp.ClientError, TimeoutError) as error:
                self.failed[type(error).__name__] += 1

    async def _explain(self, slot: Slot, process: str, entity: str, session: aiohttp.ClientSession) -> None:
        key, feature = self._key(entity), self.chance.choice(FEATURES[entity])
        query = {"feature": feature, ENTITIES[entity]: str(key)}
        async with session.get(f"{slot.base_url}/explain", params=query) as answer:
            if answer.status != 200:
                self.failed[f"status {answer.status}"] += 1
                return
            told = orjson.loads(await answer.read())
        if slot.process_name != process:
            return
        row = told["row"]
        version = (row["epoch"], row["offset"]) if row is not None else (-1, -1)
        before = self._seen.get((process, entity, key), (-1, -1))
        if version < before:
            self.findings.stale += 1
            self.findings.tell(f"{process} told {entity} {key} at {version} ({told['tier']}) after {before}")
        self._seen[process, entity, key] = max(version, before)
        self._check_flags(told, process)
        name = feature.partition(":")[2]
        self.explained.append(Explained(process, entity, key, name, told["value"], version[1], told["instant_ms"]))

    def _check_flags(self, told: dict[str, Any], process: str) -> None:
        """Compare what an answer says about itself with what it holds."""
        has_row = told["row"] is not None
        expected = {"PRESENT"} | ({"NULL_VALUE"} if told["value"] is None else set()) if has_row else {"NOT_FOUND"}
        # That there is no row may be known here since it was last asked for; otherwise nothing was read anywhere.
        tiers = {"local", "redis", "dynamodb"} if has_row else {"local", None}
        if told["status"] not in expected or told["tier"] not in tiers:
            self.findings.unexplained += 1
            self.findings.tell(
                f"{process} told {told['status']} from {told['tier']} of {told['feature']} {told['key']}"
            )

    async def _read(self, slot: Slot, process: str, entity: str, session: aiohttp.ClientSession) -> None:
        keys = [self._key(entity) for _ in range(_KEYS_PER_REQUEST)]
        features = [f"{GROUPS[entity]}:{name}" for name in ALL_TIME]
        told = await ask(session, slot.base_url, entity, keys, features)
        if told is None:
            self.failed["read"] += 1
            return
        if slot.process_name != process:
            return
        for key, values, statuses in zip(keys, told.values, told.statuses, strict=True):
            if not _are_true(values, statuses, is_partial=told.is_partial):
                self.findings.unexplained += 1
                self.findings.tell(f"{process} read {entity} {key} as {values} with {statuses}")
            if "INVALID" in statuses:
                # It says that it does not know.
                self.failed["row unread"] += 1
                continue
            place = (process, entity, key)
            if any(now < then for now, then in zip(values, self._counted.get(place, (0, 0, 0)), strict=True)):
                self.findings.stale += 1
                self.findings.tell(f"{process} read {entity} {key} as {values} after {self._counted[place]}")
            else:
                self._counted[place] = values
            self.reads.append(Read(process, entity, key, values))

    def _key(self, entity: str) -> int:
        return int(KEYS[entity] * self.chance.random() ** 2)

    def check(self, oracle: Oracle) -> None:
        """Compare what was answered with the oracle's value at some prefix: at that of its version, if it told one."""
        all_time = [one for one in self.explained if one.feature in ALL_TIME]
        windows = [one for one in self.explained if one.feature not in ALL_TIME]
        # Drawn over the whole time: each fault has its share.
        windows = self.chance.sample(windows, min(len(windows), _BRUTE_MAX))
        self.findings.answers += len(all_time) + len(windows) + len(self.reads)
        for one in (*all_time, *windows):
            history = oracle.histories[one.entity][one.key]
            if one.feature in ALL_TIME:
                expected = history.totals(one.offset)[one.feature]
            else:
                expected = history.features(one.entity, one.instant_ms, one.offset)[one.feature]
            self._check_floor(one, one.offset, self._floor(one).offset)
            if one.value != expected:
                self.findings.unexplained += 1
                self.findings.tell(f"{one} must be {expected}")
        for read in self.reads:
            self._check_floor(read, read.values, self._floor(read).values)
            if not oracle.histories[read.entity][read.key].has_prefix(*read.values):
                self.findings.unexplained += 1
                self.findings.tell(f"{read} is the value at no prefix")
        self.explained.clear()
        self.reads.clear()
        for entity, histories in oracle.histories.items():
            self._floors |= {(entity, key): Floor.of(history) for key, history in histories.items()}

    def _floor(self, one: Explained | Read) -> "Floor":
        return self._floors.get((one.entity, one.key), Floor(-1, (0, 0, 0)))

    def _check_floor(self, one: Explained | Read, found: Any, least: Any) -> None:
        """Note an answer of before the last time when everything was seen to be everywhere, or of none."""
        is_old = found < least if isinstance(found, int) else any(map(int.__lt__, found, least))
        if is_old:
            self.findings.stale += 1
            self.findings.tell(f"{one} is older than {least}, which was everywhere before")


class Floor(NamedTuple):
    """What is known to be everywhere of one key.

    Attributes:
        offset: Of its newest event in the repartition topic.
        values: Its features of all time.
    """

    offset: int
    values: tuple[int, int, int]

    @classmethod
    def of(cls, history: History) -> "Floor":
        offset = history.events[-1][0] if history.events else -1
        totals = history.totals(offset)
        return cls(offset, (totals["taps_all"], totals["buys_all"], totals["spent_all"]))


def _are_true(values: tuple[Any, ...], statuses: tuple[str, ...], *, is_partial: bool) -> bool:
    """Whether statuses say of features of all time what they are: all there, of no event at all, or all unread."""
    if set(statuses) == {"INVALID"}:
        return is_partial and set(values) == {None}
    return set(statuses) == {"PRESENT"} or (set(statuses) == {"NOT_FOUND"} and not any(values))


class Told(NamedTuple):
    """An answer of ``/get-online-features``.

    Attributes:
        values: Of each key, in the order of the features.
        statuses: Likewise.
        is_partial: Whether it says that rows of its group could not be read.
    """

    instant_ms: int
    values: list[tuple[Any, ...]]
    statuses: list[tuple[str, ...]]
    is_partial: bool


async def ask(
    session: aiohttp.ClientSession, base_url: str, entity: str, keys: list[int], features: list[str]
) -> Told | None:
    """Return features of keys, or None if the worker answers with a failure."""
    body = orjson.dumps({"entities": {ENTITIES[entity]: keys}, "features": features})
    headers = {"Content-Type": "application/json"}
    async with session.post(f"{base_url}/get-online-features", data=body, headers=headers) as answer:
        if answer.status != 200:
            return None
        told = orjson.loads(await answer.read())
    columns = [result["values"] for result in told["results"]][1:]
    statuses = [result["statuses"] for result in told["results"]][1:]
    metadata = told["metadata"]
    rows, told_of = list(zip(*columns, strict=True)), list(zip(*statuses, strict=True))
    return Told(metadata["instant_ms"], rows, told_of, metadata.get("unread") == [GROUPS[entity]])
