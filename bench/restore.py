"""Restore: how many changelog records a second become a table again, and that memory does not grow with their number.

``python -m bench.restore [--records] [--keys]`` fills changelogs on a real Kafka, one with so many records and one with
four times as many of the same keys, restores each in a process of its own, and prints a line a restore, then JSON. It
fails if a row is not the highest version that was written, or if memory grew by more than a tenth.
"""

import argparse
import json
import random
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import uvloop
from confluent_kafka import Producer
from pydantic import BaseModel

from app.kafka.access import KafkaAccess
from app.kafka.admin import KafkaAdmin, NewTopicState
from core.definitions import Count, Entity, FeatureGroup, Source, Sum, aggregate
from core.expressions import col
from core.keys import encode_key, kafka_partition, partition_key
from core.plans import plan_group
from core.ports import RowKey
from core.rows import version_of_change
from core.topics import changelog_topic
from core.windows import hours
from services.kafka import start_kafka
from tables.changelog import change_key
from tables.restore import ChangelogReader
from tables.table import GroupTable, LiveRow, TablePartition, freeze

RECORDS, KEYS, TIMES, PARTITIONS = 500_000, 20_000, 4, 4
GROWTH_MAX = 0.1
_NOW_MS = 1_700_000_000_000
_TILES = 12
_STATES = 200
"""Different rows that keys take turns in: to make one per record would take longer than to restore them."""


class Tap(BaseModel):
    """An event."""

    id: str
    at: int
    user: int
    amount: int


TAPS = Source("taps", Tap, event_time="at", event_id="id")


@dataclass(frozen=True, slots=True)
class Figures:
    """One restore.

    Attributes:
        seconds: From asking for the changelogs' ends to the last row.
        peak_bytes: Most memory that its process had.
        wrong: Keys whose row is not the highest version written.
    """

    records: int
    keys: int
    seconds: float
    peak_bytes: int
    wrong: int

    @property
    def records_per_s(self) -> float:
        """Records restored in a second."""
        return self.records / self.seconds


def _new_tables(entity: Entity) -> list[TablePartition]:
    features = tuple(
        aggregate(name, TAPS, kind, over=(hours(1),))
        for name, kind in (("taps", Count()), ("amount", Sum(col("amount"))))
    )
    plan = plan_group(FeatureGroup("taps", entity=entity, owner="o", features=features))
    return [TablePartition(entity.name, number, [GroupTable(plan, 1)], [TAPS]) for number in range(entity.partitions)]


def _entity(records: int) -> Entity:
    return Entity(f"user{records}", keys=("user",), partitions=PARTITIONS)


def fill(bootstrap: str, *, records: int, keys: int) -> None:
    """Write so many records of keys taken at random; a key's versions only rise."""
    entity = _entity(records)
    topic = changelog_topic(entity.name)
    KafkaAdmin(KafkaAccess((bootstrap,))).create([NewTopicState(topic, PARTITIONS, 1, {"cleanup.policy": "compact"})])
    changes = _changes(_new_tables(entity)[0].groups[0])
    places = [
        (change_key(RowKey(partition_key(entity.name, key), "taps@v1")), kafka_partition(key, PARTITIONS))
        for key in (encode_key((user,)) for user in range(keys))
    ]
    producer = Producer({"bootstrap.servers": bootstrap, "linger.ms": 50, "queue.buffering.max.messages": 1_000_000})
    for user, ver in _writes(records, keys):
        key, partition = places[user]
        producer.produce(topic, key=key, value=changes[ver - 1], partition=partition)
        if user % 1_000 == 0:
            producer.poll(0)
    assert producer.flush(60) == 0


def _writes(records: int, keys: int) -> Iterator[tuple[int, int]]:
    """Yield user and version of each record; every user comes at least once."""
    chance = random.Random(0)  # noqa: S311  # a load, no secret
    for number in range(records):
        yield number if number < keys else chance.randrange(keys), number * _STATES // records + 1


def _changes(group: GroupTable) -> list[bytes]:
    """Return changelog values of one row in rising versions, with an hour of tiles."""
    (resolution,) = group.plan.resolutions
    last = _NOW_MS // resolution.tile_ms
    made = []
    for ver in range(1, _STATES + 1):
        tiles = {last - back: [last - back, ver, 3 * ver] for back in range(_TILES)}
        row = LiveRow([tiles], {"taps@id": dict.fromkeys(range(PARTITIONS), ver)}, ver, _NOW_MS, _NOW_MS)
        made.append(freeze(group, "i1", row).change)
    return made


async def restore(bootstrap: str, *, records: int, keys: int) -> Figures:
    """Restore all partitions of one log."""
    tables = _new_tables(_entity(records))
    began = time.perf_counter()
    await ChangelogReader({"bootstrap.servers": bootstrap}).restore(tables)
    seconds = time.perf_counter() - began
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    restored = {key: version_of_change(change) for table in tables for key, change in table.groups[0].packed()}
    written = {encode_key((user,)): ver for user, ver in _writes(records, keys)}
    wrong = sum(restored.get(key) != ver for key, ver in written.items())
    return Figures(records, len(restored), seconds, peak, wrong)


def _in_own_process(bootstrap: str, *, records: int, keys: int) -> Figures:
    done = subprocess.run(  # ourselves
        [sys.executable, "-m", "bench.restore", f"--records={records}", f"--keys={keys}", f"--bootstrap={bootstrap}"],
        check=True,
        stdout=subprocess.PIPE,
    )
    return Figures(**json.loads(done.stdout))


def main() -> int:
    """Measure, print, and return 1 if rows are wrong or memory grew."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument(
        "--records", type=int, default=RECORDS, help=f"of the short log; the other has {TIMES} times as many"
    )
    parser.add_argument("--keys", type=int, default=KEYS, help="of how many keys they are")
    parser.add_argument("--bootstrap", help="restore a log that is there already, in this process")
    options = parser.parse_args()
    records, keys = options.records, options.keys
    if options.bootstrap is not None:
        sys.stdout.write(json.dumps(asdict(uvloop.run(restore(options.bootstrap, records=records, keys=keys)))))
        return 0
    with tempfile.TemporaryDirectory() as name:
        cluster = start_kafka(Path(name))
        try:
            for size in (records, TIMES * records):
                fill(cluster.bootstrap, records=size, keys=keys)
            short, long = (
                _in_own_process(cluster.bootstrap, records=size, keys=keys) for size in (records, TIMES * records)
            )
        finally:
            cluster.stop()
    growth = long.peak_bytes / short.peak_bytes - 1
    for one in (short, long):
        sys.stdout.write(
            f"{one.records:,} records of {one.keys:,} keys in {one.seconds:.2f} s: {one.records_per_s:,.0f}/s, "
            f"{one.peak_bytes >> 20} MB at most\n"
        )
    wrong = short.wrong + long.wrong
    told = {
        "restore_records_per_s": round(long.records_per_s),
        "memory_growth": round(growth, 3),
        "peak_mb": long.peak_bytes >> 20,
        "wrong": wrong,
    }
    sys.stdout.write(json.dumps(told) + "\n")
    return int(wrong > 0 or growth > GROWTH_MAX)


if __name__ == "__main__":
    sys.exit(main())
