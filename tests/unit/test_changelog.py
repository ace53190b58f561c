import asyncio

import pytest
from aiokafka import TopicPartition

from core.errors import BrokerError, RowTooLargeError
from core.packs import unpack
from core.ports import RowKey, StoredRow
from core.rows import pack_change, unpack_change
from core.versions import version, version_bytes
from tables.apply import apply_pack
from tables.changelog import ChangelogWriter, change_key
from tables.mend import ChangelogMender
from tables.owned import OwnedTables
from tables.table import PackedRow, freeze
from tests.aggregating import CHANGELOG, FAST, PLANS, REGISTRY, TOPIC, taps
from tests.engines import open_present_engine
from tests.fakes import FakeProducer, ToldChangelogs, idle

pytestmark = pytest.mark.usefixtures("each_engine")

TP, OTHER = TopicPartition(CHANGELOG, 0), TopicPartition(CHANGELOG, 1)


def row(user=1, ver=1, *, size=0) -> PackedRow:
    value = version_bytes(ver)
    return PackedRow(StoredRow(RowKey(f"user#i{user}", FAST), ver, value), value + b"x" * size)


def rows(number) -> list[PackedRow]:
    return [row(user) for user in range(number)]


def opened(**producer) -> tuple[FakeProducer, ChangelogWriter]:
    made = FakeProducer(**producer)
    writer = ChangelogWriter(lambda: made)
    writer.begin({TP: 0, OTHER: 0})
    return made, writer


async def test_rows_are_written_with_their_place_as_key():
    """
    Compaction goes by the key; the same row under two keys is restored twice.
    """
    producer, writer = opened(batch_records_max=2)

    await writer.write({TP: rows(3), OTHER: rows(1)})

    assert [(sent.partition, [key for key, _ in sent.rows]) for sent in producer.sent] == [
        (0, [b"user#i0 fast@v1", b"user#i1 fast@v1"]),
        (0, [b"user#i2 fast@v1"]),
        (1, [b"user#i0 fast@v1"]),
    ]
    assert writer.take_foreign() == {}


async def test_a_write_ends_when_every_batch_is_acknowledged():
    """
    What is finished before that is committed, and may never have been written.
    """
    producer, writer = opened(held=True, batch_records_max=1)
    writing = asyncio.create_task(writer.write({TP: rows(2), OTHER: rows(1)}))
    await idle()
    for sent in reversed(producer.sent):
        assert not writing.done()
        sent.acknowledge()
        await idle()

    assert writing.done()


async def test_batches_that_find_no_room_are_written_when_there_is_some():
    """
    A worker ended when the broker was away for as long as a request may take, and its successor found it away too.
    """
    producer, writer = opened(batch_records_max=2)
    producer.full = 2

    await writer.write({TP: rows(3)})

    assert [key for sent in producer.sent for key, _ in sent.rows] == [
        f"user#i{user} fast@v1".encode() for user in range(3)
    ]
    assert writer.take_foreign() == {}


async def test_a_refused_batch_is_told_with_its_place():
    """
    The process ends with this line; without coordinates nobody knows where to look.
    """
    producer, writer = opened(held=True)
    writing = asyncio.create_task(writer.write({TP: rows(3)}))
    await idle()
    producer.sent[0].refuse("too large")

    with pytest.raises(BrokerError, match=r"freshet.user.changelog\[0\] refused 3 records: KafkaError: too large"):
        await writing


async def test_a_mistake_of_ours_is_not_told_as_a_refusal():
    """
    Whoever reads that the broker has refused something looks at the broker.
    """
    producer, writer = opened(held=True)
    writing = asyncio.create_task(writer.write({TP: rows(3)}))
    await idle()
    producer.sent[0].fail(ZeroDivisionError("ours"))

    with pytest.raises(ZeroDivisionError, match="ours"):
        await writing


async def test_a_row_that_fits_no_batch_is_told():
    """
    It could never be written; the group's row limit is there to prevent it, and whoever raised it reads whose row it is.
    """
    _, writer = opened(batch_records_max=0)

    with pytest.raises(RowTooLargeError, match=r"the row \S+@v1 of user#i1 has 17 bytes, more than a batch"):
        await writer.write({TP: [row(size=9)]})


async def test_a_hole_between_our_records_is_foreign():
    """
    A dead owner's bytes may land long after the take-over, behind newer ones (PROTOCOL, P7b).
    """
    producer, writer = opened()
    await writer.write({TP: rows(3), OTHER: rows(1)})
    producer.foreign(*TP, 2)
    await writer.write({TP: rows(1)})
    producer.foreign(*TP, 5)
    await writer.write({TP: rows(1), OTHER: rows(1)})

    assert writer.take_foreign() == {TP: (3, 11)}
    assert writer.take_foreign() == {}


async def test_bytes_before_our_first_record_are_foreign():
    """
    They landed between the restore and our first write.
    """
    producer, writer = opened()
    producer.foreign(*TP, 1)
    await writer.write({TP: rows(1)})

    assert writer.take_foreign() == {TP: (0, 1)}


