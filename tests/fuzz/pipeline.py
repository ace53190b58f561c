"""The way of a batch: the real dispatcher with the real decoders, and the real tables behind it; then the accounts.

Every source offset must come out in exactly one place: in packs, of which every update is then applied, or in one dead
letter that holds what is needed to mend it. Whatever else is seen here is a finding, told with the place of the record.
"""

import asyncio
import logging
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from typing import TypeAlias

from agents.dead_letters import KEY_BYTES_MAX, PAYLOAD_BYTES_MAX, DeadLetter
from agents.decode import decoders_of
from agents.dispatch import Dispatcher
from core.keys import decode_key, kafka_partition
from core.metrics import Metrics
from core.packs import unpack
from core.plans import plan_group
from core.rows import unpack_change, unpack_row, unpack_tail
from core.tiles import finish
from core.topics import DEAD_LETTERS, repartition_topic
from tables.apply import apply_pack
from tables.table import GroupTable, TablePartition, freeze, thaw
from tests.fakes import FakeProducer, Record, Run
from tests.fuzz.domain import PARTITIONS, REGISTRY
from tests.fuzz.expected import Update, expect

log = logging.getLogger(__name__)

_LATER_MS = (0, 300_000, 86_400_000)
_PLANS = {group.name: plan_group(group) for group in REGISTRY.groups}
_DECODERS = decoders_of(REGISTRY)
_LETTER_REASONS = {"malformed", "too_large", "overflow", "late", "future"}

Place: TypeAlias = tuple[str, int, int]
"""Topic, partition and offset of a source record."""


@dataclass
class Outcome:
    """What became of a batch.

    Attributes:
        unaccounted: What is wrong, per source record that is not in exactly one right place.
        dispatched: How many records went on.
        buried: How many were buried, by reason.
        packs: Bytes of the packs, for whoever damages them.
        changes: Bytes of the rows that came of them, by their group's name.
    """

    unaccounted: list[str] = field(default_factory=list)
    dispatched: int = 0
    buried: Counter[str] = field(default_factory=Counter)
    packs: list[bytes] = field(default_factory=list)
    changes: list[tuple[str, bytes]] = field(default_factory=list)


async def carry(records: Sequence[Record], *, ask_every: int = 1) -> Outcome:
    """Carry records, which stand in runs of one source partition, all the way to rows.

    Args:
        records: The batch.
        ask_every: Pydantic is asked about one of so many records.

    Raises:
        Exception: Whatever the pipeline raises: it is a finding.
    """
    producer, finished = FakeProducer(), list[Run]()
    dispatcher = Dispatcher(
        _DECODERS, producer=lambda: producer, finish=finished.append, metrics=Metrics(), topic_ids={"clicks": "t1"}
    )
    runs = [Run(*place, list(run)) for place, run in groupby(records, key=lambda record: record[:2])]
    acknowledging = asyncio.create_task(dispatcher.acknowledge())
    for run in runs:
        await dispatcher.take(run)
    await dispatcher.settle()
    acknowledging.cancel()
    outcome = Outcome()
    if finished != runs:
        outcome.unaccounted.append(f"{len(finished)} of {len(runs)} runs were finished, or out of their order")
    letters, updates = _letters(producer), _apply(producer, outcome)
    for number, record in enumerate(records):
        place = record[:3]
        found = [*_wrong_place(record, letters[place], updates[place])]
        if number % ask_every == 0:
            found += _wrong_verdict(record, letters[place], updates[place])
        outcome.unaccounted += (f"{'/'.join(map(str, place))}: {told}" for told in found)
        outcome.dispatched += bool(updates[place])
        outcome.buried.update(letter.reason for _, letter in letters[place])
    if strangers := (letters.keys() | updates.keys()) - {record[:3] for record in records}:
        outcome.unaccounted.append(f"{len(strangers)} places that no record had, {min(strangers)} first")
    return outcome


