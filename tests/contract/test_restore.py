"""A take-over on a broker: rows from the changelog, event ids from the input, and what must end it instead."""

import gc
import weakref
from contextlib import suppress

import pytest
from aiokafka import AIOKafkaProducer, TopicPartition

from core.errors import BrokerError, FormatError
from core.packs import unpack
from core.plans import plan_group
from core.ports import RowKey
from core.rows import pack_change, unpack_change
from core.versions import version
from services.broker import EmbeddedBroker
from tables.apply import apply_pack
from tables.changelog import ChangelogWriter, Tombstone, change_key
from tables.disk import TablesDisk
from tables.owned import OwnedTables
from tables.restore import ChangelogReader
from tables.table import GroupTable, TablePartition, freeze
from tests.aggregating import CHANGELOG, CLICKS, FAST, PLANS, REGISTRY, TOPIC, clicks, new_table
from tests.engines import open_present_engine, using
from tests.fakes import Run

pytestmark = pytest.mark.usefixtures("each_engine")

TP = TopicPartition(CHANGELOG, 0)
KEY = change_key(RowKey("user#i1", FAST))


class Logs:
    """The topics of one test, on a broker of their own."""

    def __init__(self, producer: AIOKafkaProducer, reader: ChangelogReader) -> None:
        self._producer = producer
        self.reader = reader
        self.writer = ChangelogWriter(lambda: producer)

    async def add(self, topic: str, value: bytes | None, *, key: bytes | None = None) -> int:
        return (await self._producer.send_and_wait(topic, value, key=key, partition=0)).offset


@pytest.fixture
async def logs():
    broker = EmbeddedBroker({TOPIC: 1, CHANGELOG: 1})
    producer = AIOKafkaProducer(bootstrap_servers=broker.bootstrap)
    await producer.start()
    yield Logs(producer, ChangelogReader({"bootstrap.servers": broker.bootstrap}))
    await producer.stop()
    broker.close()


def change_of(run: Run, table: TablePartition) -> bytes:
    """Apply a run and return the row of its user as the changelog has it."""
    (record,) = run.value
    apply_pack(table, unpack(record.value), record.offset)
    group = table.group(FAST)
    return freeze(group, "i1", group.row("i1")).change


async def test_of_every_key_the_highest_version_is_restored(logs):
    """
    A dead owner's bytes may land behind its successor's (PROTOCOL, P7b).
    """
    owner = new_table()
    older, newer = change_of(clicks(0), owner), change_of(clicks(1), owner)
    for change in (older, newer, older):
        await logs.add(CHANGELOG, change, key=KEY)
    table = new_table()

    assert await logs.reader.restore([table]) == {TP: 3}

    assert table.group(FAST).version("i1") == version(0, 1)


async def test_a_row_that_was_removed_is_not_restored(logs):
    """
    Everyone who was ever seen would be back after each restart, until compaction came by.
    """
    owner = new_table()
    await logs.add(CHANGELOG, change_of(clicks(0), owner), key=KEY)
    await logs.writer.write({TP: [Tombstone(RowKey("user#i1", FAST), version(0, 0))]})
    table = new_table()

    await logs.reader.restore([table])
    assert table.group(FAST).version("i1") is None
    assert [value async for _, value in logs.reader.read_range(TP, 1, 2)] == [None]

    await logs.add(CHANGELOG, change_of(clicks(1), owner), key=KEY)
    table = new_table()
    await logs.reader.restore([table])
    assert table.group(FAST).version("i1") == version(0, 1)


async def test_ids_before_the_committed_offset_are_known_again(logs):
    """
    A repetition that arrives after a restart counted twice.
    """
    for offset in range(3):
        await logs.add(TOPIC, clicks(offset).value[0].value)
    await logs.add(TOPIC, b"a stranger's")
    table = new_table()

    await logs.reader.warm_ids({table: 2})
    assert table.ids == 2

    await logs.reader.warm_ids({table: 4})
    assert table.ids == 3


async def test_a_take_over_brings_rows_and_ids(logs):
    """
    Without its ids the next owner counts what the producer sends again; without its rows it begins from nothing.
    """
    await logs.add(CHANGELOG, change_of(clicks(0), new_table()), key=KEY)
    for offset in range(3):
        await logs.add(TOPIC, clicks(offset).value[0].value)
    numbers = dict.fromkeys(PLANS, 1)
    tables = OwnedTables(
        REGISTRY, PLANS, numbers, reader=logs.reader, changelog=logs.writer, open_engine=open_present_engine
    )

    await tables.take_over({TopicPartition(TOPIC, 0): 2}, {TopicPartition(TOPIC, 0)})

    table = tables.get(TOPIC, 0)
    assert (table.group(FAST).version("i1"), table.ids) == (version(0, 0), 2)


