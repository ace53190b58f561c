"""Rows that are past leave memory and the changelog, and no served number tells (decision 0024)."""

import asyncio
import random
from contextlib import asynccontextmanager
from itertools import pairwise
from types import SimpleNamespace

import pytest
from aiokafka import TopicPartition
from hypothesis import given, settings
from hypothesis import strategies as st

from core.definitions import Count, FeatureGroup, aggregate
from core.errors import BrokerError
from core.plans import plan_group
from core.ports import RowKey
from core.versions import version, version_bytes
from core.windows import ALL_TIME, days, hours
from tables.apply import apply_pack
from tables.expiry import keep_ms
from tables.remove import take_past
from tables.restore import ChangelogReader, Restoration
from tables.table import freeze
from tests.aggregating import CHANGELOG, CLICKS, FAST, NOW_MS, TAPS, TOPIC, USER, bench, new_table, taps
from tests.engines import disk_engine, using
from tests.fakes import idle, until
from tests.packed import packed_rows
from tests.past import DRAWN, KEEP_MS, Past

pytestmark = pytest.mark.usefixtures("each_engine")

PLACE = TopicPartition(CHANGELOG, 0)
KEY = b"user#i1 fast@v1"


def much_later(offset, user):
    """A tap whose record comes when the rows of all others are past."""
    return taps(offset + 2 * KEEP_MS, user)


def tombstones(made) -> list[tuple[bytes, list]]:
    """Key and headers of the tombstones that were written."""
    return [
        (key, headers)
        for sent in made.producer.sent
        for (key, value), headers in zip(sent.rows, sent.row_headers, strict=True)
        if value is None
    ]


# --- removing


async def test_a_past_row_leaves_memory_and_the_changelog_and_comes_back_anew():
    """
    Memory would grow with everyone who was ever seen.
    """
    async with bench() as made:
        await made.take(taps(0, 1))
        await until(lambda: made.finished)
        await made.take(much_later(0, 2))
        group = made.tables.get(TOPIC, 0).group(FAST)

        await until(lambda: group.version("i1") is None)
        await until(lambda: (KEY, [("ver", version_bytes(version(0, 0)))]) in tombstones(made))

        await until(lambda: (RowKey("user#i1", FAST), version(0, 0)) in [row[:2] for row in made.announced[-1]])

        assert group.version("i2") is not None
        await made.take(much_later(1, 1))
        assert group.row("i1").stamps == {"taps@": {0: 100_000 * (2 * KEEP_MS + 1)}}


async def test_many_past_rows_go_without_another_event():
    """
    A flush removes a bounded number of rows; those that are left must not wait for somebody to come by.
    """
    async with bench() as made:
        for thousand in range(3):
            await made.take(taps(thousand, *range(1_000 * thousand, 1_000 * thousand + 1_000)))
        await made.publisher.settle()
        await made.take(much_later(0, 9_999))

        def gone() -> set[bytes]:
            return {key for key, _ in tombstones(made) if key.endswith(b" fast@v1")}

        await until(lambda: len(gone()) == 3_000)
        assert len(made.tables.get(TOPIC, 0).group(FAST)) == 1


async def test_the_clock_only_holds_back():
    """
    One record dated a year ahead would remove rows that every reader still sees.
    """
    async with bench() as made:
        made.clock.advance(-NOW_MS)
        await made.take(taps(0, 1))
        await made.take(much_later(0, 2))
        await made.publisher.settle()

        assert await take_past(made.tables, limit=1_000, now_ms=NOW_MS) == {}
        assert made.tables.get(TOPIC, 0).group(FAST).version("i1") == version(0, 0)


