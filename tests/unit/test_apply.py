"""The state of an aggregator against the demo's oracle, whatever producers, dispatchers and aggregators go through."""

from dataclasses import dataclass
from functools import partial

import pytest
from hypothesis import given, settings

from core.aggregations import Aggregation
from core.definitions import FeatureGroup, aggregate
from core.errors import FormatError
from core.packs import Pack
from core.plans import plan_group
from core.rows import pack_change, pack_row
from core.versions import version
from core.windows import hours
from tables.apply import Applied, apply_pack, judge
from tables.disk import TablesDisk
from tables.engine import MemoryEngine
from tables.table import GroupTable, TablePartition, freeze, thaw
from tests.engines import disk_engine, using
from tests.fakes import until
from tests.packed import cool, empty_pack, packed_rows
from tests.world import DEFINITIONS, HOUR_MS, NOW_MS, WORLDS, flush, new_table, values_of

on_each_engine = pytest.mark.usefixtures("each_engine")

MODEST = settings(max_examples=100, derandomize=True, deadline=None)


@given(WORLDS)
@MODEST
def test_every_event_counts_once_per_key(world):
    """
    However often producers and dispatchers repeat themselves: served numbers are those of the distinct events, and
    each source offset is in exactly one account of each key.
    """
    for entity, packs in world.packs.items():
        table, counts = new_table(entity), Applied()
        for offset, pack in enumerate(packs):
            counts.add(apply_pack(table, pack, offset))

        world.check(entity, table)
        assert (counts.applied, counts.applied + counts.duplicates) == world.of(entity)
        assert counts.conflicts == 0
        assert counts.applied + counts.duplicates + counts.replays == sum(len(pack.offsets) for pack in packs)


@on_each_engine
@given(WORLDS)
@MODEST
def test_crashes_lose_and_double_nothing(world):
    """
    An aggregator dies anywhere between a row's changelog bytes and its commit, again and again.
    """
    chance = world.chance
    for entity, packs in world.packs.items():
        table, changes, flushed_to, place = new_table(entity), [], 0, 0
        crashes = 4
        while place < len(packs):
            apply_pack(table, packs[place], place)
            place += 1
            act = chance.random()
            if act < 0.2:
                changes += flush(table, chosen=lambda: chance.random() < 0.5)
            elif act < 0.4:
                changes += flush(table)
                flushed_to = place
            elif act < 0.6 and crashes:
                crashes -= 1
                changes += flush(table, chosen=lambda: chance.random() < 0.5)
                table, place = new_table(entity, changes), chance.randint(0, flushed_to)
                for earlier in packs[:place]:
                    judge(table, earlier)
        world.check(entity, table)


@on_each_engine
@given(WORLDS)
@MODEST
def test_two_owners_of_one_prefix_have_the_same_bytes(world):
    """
    Under one version number there is one state; else it would depend on who writes last (PROTOCOL, P7b).
    """
    chance = world.chance
    for entity, packs in world.packs.items():
        eager, lazy = new_table(entity), new_table(entity)
        changes = []
        for offset, pack in enumerate(packs):
            apply_pack(eager, pack, offset)
            apply_pack(lazy, pack, offset)
            if chance.random() < 0.5:
                changes += flush(eager, chosen=lambda: chance.random() < 0.7)
            if chance.random() < 0.2:
                changes += flush(eager)
                eager = new_table(entity, changes)
                for earlier in packs[: offset + 1]:
                    judge(eager, earlier)

        for mine, other in zip(eager.groups, lazy.groups, strict=True):
            assert packed_rows(mine) == packed_rows(other)


@given(WORLDS)
@MODEST
def test_a_replay_publishes_again_and_changes_nothing(world):
    """
    The row's last publication may have been lost on its way to the stores (PROTOCOL, P5); its version says that it
    is the same state.
    """
    for entity, packs in world.packs.items():
        table = new_table(entity)
        for offset, pack in enumerate(packs):
            apply_pack(table, pack, offset)
        flush(table)
        before = [packed_rows(group) for group in table.groups]
        last = world.chance.choice(packs) if packs else clicks()

        again = apply_pack(table, last, len(packs))

        assert again == Applied(replays=len(last.offsets))
        for group in table.groups:
            assert set(group.dirty) == (set(last.keys) if last.source in group.plan.steps else set())
        flush(table)
        assert [packed_rows(group) for group in table.groups] == before


