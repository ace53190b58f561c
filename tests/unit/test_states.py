"""States that are no plain numbers on their way: into tiles, into bytes, out again, and aggregations of one's own."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import BaseModel

from core.aggregations import Aggregation, ApproxDistinct, ApproxPercentile, ApproxTopK, Count, Last, Sum, TopK
from core.definitions import Entity, FeatureGroup, Source, aggregate, col
from core.plans import GroupPlan, plan_group
from core.rows import unpack_change, unpack_row, unpack_tail
from core.tiles import finish
from core.windows import hours
from tables.apply import apply_pack
from tables.table import GroupTable, TablePartition, freeze, thaw
from tests.engines import present_engine
from tests.packed import empty_pack, packed_rows

pytestmark = pytest.mark.usefixtures("each_engine")

NOW_MS = 1_700_000_000_000
TILE_MS = 300_000


class Play(BaseModel):
    user_id: int
    time_ms: int
    video_id: int


USER = Entity("user", keys=("user_id",))
PLAYS = Source("plays", Play, event_time="time_ms", event_id=None)


@dataclass(frozen=True, slots=True)
class Distinct(Aggregation):
    """How many different values: a set while it grows, a sorted list where it is kept."""

    def zero(self) -> Any:
        return set()

    def add(self, state: Any, value: Any, time_ms: int, event_id: str) -> Any:
        return {*state, value} if isinstance(state, list) else state.add(value) or state

    def merge(self, left: Any, right: Any) -> Any:
        return {*left, *right}

    def pack(self, state: Any) -> Any:
        return sorted(state)

    def result(self, state: Any) -> Any:
        return len(state)


def table_of(*aggregations: Aggregation) -> tuple[TablePartition, GroupTable]:
    features = tuple(
        aggregate(f"made_{place}", PLAYS, aggregation, over=(hours(1),), default=-1)
        for place, aggregation in enumerate(aggregations)
    )
    group = GroupTable(
        plan_group(FeatureGroup("plays", entity=USER, owner="feed", features=features)), 1, present_engine()
    )
    return TablePartition("user", 0, [group], [PLAYS]), group


def play(table: TablePartition, offset: int, *plays: tuple[int, int, int]) -> None:
    """Apply plays: user, video, how old."""
    pack = empty_pack("plays", "", 0, ["video_id"])
    for place, (user, video, age_ms) in enumerate(plays):
        pack.offsets.append(1_000 * offset + place)
        pack.record_times.append(NOW_MS)
        pack.event_times.append(NOW_MS - age_ms)
        pack.event_ids.append("")
        pack.checks.append(0)
        pack.keys.append(f"i{user}")
        pack.columns[0].append(video)
    apply_pack(table, pack, offset)


def flush(group: GroupTable) -> None:
    for key in list(group.dirty):
        freeze(group, key, group.dirty.pop(key))


def values_of(plan: GroupPlan, change: bytes) -> Sequence[Any]:
    """The values that a reader makes of a row's tiles, which are those that its writer has put into its head."""
    row = unpack_row(unpack_change(change)[0])
    values = finish(plan, unpack_tail(row), NOW_MS).values
    assert values == row.values
    return values


def test_an_aggregation_of_ones_own_needs_its_methods_alone():
    """
    Whoever misses an aggregation writes four methods, and is not asked to write code that writes code.
    """
    table, group = table_of(Distinct(col("video_id")))
    play(table, 0, (1, 7, 0), (1, 7, 0), (1, 8, TILE_MS), (2, 9, 0))
    flush(group)
    play(table, 1, (1, 7, 2 * TILE_MS), (1, 9, 0))
    flush(group)

    made = {key: values_of(group.plan, change) for key, change in packed_rows(group).items()}

    assert made == {"i1": [3], "i2": [1]}


def test_the_aggregation_of_the_how_to_computes_what_it_says():
    """
    Whoever copies it begins with something that works.
    """
    code = (Path(__file__).parents[2] / "docs/how-to/own-aggregation.md").read_text().split("```")[1]
    found: dict[str, Any] = {"__name__": "own"}
    exec(code.removeprefix("python"), found)  # noqa: S102  # our own text
    table, group = table_of(found["Range"](col("video_id")))
    play(table, 0, (1, 7, 0), (1, 30, 0), (1, 2, TILE_MS), (2, 9, 0))
    flush(group)
    play(table, 1, (1, 31, 0))

    made = {key: values_of(group.plan, change) for key, change in packed_rows(group).items()}

    assert made == {"i1": [29], "i2": [0]}