async def test_an_end_beyond_our_records_is_foreign():
    """
    Where we write seldom, only the topic's end tells of others' bytes.
    """
    _, writer = opened()
    await writer.write({TP: rows(3)})

    writer.note_ends({TP: 3, OTHER: 2})

    assert writer.take_foreign() == {OTHER: (0, 2)}


async def test_our_own_bytes_in_flight_are_not_foreign():
    """
    Under load every look at the end saw some, and all of those rows were written again.
    """
    producer, writer = opened(held=True)
    writing = asyncio.create_task(writer.write({TP: rows(3)}))
    await idle()
    writer.note_ends({TP: 3})
    producer.sent[0].acknowledge()
    await writing
    writer.note_ends({TP: 2})

    assert writer.take_foreign() == {}


async def test_writes_that_overlap_are_not_each_others_foreign_bytes():
    """
    Acknowledgements are seen in another order than the records have in the log.
    """
    producer, writer = opened(held=True)
    first = asyncio.create_task(writer.write({OTHER: rows(1), TP: rows(2)}))
    second = asyncio.create_task(writer.write({TP: rows(3)}))
    await idle()
    slow, *others = producer.sent
    for sent in others:
        sent.acknowledge()
    await second
    slow.acknowledge()
    await first

    assert writer.take_foreign() == {}
    producer.held = False
    producer.foreign(*TP, 1)
    await writer.write({TP: rows(1)})
    assert writer.take_foreign() == {TP: (5, 6)}


async def test_an_answer_without_an_offset_is_borne():
    """
    A send that was repeated may be answered with "I have it", without its place: at worst our own rows are looked at.
    """
    producer, writer = opened(held=True)
    writing = asyncio.create_task(writer.write({TP: rows(3)}))
    await idle()
    producer.sent[0].acknowledge(offset=-1)
    await writing
    assert writer.take_foreign() == {}

    producer.held = False
    await writer.write({TP: rows(1)})

    assert writer.take_foreign() == {TP: (0, 3)}


async def test_what_is_not_owned_is_not_watched():
    """
    Late answers of a time before the rebalance say nothing about the present one.
    """
    producer, writer = opened(held=True)
    writing = asyncio.create_task(writer.write({TP: rows(3)}))
    await idle()
    writer.forget()
    quiet = asyncio.create_task(writer.wait_quiet())
    await idle()
    assert not quiet.done()
    producer.sent[0].acknowledge(offset=100)
    await writing
    await quiet

    writer.note_ends({TP: 200})
    assert writer.take_foreign() == {}


class Mending:
    """A mender over an owned partition with one row, which two taps have touched."""

    def __init__(self) -> None:
        self.logs = ToldChangelogs()
        self.producer = FakeProducer()
        self.writer = ChangelogWriter(lambda: self.producer)
        self.tables = OwnedTables(
            REGISTRY,
            PLANS,
            dict.fromkeys(PLANS, 1),
            reader=self.logs,
            changelog=self.writer,
            open_engine=open_present_engine,
        )
        self.touched = 0
        self.deaths: list[str] = []
        self.mender = ChangelogMender(self.tables, self.writer, self.logs, touched=self._touch, die=self.deaths.append)

    def _touch(self) -> None:
        self.touched += 1

    async def own(self) -> None:
        await self.tables.take_over({}, {TopicPartition(TOPIC, 0)})
        self.table = self.tables.get(TOPIC, 0)
        self.group = self.table.group(FAST)
        self.older, self.newer = self.apply(0), self.apply(1)

    def apply(self, offset) -> bytes:
        """Apply a tap of user 1, flush the row, and return its changelog bytes."""
        (record,) = taps(offset).value
        apply_pack(self.table, unpack(record.value), offset)
        changes = [freeze(group, key, row).change for group in self.table.groups for key, row in group.dirty.items()]
        for group in self.table.groups:
            group.dirty.clear()
        return changes[0]

    def cool(self, change: bytes) -> None:
        """Let the row of user 1 be kept as these bytes again."""
        del self.group._live["i1"]
        self.group.cold()["i1"] = change

    def land(self, change: bytes | None, *, user=1, sk=FAST) -> None:
        """Let bytes land that are not ours."""
        self.logs.logs[TP].append((change_key(RowKey(f"user#i{user}", sk)), change))


@pytest.fixture
async def mending():
    made = Mending()
    await made.own()
    return made


async def test_a_row_behind_which_a_lower_version_landed_is_written_again(mending):
    """
    Compaction keeps the last record of a key: it would be the dead owner's (PROTOCOL, P7b).
    """
    mending.land(mending.older)

    assert await mending.mender.mend() == 1

    assert set(mending.group.dirty) == {"i1"}
    assert freeze(mending.group, "i1", mending.group.dirty["i1"]).change == mending.newer
    assert (mending.touched, mending.deaths) == (1, [])
    assert await mending.mender.mend() == 0