async def test_a_row_that_is_just_touched_is_not_removed():
    """
    What was added to it, and not yet flushed, would be gone with it.
    """
    table = new_table()
    apply_pack(table, Past.pack_of(TAPS, 0, "i1", NOW_MS, NOW_MS), 0)
    group = table.group(FAST)
    freeze(group, "i1", group.row("i1"))

    assert group.drop_past(progress_ms=NOW_MS + 2 * KEEP_MS, limit=10) == (1, [])
    assert group.version("i1") == version(0, 0)
    group.dirty.clear()
    assert group.drop_past(progress_ms=NOW_MS + 3 * KEEP_MS, limit=10) == (0, [])
    assert group.drop_past(progress_ms=NOW_MS + 4 * KEEP_MS, limit=10) == (1, [("i1", version(0, 0))])


async def test_what_is_given_away_during_a_removal_is_not_written():
    """
    A tombstone of a former owner may land behind its successor's row.
    """
    async with bench(held=True) as made:
        made.record.open.clear()
        await made.take(taps(0, 1))
        await until(lambda: made.producer.sent)
        made.acknowledge()
        await made.take(much_later(0, 2))
        made.give_away()
        await made.own()
        made.record.open.set()
        made.acknowledge()
        await idle()

        assert tombstones(made) == []


# --- nothing counts twice, and nothing is lost


@given(DRAWN, st.integers(0, 2**32))
@settings(max_examples=100, derandomize=True, deadline=None)
def test_no_served_number_tells_whether_rows_were_removed(drawn, seed):
    """
    Late events of removed rows, repetitions of what they had counted, crashes before and after a tombstone and
    compaction by the broker: every count is that of the distinct events in the window.
    """
    past = Past(random.Random(seed))  # noqa: S311  # the same chances every time
    for step in drawn:
        past.produce(*step)
        past.work()
        past.check()
    past.crash()
    past.catch_up()
    past.check()


def test_a_late_event_of_a_removed_row_counts_where_it_belongs():
    """
    It was in the air when the row went: it is in the window, and what the row had counted is not.
    """
    past = Past(random.Random(0))  # noqa: S311  # no chances are taken
    past.produce("taps", 1, gap_ms=0, age_ms=0, lag_ms=0)
    past.catch_up()
    past.produce("taps", 2, gap_ms=KEEP_MS + 1_000_000, age_ms=0, lag_ms=0)
    past.catch_up()
    past.remove()
    assert past.table.group(FAST).version("i1") is None

    past.produce("taps", 1, gap_ms=0, age_ms=3_000_000, lag_ms=0)
    past.catch_up()

    past.check()
    assert past.served("i1") == {"clicks_1h": 0, "taps_1h": 1}


def test_a_repetition_of_what_a_removed_row_had_counted_is_in_no_window():
    """
    Its id is forgotten and the row's stamps are gone: it is applied again, where nobody looks.
    """
    past = Past(random.Random(0))  # noqa: S311  # no chances are taken
    past.produce("clicks", 1, gap_ms=0, age_ms=-10_000, lag_ms=0)
    past.catch_up()
    past.produce("taps", 2, gap_ms=KEEP_MS + 1_000_000, age_ms=0, lag_ms=0)
    past.catch_up()
    past.remove()

    past.repeat(0)
    past.catch_up()

    past.check()
    assert past.table.group(FAST).version("i1") is not None
    assert past.served("i1") == {"clicks_1h": 0, "taps_1h": 0}


def test_a_crash_before_the_commit_of_a_removed_row_changes_nothing():
    """
    Its events are applied to a new row, under versions that its tombstone has too: it stays gone, or goes again.
    """
    past = Past(random.Random(0))  # noqa: S311  # no chances are taken
    past.produce("taps", 1, gap_ms=0, age_ms=0, lag_ms=0)
    past.produce("taps", 1, gap_ms=1, age_ms=0, lag_ms=0)
    past.produce("taps", 2, gap_ms=KEEP_MS + 1_000_000, age_ms=0, lag_ms=0)
    past.catch_up(commit=False)
    past.remove()
    assert past.table.group(FAST).version("i1") is None

    for _ in range(2):
        past.crash()
        assert past.table.group(FAST).version("i1") is None
        past.catch_up(commit=False)
        past.check()
        past.remove()
        assert past.table.group(FAST).version("i1") is None