@pytest.mark.parametrize("aggregation", [TopK, ApproxTopK, ApproxPercentile, Distinct])
def test_no_two_tiles_share_a_state(aggregation):
    """
    What one user watches would count for all others, whose tiles began with the same empty table.
    """
    (together, group), (apart, alone) = (table_of(aggregation(col("video_id"))) for _ in range(2))
    play(together, 0, (1, 7, 0), (2, 8, 0), (1, 9, TILE_MS))
    play(apart, 0, (2, 8, 0))

    beside_another, by_itself = (values_of(each.plan, packed_rows(each)["i2"]) for each in (group, alone))

    assert beside_another == by_itself


def test_a_state_stays_packed_until_something_is_added():
    """
    A row has up to 27 tiles per window, of which an event touches one; to pack all of them at each flush costs more
    than everything else that is done for the row.
    """
    table, group = table_of(ApproxDistinct(col("video_id")))
    play(table, 0, (1, 7, 0), (1, 7, TILE_MS))
    row = group.row("i1")
    flush(group)
    past, young = (row.tiles[0][(NOW_MS - age_ms) // TILE_MS] for age_ms in (TILE_MS, 0))
    assert [type(tile[1]) for tile in (past, young)] == [bytes, bytes]
    kept = past[1]

    play(table, 1, (1, 8, 0))

    assert past[1] is kept
    assert type(young[1]) is not bytes
    flush(group)
    assert past[1] is kept
    assert type(young[1]) is bytes


ROUNDS = st.lists(
    st.tuples(st.lists(st.tuples(st.integers(1, 9), st.integers(0, 3 * TILE_MS)), max_size=4), st.booleans(), st.booleans()),
    max_size=12,
)  # fmt: skip


@given(ROUNDS)
@settings(max_examples=100, derandomize=True, deadline=None)
def test_owners_who_flush_at_other_times_have_the_same_bytes(rounds):
    """
    Under one version there is one state, also of a sketch, which the library keeps in several forms.
    """
    made = [ApproxDistinct(col("video_id")), ApproxPercentile(col("video_id"), buckets=2)]
    made += [ApproxTopK(col("video_id"), counters=3), TopK(col("video_id"), values_max=5), Distinct(col("video_id"))]
    (eager, mine), (lazy, other) = table_of(*made), table_of(*made)
    for offset, (plays, is_flushed, is_thawed) in enumerate(rounds):
        for table in (eager, lazy):
            play(table, offset, *((1, video, age_ms) for video, age_ms in plays))
        if is_flushed:
            flush(mine)
        if is_flushed and is_thawed and mine.version("i1") is not None:
            mine._live["i1"] = thaw(mine.plan, packed_rows(mine)["i1"])

    assert packed_rows(mine) == packed_rows(other)
    for change in packed_rows(mine).values():
        values_of(mine.plan, change)


@dataclass(frozen=True, slots=True)
class Twice(Count):
    def add(self, state: Any, value: Any, time_ms: int, event_id: str) -> Any:
        return state + 2


@dataclass(frozen=True, slots=True)
class OrNull(Count):
    def result(self, state: Any) -> Any:
        return state if state > 1 else None


@dataclass(frozen=True, slots=True)
class Loudest(Last):
    def add(self, state: Any, value: Any, time_ms: int, event_id: str) -> Any:
        return max(state, (value, event_id, value)) if state is not None else (value, event_id, value)


@dataclass(frozen=True, slots=True)
class Busiest(Count):
    def merge(self, left: Any, right: Any) -> Any:
        return max(left, right)


@dataclass(frozen=True, slots=True)
class Largest(Sum):
    def merge(self, left: Any, right: Any) -> Any:
        return max(left, right)


@dataclass(frozen=True, slots=True)
class Fewest(TopK):
    def merge(self, left: Any, right: Any) -> Any:
        return min(left, right, key=len)


def test_a_method_that_is_replaced_is_the_one_that_is_used():
    """
    A subclass changed how values are added, and was served what its parent computes: the code that the parent writes
    knew nothing of it. So did one that changed how they are merged, where adding is merging.
    """
    video = col("video_id")
    table, group = table_of(Twice(), OrNull(), Loudest(video), Busiest(), Fewest(video), Largest(video))
    play(table, 0, (1, 7, 0), (1, 3, 0), (1, 8, TILE_MS), (2, 5, 0))

    made = {key: values_of(group.plan, change) for key, change in packed_rows(group).items()}

    assert made == {"i1": [6, 3, 8, 2, [8], 8], "i2": [2, -1, 5, 1, [5], 5]}