def clicks(*updates, partition=0, source="clicks", topic_id="") -> Pack:
    """A pack of clicks of video 9: offset, event id, user, and how old the event was."""
    pack = empty_pack(source, topic_id, partition, ["video_id"])
    for offset, event_id, user, age_ms in updates:
        record_ms = NOW_MS + 10_000 * offset
        for column, value in zip(
            (
                pack.offsets,
                pack.record_times,
                pack.event_times,
                pack.event_ids,
                pack.checks,
                pack.keys,
                pack.columns[0],
            ),
            (offset, record_ms, record_ms - age_ms, event_id, 7, f"i{user}", 9),
            strict=True,
        ):
            column.append(value)
    return pack


def engagement(table) -> GroupTable:
    return table.group("user_engagement@v1")


def test_a_version_is_the_place_of_the_last_applied_pack():
    """
    A function of the applied prefix: not of a clock, not of a publication, not of a replay.
    """
    table = new_table("user")
    table.epoch = 3

    apply_pack(table, clicks((0, "a", 1, 0), (1, "b", 2, 0)), 41)
    apply_pack(table, clicks((2, "c", 2, 0)), 44)
    apply_pack(table, clicks((1, "b", 2, 0)), 45)

    assert engagement(table).version("i1") == version(3, 41) == (3 << 48) + 42
    assert engagement(table).version("i2") == version(3, 44)
    assert engagement(table).version("i3") is None


def test_a_duplicate_moves_the_stamp():
    """
    It must stay a duplicate after its id was forgotten, when a dispatcher sends it again.
    """
    table = new_table("user")
    apply_pack(table, clicks((0, "a", 1, 0)), 0)

    assert apply_pack(table, clicks((5, "a", 1, 0)), 1) == Applied(duplicates=1)

    row = engagement(table).row("i1")
    assert (row.stamps, row.ver) == ({"clicks@": {0: 5}}, version(0, 1))
    forgetful = new_table("user", flush(table))
    assert apply_pack(forgetful, clicks((5, "a", 1, 0)), 2) == Applied(replays=1)
    assert values_of(forgetful, "i1", NOW_MS)["user_engagement:clicks_1h"] == 1


def test_a_topic_that_is_made_anew_and_filled_again_counts_once():
    """
    The same events at the same offsets were taken for replays of the old topic by the ids, and for new by the stamps,
    which know the topic's id: each counted twice.
    """
    table, events = new_table("user"), ((0, "a", 1, 0), (1, "b", 1, 0))
    old, new = clicks(*events, topic_id="old"), clicks(*events, topic_id="new")
    apply_pack(table, old, 0)

    assert apply_pack(table, new, 1) == Applied(duplicates=2)

    assert apply_pack(table, old, 2) == apply_pack(table, new, 3) == Applied(replays=2)
    assert values_of(table, "i1", NOW_MS)["user_engagement:clicks_1h"] == 2


def test_an_id_with_another_payload_is_a_conflict():
    """
    The first wins, and the producer is told.
    """
    table, other = new_table("user"), clicks((1, "a", 1, 0))
    other.checks[0] = 8
    apply_pack(table, clicks((0, "a", 1, 0)), 0)

    assert apply_pack(table, other, 1) == Applied(duplicates=1, conflicts=1)


def test_partitions_of_a_source_have_their_own_stamps():
    """
    Offsets of one partition say nothing of another's.
    """
    table = new_table("user")

    counts = [
        apply_pack(table, clicks((9, "a", 1, 0)), 0),
        apply_pack(table, clicks((3, "b", 1, 0), partition=1), 1),
        apply_pack(table, clicks((3, "c", 1, 0)), 2),
    ]

    assert counts == [Applied(applied=1), Applied(applied=1), Applied(replays=1)]


def test_a_pack_of_a_source_that_is_gone_is_passed_over():
    """
    Its last packs are still in the topic when a source is taken out of the definitions; a worker that fell over them
    could not start until they were deleted.
    """
    table = new_table("user")

    assert apply_pack(table, clicks((0, "a", 1, 0), source="taps"), 0) == Applied(replays=1)
    assert not any(group.dirty for group in table.groups)


