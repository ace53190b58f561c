"""What must hold when a world has settled: every record in one set, every row the oracle's, the same bytes everywhere."""

from collections.abc import Iterator, Mapping

from aiokafka import TopicPartition

from agents.dead_letters import DeadLetter
from core.ports import RowKey
from core.rows import unpack_change, unpack_row, unpack_tail
from core.tiles import finish
from core.topics import DEAD_LETTERS, changelog_topic
from core.versions import version_of
from tests.chaos.oracle import Oracle
from tests.simulation.worker import ENTITIES, PARTITIONS, PLANS, SOURCES, Outside


def check(outside: Outside, instant_ms: int, *, lost_copies: Mapping[RowKey, bytes]) -> list[str]:
    """Return what is wrong; a copy that the cache has lost may be missing until its row changes."""
    oracle = _read(outside)
    oracle.settle()
    rows = _rows(outside)
    wrong = list(oracle.problems)
    wrong += _values(oracle, rows, instant_ms)
    for key, value in rows.items():
        held = outside.record._rows.get(key)
        if held is None or held.value != value:
            wrong.append(f"record: {key} is {_told(held and held.value)}, in the changelog {_told(value)}")
        copy = outside.cache._rows.get(key)
        if copy is None:
            if lost_copies.get(key) != value:
                wrong.append(f"cache: {key} is not there")
        elif copy.value != value:
            wrong.append(f"cache: {key} is {_told(copy.value)}, in the changelog {_told(value)}")
    return wrong


def _read(outside: Outside) -> Oracle:
    oracle, logs = Oracle(), outside.broker.logs
    for topic in SOURCES:
        for partition in range(PARTITIONS):
            for entry in logs[TopicPartition(topic, partition)].entries:
                oracle.source_record((topic, partition, entry.offset), entry.timestamp, entry.value)
    for topic, entity in ENTITIES.items():
        for partition in range(PARTITIONS):
            for entry in logs[TopicPartition(topic, partition)].entries:
                oracle.packed_record(entity, entry.offset, entry.value or b"")
    for entry in logs[TopicPartition(DEAD_LETTERS, 0)].entries:
        letter = DeadLetter.from_record(entry.headers, entry.value)
        oracle.letter((letter.topic, letter.partition, letter.offset), letter.reason)
    return oracle


def _rows(outside: Outside) -> dict[RowKey, bytes]:
    """Return what a restore would find after a compaction: the highest version of what is left of each key."""
    rows: dict[RowKey, bytes] = {}
    for entity in ENTITIES.values():
        for partition in range(PARTITIONS):
            log = outside.broker.logs[TopicPartition(changelog_topic(entity), partition)]
            log.compact()
            for entry in log.entries:
                pk, sk = (entry.key or b"").decode().split(" ")
                row = unpack_change(entry.value or b"")[0]
                rows[RowKey(pk, sk)] = max(rows.get(RowKey(pk, sk), b""), row, key=version_of)
    return rows


def _values(oracle: Oracle, rows: dict[RowKey, bytes], instant_ms: int) -> Iterator[str]:
    for group, plan in PLANS.items():
        entity = plan.group.entity.name
        for key, history in oracle.histories[entity].items():
            value = rows.get(RowKey(f"{entity}#i{key}", f"{group}@v1"))
            if value is None:
                yield f"{entity} {key} has no row"
                continue
            finished = finish(plan, unpack_tail(unpack_row(value)), instant_ms).values
            found = dict(zip([feature.name for feature in plan.features], finished, strict=True))
            expected = history.features(entity, instant_ms)
            if found != expected:
                yield f"{entity} {key} is {found}, must be {expected}"


def _told(value: bytes | None) -> str:
    return f"version {version_of(value)}" if value else "missing"