async def test_versions_of_removed_rows_are_dropped_when_all_is_restored(logs, tmp_path):
    """
    A changelog keeps a tombstone for a day: all who went within it stayed on the disk for as long as the worker ran.
    """
    await logs.add(CHANGELOG, change_of(clicks(0), new_table()), key=KEY)
    await logs.writer.write({TP: [Tombstone(RowKey("user#i1", FAST), version(0, 0))]})
    disk = TablesDisk(tmp_path, cache_bytes=8 << 20)
    engine = disk.open()
    with using(engine):
        table = new_table()

    await logs.reader.restore([table])

    assert not list(engine._database.keys())
    disk.close()


@pytest.mark.parametrize("last", [None, b"garbage"], ids=["restored", "refused"])
async def test_tables_go_with_their_last_user(logs, last):
    """
    A worker's collector hardly ever looks through what has lived long: tables in a cycle stayed, those of each
    rebalance beside those of all before, and what an engine had on disk with them.
    """
    await logs.add(CHANGELOG, change_of(clicks(0), new_table()), key=KEY)
    await logs.writer.write({TP: [Tombstone(RowKey("user#i2", FAST), version(0, 0))]})
    if last is not None:
        await logs.add(CHANGELOG, last, key=KEY)
    table = new_table()
    gone = [weakref.ref(one) for one in (table, *table.groups)]
    gc.disable()
    try:
        with suppress(BrokerError):
            await logs.reader.restore([table])
        del table
        assert [ref() for ref in gone] == [None] * 4
    finally:
        gc.enable()


async def test_a_row_of_another_definition_ends_the_take_over(logs):
    """
    The record was replaced and the changelog kept: tiles of one meaning were merged into rows of another.
    """
    await logs.add(CHANGELOG, change_of(clicks(0), new_table()), key=KEY)
    slow = next(group for group in REGISTRY.groups if group.name == "slow")
    other = GroupTable(plan_group(slow), 1)
    other.sk = FAST

    with pytest.raises(BrokerError, match=rf"{CHANGELOG}\[0\] offset 0: the row {FAST} was computed with .*recover.md"):
        await logs.reader.restore([TablePartition("user", 0, [other], [CLICKS])])


@pytest.mark.parametrize("value", [b"garbage", pack_change(b"garbage!" * 2, {})])
async def test_a_row_that_cannot_be_read_ends_the_take_over_with_its_place(logs, value):
    """
    Passed over, the row would begin anew from nothing, and nobody would know.
    """
    await logs.add(CHANGELOG, change_of(clicks(0), new_table()), key=KEY)
    await logs.add(CHANGELOG, value, key=KEY)

    with pytest.raises(BrokerError, match=rf"{CHANGELOG}\[0\] offset 1: not a"):
        await logs.reader.restore([new_table()])


async def test_a_row_that_is_broken_behind_its_begin_is_told_when_it_is_touched(logs):
    """
    A restore that decoded every row would take twice as long; begun anew from nothing, the row would be wrong for good.
    """
    row, stamps = unpack_change(change_of(clicks(0), new_table()))
    await logs.add(CHANGELOG, pack_change(row[:-1], stamps), key=KEY)
    table = new_table()
    await logs.reader.restore([table])

    with pytest.raises(FormatError, match=f"the row {FAST} of i1 was restored and is broken: not a packed row"):
        table.group(FAST).row("i1")


async def test_what_cannot_be_read_is_passed_over_once_its_row_was_written_again(logs):
    """
    The owner has mended it; until compaction comes by, every take-over would end at it.
    """
    change = change_of(clicks(0), new_table())
    await logs.add(CHANGELOG, b"garbage", key=KEY)
    await logs.add(CHANGELOG, change, key=KEY)
    table = new_table()

    await logs.reader.restore([table])

    assert table.group(FAST).version("i1") == version(0, 0)


@pytest.mark.parametrize("key", [None, b"\xff\xfe", b"nobody", b"video#i1 fast@v1"])
async def test_a_strangers_record_in_a_changelog_is_passed_over(logs, key):
    """
    Its key stands for no row of ours, so nothing of ours is hidden by it; every restart ended at it.
    """
    await logs.add(CHANGELOG, b"garbage", key=key)
    table = new_table()

    await logs.reader.restore([table])

    assert not any(len(group) for group in table.groups)