# --- restoring


def changes_of_one_row() -> list[bytes]:
    """The bytes of one row in two versions, 4 and 5."""
    table, changes = new_table(), []
    for offset in (4, 5):
        apply_pack(table, Past.pack_of(CLICKS, offset, "i1", NOW_MS, NOW_MS), offset)
        changes.append(packed_rows(table.group(FAST))["i1"])
    return changes


def restored(*values) -> tuple[Restoration, int | None]:
    """Restore a log of one key: bytes of rows, versions of tombstones, or None for a tombstone that tells none."""
    table = new_table()
    restoration = Restoration({PLACE: table})
    for offset, value in enumerate(values):
        headers = [("ver", version_bytes(value))] if isinstance(value, int) else []
        change = value if isinstance(value, bytes) else None
        restoration.take(PLACE, SimpleNamespace(key=KEY, value=change, headers=headers, offset=offset))
    return restoration, table.group(FAST).version("i1")


OLDER, NEWER = changes_of_one_row()
OLD, NEW = version(0, 4), version(0, 5)


@pytest.mark.parametrize(
    ("log", "left"),
    [
        ([NEWER, NEW], None),
        ([NEW, NEWER], None),
        ([NEW, OLDER], None),
        ([NEWER, OLD], NEW),
        ([OLD, NEWER], NEW),
        ([OLDER, OLD, NEWER], NEW),
        ([NEWER, OLDER, OLD], NEW),
        ([OLD, NEW, OLD, NEWER], None),
    ],
)
def test_a_restore_takes_the_highest_version_of_rows_and_tombstones(log, left):
    """
    A dead owner's late tombstone would remove a newer row, or its late row come back from behind a tombstone.
    """
    restoration, found = restored(*log)

    restoration.refuse_unreadable()
    assert found == left


@pytest.mark.parametrize(
    ("log", "again"),
    [
        ([NEWER, OLDER], True),
        ([NEWER, OLDER, OLDER], True),
        ([NEWER, OLD], True),
        ([NEWER, OLDER, NEWER], False),
        ([OLDER, NEWER], False),
        ([NEWER, NEWER], False),
        ([NEW, OLDER], False),
        ([NEWER, OLDER, NEW], False),
    ],
)
def test_a_restored_row_is_written_again_if_something_older_stands_last(log, again):
    """
    A dead owner's bytes arrived late, behind its successor's row, and the successor died before it had looked. The
    next owner restored the newer row and wrote nothing; compaction kept the older one, and with it the one after that
    restored four events less [found by the simulation of the pipeline, one schedule in a thousand].
    """
    restoration, _ = restored(*log)

    restoration.refuse_unreadable()
    restoration.touch_set_back()

    assert list(restoration._tables[PLACE].group(FAST).dirty) == (["i1"] if again else [])


LOGS = st.lists(st.tuples(st.integers(1, 3), st.sampled_from([(OLDER, OLD), (NEWER, NEW), (None, OLD), (None, NEW)])))


@pytest.mark.parametrize("at_hand_max", [1, 2, 50_000])
@settings(deadline=None)
@given(log=LOGS)
def test_a_restore_is_the_same_however_few_rows_it_has_at_hand(at_hand_max, log):
    """
    Of more rows than fit into memory it asks the table; a row that it has forgotten must not begin anew.
    """
    table = new_table()
    restoration = Restoration({PLACE: table})
    restoration._plain[PLACE]._at_hand_max = at_hand_max
    for offset, (user, (value, ver)) in enumerate(log):
        headers = [("ver", version_bytes(ver))] if value is None else []
        key = f"user#i{user} fast@v1".encode()
        restoration.take(PLACE, SimpleNamespace(key=key, value=value, headers=headers, offset=offset))
    restoration.refuse_unreadable()

    left, again = {}, set()
    for user in {user for user, _ in log}:
        mine = [change for whose, change in log if whose == user]
        rows, stones = (
            max((ver for value, ver in mine if (value is None) is gone), default=-1) for gone in (False, True)
        )
        if rows > stones:
            left[f"i{user}"] = rows
            again |= {f"i{user}"} if mine[-1][1] < rows else set()
    group = table.group(FAST)
    assert {key: group.version(key) for key in packed_rows(group)} == left
    assert len(group) == len(left)
    restoration.touch_set_back()
    assert set(group.dirty) == again