def _letters(producer: FakeProducer) -> defaultdict[Place, list[tuple[bytes, DeadLetter]]]:
    found: defaultdict[Place, list[tuple[bytes, DeadLetter]]] = defaultdict(list)
    for sent in producer.to(DEAD_LETTERS):
        letter = DeadLetter.from_record(sent.headers, sent.value)
        found[letter.topic, letter.partition, letter.offset].append((sent.key or b"", letter))
    return found


def _apply(producer: FakeProducer, outcome: Outcome) -> defaultdict[Place, list[Update]]:
    """Apply all packs; return the updates that were counted."""
    updates: defaultdict[Place, list[Update]] = defaultdict(list)
    tables = {
        (repartition_topic(name), partition): _new_table(name, partition)
        for name in REGISTRY.entities
        for partition in range(PARTITIONS)
    }
    for sent in producer.sent:
        if sent.topic == DEAD_LETTERS:
            continue
        table = tables[sent.topic, sent.partition or 0]
        outcome.packs.append(sent.value or b"")
        pack = unpack(sent.value)
        counts = apply_pack(table, pack, sent.offset)
        if counts.applied + counts.duplicates + counts.replays != len(pack.offsets):
            outcome.unaccounted.append(f"a pack of {len(pack.offsets)} updates of {pack.source} was counted {counts}")
        for offset, *update in zip(pack.offsets, pack.keys, pack.event_ids, pack.event_times, strict=True):
            updates[pack.source, pack.partition, offset].append(Update(table.entity, *update))
            if kafka_partition(update[0], PARTITIONS) != sent.partition or not decode_key(update[0]):
                outcome.unaccounted.append(f"{update[0]!r} of {table.entity} is in partition {sent.partition}")
    for table in tables.values():
        outcome.changes += _flush(table)
    return updates


def _new_table(entity: str, partition: int) -> TablePartition:
    groups = [group for group in REGISTRY.groups if group.entity.name == entity]
    sources = {source.topic: source for group in groups for source in group.sources}
    return TablePartition(
        entity, partition, [GroupTable(_PLANS[group.name], 1) for group in groups], list(sources.values())
    )


def _flush(table: TablePartition) -> Iterator[tuple[str, bytes]]:
    """Pack what was changed, and read it as a successor and as a server do."""
    for group in table.groups:
        for key, row in group.dirty.items():
            packed = freeze(group, key, row)
            thaw(group.plan, packed.change)
            stored = unpack_row(unpack_change(packed.change)[0])
            tail = unpack_tail(stored)
            for later_ms in _LATER_MS:
                finish(group.plan, tail, stored.as_of_ms + later_ms)
            yield group.plan.name, packed.change


def _wrong_place(
    record: Record, letters: Sequence[tuple[bytes, DeadLetter]], updates: Sequence[Update]
) -> Iterator[str]:
    if len(letters) + bool(updates) != 1:
        yield f"it is in {len(letters)} dead letters and did {len(updates)} updates"
    if len(updates) != len(set(updates)):
        yield "it did an update twice"
    for key, letter in letters:
        size = len(record.value or b"")
        as_it_was = (
            key == b"%s/%d/%d" % (record.topic.encode(), record.partition, record.offset)
            and letter.payload == (None if record.value is None else record.value[:PAYLOAD_BYTES_MAX])
            and letter.key == (None if record.key is None else record.key[:KEY_BYTES_MAX])
            and (letter.record_time_ms, letter.payload_bytes) == (record.timestamp, size)
        )
        if not as_it_was:
            yield "its dead letter does not hold what it was"
        if letter.reason not in _LETTER_REASONS or not 0 < len(letter.detail) <= 500:
            yield f"its dead letter says {letter.reason}: {letter.detail[:50]!r} of {len(letter.detail)} characters"


def _wrong_verdict(
    record: Record, letters: Sequence[tuple[bytes, DeadLetter]], updates: Sequence[Update]
) -> Iterator[str]:
    expected = expect(record)
    for _, letter in letters:
        if letter.reason not in expected.reasons:
            yield f"it is buried as {letter.reason} ({letter.detail[:100]}), pydantic says {sorted(expected.reasons)}"
    if expected.updates is not None and expected.updates != set(updates):
        yield f"it did {sorted(updates)}, pydantic says {sorted(expected.updates)}"
