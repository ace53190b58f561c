"""A small world of the demo's events: source logs, what dispatchers make of them, and tables that apply it.

Everything is drawn by one source of chance, so that an example of hypothesis is a pair of events and a seed.
"""

import asyncio
import json
import random
from collections import defaultdict
from dataclasses import replace

from hypothesis import strategies as st

from agents.decode import decoders_of
from agents.dispatch import Dispatcher
from core.definitions import Registry
from core.metrics import Metrics
from core.packs import Pack, unpack
from core.plans import plan_group
from core.rows import unpack_change, unpack_row, unpack_tail
from core.tiles import finish
from core.topics import repartition_topic
from core.versions import version_of
from demo.log import DemoEvent
from demo.oracle import Oracle, same
from features import REGISTRY
from tables.table import GroupTable, TablePartition, freeze
from tests.engines import present_engine
from tests.fakes import FakeProducer, Record, Run
from tests.packed import cool, packed_rows

NOW_MS = 1_700_000_000_000
HOUR_MS = 3_600_000
METRICS = Metrics()
# One partition each: what happens to one of them happens to all.
DEFINITIONS = Registry(
    tuple(replace(group, entity=replace(group.entity, partitions=1)) for group in REGISTRY.groups), REGISTRY.services
)
PLANS = {group.name: plan_group(group) for group in DEFINITIONS.groups}
SOURCES = list(DEFINITIONS.sources.values())
TOPICS = ["impressions", "clicks", "conversions"]

AGES_MS = st.sampled_from([-9_000, 0, 1, 24_999, 299_999, 300_000, 301_000, HOUR_MS - 1, HOUR_MS]) | st.integers(
    0, HOUR_MS
)
DRAWN = st.lists(
    st.tuples(
        st.sampled_from(TOPICS), st.integers(0, 1), st.integers(1, 3), st.integers(1, 2), AGES_MS, st.integers(0, 9_000)
    ),
    min_size=1,
    max_size=25,
)


def event_of(number, topic, user, video, time_ms, watch_ms) -> DemoEvent:
    fields = {"event_id": f"e{number}", "time_ms": time_ms, "user_id": user, "video_id": video, "tab": watch_ms % 2}
    if topic == "impressions":
        fields |= {"watch_ms": watch_ms, "duration_ms": 5_000}
    if topic == "conversions":
        fields |= {"kind": ("like", "follow", "forward", "long_view")[watch_ms % 4]}
    return DemoEvent(topic, str(user), time_ms=time_ms, fields=fields)


WORLDS = st.builds(
    lambda drawn, seed: World(drawn, random.Random(seed)),  # noqa: S311  # the same chances every time
    DRAWN,
    st.integers(0, 2**32),
)


class World:
    """Source logs made of drawn events, some of them repeated, and what dispatchers made of them.

    Attributes:
        logs: Records by topic and partition.
        packs: Repartition log by entity: its offsets are places in the list.
    """

    def __repr__(self) -> str:
        return f"World({self.events})"

    def __init__(self, drawn, chance: random.Random) -> None:
        self.chance = chance
        self.events: list[DemoEvent] = []
        self.logs: defaultdict[tuple[str, int], list[Record]] = defaultdict(list)
        for number, (topic, partition, user, video, age_ms, watch_ms) in enumerate(drawn):
            record_ms = NOW_MS + 10_000 * number
            event = event_of(number, topic, user, video, record_ms - age_ms, watch_ms)
            self.events.append(event)
            self._produce(event, partition, record_ms)
            for _ in range(chance.choice([0, 0, 0, 1, 2])):
                self._produce(event, chance.randrange(2), record_ms)
        self.instant_ms = NOW_MS + 10_000 * len(drawn)
        self.packs = asyncio.run(self._dispatch())

    def _produce(self, event, partition, record_ms) -> None:
        log = self.logs[event.topic, partition]
        log.append(Record(event.topic, partition, len(log), record_ms, None, json.dumps(event.fields).encode()))

    async def _dispatch(self) -> dict[str, list[Pack]]:
        """Send everything on in runs; now and then a dispatcher dies and another begins from an older commit."""
        producer = FakeProducer()
        dispatcher = Dispatcher(
            decoders_of(DEFINITIONS),
            producer=lambda: producer,
            finish=lambda run: None,
            metrics=METRICS,
            topic_ids={},
        )
        read = dict.fromkeys(self.logs, 0)
        while unread := [place for place, log in self.logs.items() if read[place] < len(log)]:
            place = self.chance.choice(unread)
            end = read[place] + self.chance.randint(1, 4)
            await dispatcher.take(Run(*place, self.logs[place][read[place] : end]))
            read[place] = min(end, len(self.logs[place]))
            if self.chance.random() < 0.2:
                read[place] = self.chance.randint(0, read[place])
        return {
            entity: [unpack(sent.value) for sent in producer.to(repartition_topic(entity))]
            for entity in DEFINITIONS.entities
        }

    def of(self, entity: str) -> tuple[int, int]:
        """How many distinct events, and how many records, touch an entity."""
        topics = {
            source.topic for group in DEFINITIONS.groups if group.entity.name == entity for source in group.sources
        }
        return (
            sum(event.topic in topics for event in self.events),
            sum(len(log) for (topic, _), log in self.logs.items() if topic in topics),
        )

    def check(self, entity: str, table: TablePartition) -> None:
        """Compare every value of every key with the oracle's."""
        oracle = Oracle(self.events)
        for key in oracle.keys(entity):
            values = values_of(table, "|".join(f"i{part}" for part in key), self.instant_ms)
            for name, expected in oracle.expected(entity, key, self.instant_ms).items():
                assert same(expected, values[name]), (entity, key, name)


def new_table(entity: str, changes=()) -> TablePartition:
    """A table as its next owner restores it: of every key the highest version."""
    groups = [
        GroupTable(PLANS[group.name], 1, present_engine())
        for group in DEFINITIONS.groups
        if group.entity.name == entity
    ]
    table = TablePartition(entity, 0, groups, SOURCES)
    for sk, key, change in changes:
        table.group(sk).put_packed(key, change, version_of(unpack_change(change)[0]))
    return table


def flush(table, *, chosen=lambda: True) -> list[tuple[str, str, bytes]]:
    """Pack dirty rows as a flush does, and let rows cool down; some that are not chosen stay dirty."""
    flushed = [
        (group.sk, key, freeze(group, key, group.dirty.pop(key)).change)
        for group in table.groups
        for key in [key for key in group.dirty if chosen()]
    ]
    for group in table.groups:
        cool(group)
    return flushed


def values_of(table, key, instant_ms):
    values = {}
    for group in table.groups:
        change = packed_rows(group).get(key)
        tail = unpack_tail(unpack_row(unpack_change(change)[0])) if change is not None else []
        found = finish(group.plan, tail, instant_ms).values
        values |= {
            f"{group.plan.name}:{feature.name}": value
            for feature, value in zip(group.plan.features, found, strict=True)
        }
    return values