class OneRun:
    """A log whose records come all at once."""

    def __init__(self, keys: list[bytes]) -> None:
        self._run = [
            SimpleNamespace(key=lambda key=key: key, value=lambda: NEWER, offset=lambda number=number: number)
            for number, key in enumerate(keys)
        ]

    async def beginnings(self, tps):
        return dict.fromkeys(tps, 0)

    async def ends(self, tps):
        return dict.fromkeys(tps, len(self._run))

    async def runs(self, _starts, stops):
        for tp in stops:
            yield tp, self._run


async def test_others_work_while_records_of_one_run_are_restored():
    """
    Features of other groups are read from this worker meanwhile: 2,000 records at once, of 15 us each on disk, held
    them up for 30 ms.
    """

    @asynccontextmanager
    async def open_log(_kafka):
        yield OneRun([f"user#i{user} fast@v1".encode() for user in range(1_000)])

    table = new_table()
    restore = asyncio.create_task(ChangelogReader({}, open_log=open_log).restore([table]))
    seen = []
    while not restore.done():
        seen.append(len(table.group(FAST)))
        await asyncio.sleep(0)

    assert seen[-1] == 1_000
    assert max(later - earlier for earlier, later in pairwise(seen)) <= 200


@pytest.mark.parametrize(("partitions", "each"), [(1, 400_000), (8, 50_000), (64, 10_000)])
def test_rows_at_hand_have_a_bound_that_partitions_share(partitions, each):
    """
    A worker that gets 64 partitions had 64 times the memory for them.
    """
    with using(disk_engine()):
        tables = {TopicPartition(CHANGELOG, number): new_table() for number in range(partitions)}

    assert {rows._at_hand_max for rows in Restoration(tables)._plain.values()} == {each}


def test_a_tombstone_without_a_version_ends_the_take_over():
    """
    Nobody can tell whether it is older than the row; once compaction has taken the row, nobody would even know.
    """
    restoration, _ = restored(NEWER, None)
    with pytest.raises(BrokerError, match=r"changelog\[0\] offset 1: a tombstone without a version"):
        restoration.refuse_unreadable()

    mended, found = restored(OLDER, None, NEWER)
    mended.refuse_unreadable()
    assert found == NEW


def test_a_restored_row_that_is_past_is_removed_too():
    """
    Memory after a restart would keep everyone whom the last owner had no time to remove.
    """
    table = new_table()
    Restoration({PLACE: table}).take(PLACE, SimpleNamespace(key=KEY, value=NEWER, headers=[], offset=0))
    group = table.group(FAST)

    assert group.drop_past(progress_ms=NOW_MS, limit=10) == (1, [])
    assert group.drop_past(progress_ms=NOW_MS + 2 * KEEP_MS, limit=10) == (1, [("i1", NEW)])
    assert len(group) == 0


@pytest.mark.parametrize(
    ("spans", "kept_ms"),
    [
        ((hours(1),), 10_000 + 3_600_000 + 2 * 300_000),
        ((hours(1), days(1)), 10_000 + 86_400_000 + 2 * 7_200_000),
        ((hours(1), ALL_TIME), None),
    ],
)
def test_a_row_is_kept_for_its_largest_window_and_for_ever_where_that_has_no_end(spans, kept_ms):
    """
    What a user has done in all stays true for ever; what they did in an hour does not.
    """
    feature = aggregate("taps", TAPS, Count(), over=spans)

    assert keep_ms(plan_group(FeatureGroup("g", entity=USER, owner="o", features=(feature,)))) == kept_ms