def test_a_pack_of_older_definitions_is_refused():
    """
    Without the column the feature would silently be too low.
    """
    pack = clicks((0, "a", 1, 0))
    pack.names[0] = "other"
    table = new_table("user")

    with pytest.raises(FormatError, match="lacks the column 'video_id'"):
        apply_pack(table, pack, 0)

    assert (table.ids, table.as_of_ms, [len(group) for group in table.groups]) == (0, 0, [0] * len(table.groups))


@dataclass(frozen=True, slots=True)
class Priced(Aggregation):
    """An aggregation of somebody's own, with a mistake."""

    def zero(self):
        return 0

    def add(self, state, value, time_ms, event_id):
        return state + {"usual": 1}["dear"]


def test_a_mistake_in_an_aggregation_is_told_as_it_is():
    """
    It was told as a pack without a column named "dear", and everybody looked for old dispatchers.
    """
    source = DEFINITIONS.sources["clicks"]
    group = FeatureGroup(
        "prices",
        entity=DEFINITIONS.entities["user"],
        owner="o",
        features=(aggregate("price", source, Priced(), over=(hours(1),)),),
    )
    table = TablePartition("user", 0, [GroupTable(plan_group(group), 1)], [source])

    with pytest.raises(KeyError, match="dear"):
        apply_pack(table, clicks((0, "a", 1, 0)), 0)