async def test_a_row_that_has_cooled_down_is_written_again_too(mending):
    """
    The quiet rows are the ones that nobody else would write again.
    """
    mending.cool(mending.newer)
    mending.land(mending.older)

    assert await mending.mender.mend() == 1

    assert mending.group.dirty["i1"].ver == version(0, 1)


@pytest.mark.parametrize("is_cool", [False, True])
async def test_a_row_behind_which_a_tombstone_landed_is_written_again(mending, is_cool):
    """
    A dead owner had removed the row before it came back; compaction would remove it again.
    """
    if is_cool:
        mending.cool(mending.newer)
    mending.land(None)

    assert await mending.mender.mend() == 1

    assert freeze(mending.group, "i1", mending.group.dirty["i1"]).change == mending.newer
    assert (mending.touched, mending.deaths) == (1, [])


async def test_equal_versions_are_left_alone(mending):
    """
    The same prefix, so the same bytes.
    """
    mending.land(mending.newer)

    assert await mending.mender.mend() == 0

    assert (mending.group.dirty, mending.touched, mending.deaths) == ({}, 0, [])


async def test_a_former_owner_that_was_ahead_of_us_ends_nobody(mending):
    """
    It had applied more than it committed, and its bytes landed late: we apply the same again and get there. A worker
    that ended at it came back, took over, and had gained nothing.
    """
    change = mending.apply(9)
    mending.cool(mending.newer)
    mending.land(change)
    mending.logs.logs[TopicPartition(TOPIC, 0)] += [(b"", b"")] * 10

    assert await mending.mender.mend() == 0

    assert (mending.deaths, mending.group.dirty) == ([], {})


async def test_a_version_that_no_record_of_the_input_can_have_given_ends_the_worker(mending):
    """
    The input was made anew and the changelog kept: every row would refuse what is new as old.
    """
    change = mending.apply(9)
    mending.cool(mending.newer)
    mending.land(change)
    mending.logs.logs[TopicPartition(TOPIC, 0)] += [(b"", b"")] * 9

    await mending.mender.mend()

    (reason,) = mending.deaths
    assert reason.startswith(f"changelog {CHANGELOG}[0] holds version 10, but {TOPIC} ends at offset 9: the topics do")


async def test_a_row_behind_which_garbage_landed_is_written_again(mending):
    """
    Compaction keeps the last record of a key, and the next take-over would end at it.
    """
    mending.land(b"garbage")
    mending.logs.logs[TP].append((b"\xff", b"garbage"))
    mending.logs.logs[TP].append((None, b"garbage"))

    assert await mending.mender.mend() == 1

    assert set(mending.group.dirty) == {"i1"}


async def test_rows_of_another_definition_end_the_worker(mending):
    """
    Two meanings under one number overwrite each other; only a person can decide which is right.
    """
    value, stamps = unpack_change(mending.newer)
    mending.land(pack_change(value.replace(mending.group.plan.fingerprint, b"formerly"), stamps))

    await mending.mender.mend()

    (reason,) = mending.deaths
    assert "rows of fast@v1 with another definition" in reason


async def test_foreign_bytes_that_could_not_be_read_are_looked_at_again(mending):
    """
    A broker that was away for a moment made the mender forget the range: the row stayed set back for ever.
    """
    mending.land(mending.older)
    mending.logs.failures = 1
    with pytest.raises(BrokerError):
        await mending.mender.mend()

    assert await mending.mender.mend() == 1


async def test_rows_that_are_not_ours_are_passed_over(mending):
    """
    A key that was never seen here, its tombstone, a group's former version.
    """
    mending.land(None, user=5)
    mending.land(mending.older, user=5)
    mending.land(mending.older, sk="fast@v0")

    assert await mending.mender.mend() == 0

    assert (mending.group.dirty, mending.deaths) == ({}, [])


async def test_rows_that_we_write_during_the_look_are_not_foreign(mending):
    """
    Between the broker's answer and its arrival a flush may begin and end; its rows would be written for ever.
    """

    async def write() -> None:
        await mending.writer.write({TP: [row()]})

    mending.land(mending.older)
    mending.logs.during_ends = write

    assert await mending.mender.mend() == 0
    assert mending.group.dirty == {}


async def test_bytes_that_landed_during_a_rebalance_are_mended_in_the_table_of_now(mending):
    """
    The question took as long as a rebalance: the rows were marked in a table that nobody owned any more, and the late
    bytes stayed last in the changelog. Found by simulation, in one of 40,000 schedules.
    """

    async def rebalance() -> None:
        mending.tables.drop()
        await mending.own()

    mending.land(mending.older)
    mending.logs.during_ends = rebalance

    assert await mending.mender.mend() == 1

    assert set(mending.group.dirty) == {"i1"}


async def test_without_partitions_nobody_is_asked(mending):
    """
    A worker that owns nothing has no changelog to look at.
    """
    mending.tables.drop()

    async def fail() -> None:
        pytest.fail("asked")

    mending.logs.during_ends = fail

    assert await mending.mender.mend() == 0