def test_late_tiles_are_dropped_only_when_they_are_past():
    """
    By the row's own newest record, and one tile later than needed: never by a clock that may jump.
    """
    table = new_table("video")
    popularity, five_minutes = table.group("video_popularity@v1"), 25_000
    pack = clicks((0, "a", 1, 0), (1, "b", 1, 290_000), (2, "c", 1, HOUR_MS))
    apply_pack(table, pack, 0)
    first, late, later = (time_ms // five_minutes for time_ms in pack.event_times)

    assert set(popularity.row("i1").tiles[0]) == {first, late, later}
    flush(table)

    assert set(popularity.row("i1").tiles[0]) == {first, late}
    row = popularity.row("i1")
    row.as_of_ms = (late + 2) * five_minutes + 300_000 - 1
    freeze(popularity, "i1", row)
    assert set(row.tiles[0]) == {first, late}
    row.as_of_ms += 1
    freeze(popularity, "i1", row)
    assert set(row.tiles[0]) == {first}
    assert set(row.tiles[1]) == {time_ms // 300_000 for time_ms in pack.event_times}


@given(WORLDS)
@MODEST
def test_thawing_a_frozen_row_is_the_row(world):
    """
    Rows are kept as bytes while they are quiet; nothing may get lost in the cold.
    """
    table = new_table("user")
    for offset, pack in enumerate(world.packs["user"]):
        apply_pack(table, pack, offset)
    for group in table.groups:
        for key, row in list(group.dirty.items()):
            change = freeze(group, key, row).change
            thawed = thaw(group.plan, change)
            assert (thawed.ver, thawed.as_of_ms, thawed.event_time_ms) == (row.ver, row.as_of_ms, row.event_time_ms)
            assert (thawed.stamps, thawed.packed) == (row.stamps, change)
            assert freeze(group, key, thawed).change == change


@pytest.mark.parametrize("tiles", [[[]], [[[]]], [[{}]]], ids=["without an index", "a list", "a map"])
def test_a_row_with_a_tile_that_is_none_is_refused(tiles):
    """
    It was an unknown error in the middle of an event, not one that says which bytes cannot be read. Found by the fuzz.
    """
    plan = new_table("user").groups[0].plan
    row = pack_row(
        ver=7,
        fingerprint=plan.fingerprint,
        as_of_ms=0,
        valid_from_ms=0,
        valid_until_ms=0,
        expires_at_ms=0,
        event_time_ms=0,
        values=[],
        tail=[(plan.resolutions[0].tile_ms, tiles)],
    )

    with pytest.raises(FormatError, match="version 7"):
        thaw(plan, pack_change(row, {}))


@on_each_engine
def test_a_restore_takes_the_highest_version():
    """
    The last record of a key may be a dead owner's, delayed on the wire (PROTOCOL, P7b).
    """
    table = new_table("user")
    apply_pack(table, clicks((0, "a", 1, 0)), 0)
    older = flush(table)
    apply_pack(table, clicks((1, "b", 1, 0)), 1)
    newer = flush(table)

    for changes in (older + newer, newer + older, older + newer + older):
        restored = new_table("user", changes)
        assert engagement(restored).version("i1") == version(0, 1)
        assert values_of(restored, "i1", NOW_MS + 10_000)["user_engagement:clicks_1h"] == 2
    live = new_table("user", newer)
    engagement(live).row("i1")
    engagement(live).put_packed("i1", older[0][2], version(0, 0))
    assert engagement(live).version("i1") == version(0, 1)


@on_each_engine
def test_rows_cool_down_beyond_a_bound_and_dirty_ones_do_not():
    """
    A dirty row's bytes are those of its last flush: cooled down it would lose what happened since.
    """
    table = new_table("user")
    group = engagement(table)
    apply_pack(table, clicks(*((n, f"e{n}", n, 0) for n in range(20))), 0)
    flush(table)
    apply_pack(table, clicks(*((20 + n, f"d{n}", n, 0) for n in range(5))), 1)
    count = group.engine.live_rows_max + 30
    for n in range(20, count):
        group.row(f"i{n}").packed = b""
    kept = dict(group.dirty)

    cool(group)

    cooled = [f"i{n}" not in group._live and group.cold().get(f"i{n}") is not None for n in range(count)]
    assert cooled == [5 <= n < 30 for n in range(count)]
    assert all(group.row(key) is row for key, row in kept.items())
    assert group.row("i7").stamps == {"clicks@": {0: 7}}
    assert len(group) == count


def flush_only(table) -> dict[str, bytes]:
    """Flush all rows and let none cool down; return what was packed of one group."""
    flushed = {
        group.sk: {key: freeze(group, key, row).change for key, row in group.dirty.items()} for group in table.groups
    }
    for group in table.groups:
        group.dirty = {}
    return flushed[engagement(table).sk]


@pytest.mark.parametrize("open_engine", [partial(MemoryEngine, live_rows_max=0), disk_engine], ids=["memory", "disk"])
def test_rows_that_change_while_others_cool_down_are_as_they_changed(open_engine):
    """
    Some hundreds cool down at a time, and events come between: a row that is touched must not be put back to its last
    flush, nor one that was removed come back.
    """
    with using(open_engine()):
        table = new_table("user")
    group, count = engagement(table), 1_200
    apply_pack(table, clicks(*((n, f"e{n}", n, 0) for n in range(count))), 0)
    changes = flush_only(table)

    steps = group.cool()
    next(steps)
    assert [f"i{n}" in group._live for n in (0, 1, 499, 500, count - 1)] == [False, False, False, True, True]
    # One that has cooled down and two that are about to are touched, two are removed.
    apply_pack(table, clicks(*((count + n, f"d{n}", n, 0) for n in (0, 600, 1_199))), 1)
    for n in (1, 601):
        group.forget(f"i{n}", version(0, 1))
    for _ in steps:
        pass

    assert sorted(group._live) == sorted(group.dirty) == ["i0", "i1199", "i600"]
    left = {f"i{n}" for n in range(count)} - {"i1", "i601"}
    assert {key: group.version(key) for key in left} == {key: version(0, int(key in group.dirty)) for key in left}
    assert (group.version("i1"), group.version("i601"), len(group)) == (None, None, count - 2)
    told = dict(group.packed())
    assert told == {key: changes[key] for key in left}
    assert group.row("i600").stamps == {"clicks@": {0: count + 600}}


async def test_a_table_that_is_given_away_while_rows_cool_down_goes_when_that_is_over(tmp_path):
    """
    A flush that is under way when partitions go away ends a little later: it must not fail on what was removed.
    """
    disk = TablesDisk(tmp_path, cache_bytes=8 << 20, live_rows_max=0)
    with using(disk.open()):
        table = new_table("user")
    apply_pack(table, clicks(*((n, f"e{n}", n, 0) for n in range(1_200))), 0)
    flush_only(table)
    group = engagement(table)
    steps = group.cool()
    next(steps)

    del table
    for _ in steps:
        pass
    assert all(group.cold().get(f"i{n}") is not None for n in range(1_200))

    del group, steps
    await until(lambda: not any((tmp_path / "worker-0").iterdir()))
    disk.close()
