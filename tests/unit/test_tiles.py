"""Windows made of tiles against the naive loop over raw events."""

import statistics
from dataclasses import dataclass
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import BaseModel

from core.definitions import (
    ALL_TIME,
    ApproxDistinct,
    Change,
    Count,
    Entity,
    FeatureGroup,
    First,
    Last,
    LastN,
    Max,
    Mean,
    Ratio,
    Source,
    StdDev,
    Sum,
    TopK,
    aggregate,
    col,
    latest,
)
from core.plans import GroupPlan, plan_group
from core.rows import Tail, Tile
from core.tiles import Finished, finish, finish_live
from core.windows import NEVER_MS, Window, days, hours, minutes, seconds, tile_index

MODEST = settings(max_examples=200, derandomize=True, deadline=None)
NOW_MS = 1_700_000_000_000
# Two of them share the tiles of 25 s.
WINDOWS = (minutes(5), seconds(325), hours(1), days(1), days(7))
SIZES_AND_TILES_MS = {
    "5m": (300_000, 25_000),
    "325s": (325_000, 25_000),
    "1h": (3_600_000, 300_000),
    "1d": (86_400_000, 7_200_000),
    "7d": (604_800_000, 50_400_000),
    "all": (0, 0),
}


class Play(BaseModel):
    time_ms: int
    user_id: int
    watch_ms: int


USER = Entity("user", keys=("user_id",))
PLAYS = Source("plays", Play, event_time="time_ms", event_id=None)


def changes(*spans) -> list[Change]:
    """Every shorter window against the longest."""
    windows = sorted(span for span in spans if span is not ALL_TIME)
    if len(windows) < 2:
        return []
    return [Change("change", "watch_ms", over=tuple(windows[:-1]), against=windows[-1], default=-2.0)]


def plan_over(*spans) -> GroupPlan:
    features = (
        aggregate("plays", PLAYS, Count(), over=spans),
        aggregate("watch_ms", PLAYS, Sum(col("watch_ms")), over=spans),
        aggregate("longest_ms", PLAYS, Max(col("watch_ms")), over=spans),
        aggregate("mean_ms", PLAYS, Mean(col("watch_ms")), over=spans, default=-1.0),
        aggregate("last_ms", PLAYS, Last(col("watch_ms")), over=spans),
        aggregate("recent_ms", PLAYS, LastN(col("watch_ms"), n=3), over=spans),
        Ratio("ms_per_play", "watch_ms", "plays", over=spans),
        aggregate("first_ms", PLAYS, First(col("watch_ms")), over=spans),
        aggregate("deviation_ms", PLAYS, StdDev(col("watch_ms")), over=spans),
        aggregate("lengths", PLAYS, ApproxDistinct(col("watch_ms")), over=spans),
        aggregate("top_ms", PLAYS, TopK(col("watch_ms"), n=3), over=spans),
        *changes(*spans),
    )
    return plan_group(FeatureGroup("plays", entity=USER, owner="feed", features=features))


DECAYING, FOREVER = plan_over(*WINDOWS), plan_over(*WINDOWS, ALL_TIME)
SHORT = plan_over(minutes(5), seconds(325))


@dataclass(frozen=True)
class Event:
    time_ms: int
    event_id: str
    watch_ms: int


def ages_ms() -> st.SearchStrategy[int]:
    """Ages from ten seconds in the future to eight days, mostly about the edges of tiles and windows."""
    edges = [
        whole * tile_s * 1000 + NOW_MS % (tile_s * 1000) + nudge
        for tile_s in (25, 300, 7200, 50_400)
        for whole in (-1, 0, 1, 11, 12, 13)
        for nudge in (-1, 0, 1)
    ]
    possible = sorted({age for age in edges if age >= -10_000})
    return st.sampled_from(possible) | st.integers(-10_000, 8 * 86_400_000)


EVENTS = st.lists(st.tuples(ages_ms(), st.integers(0, 99)), max_size=12).map(
    lambda drawn: [Event(NOW_MS - age_ms, f"e{number}", watch) for number, (age_ms, watch) in enumerate(drawn)]
)
INSTANTS = ages_ms().map(lambda age_ms: NOW_MS - age_ms) | ages_ms().map(lambda age_ms: NOW_MS + age_ms)


def tail_of(plan: GroupPlan, events: list[Event]) -> Tail:
    """The tiles that an aggregator would have made."""
    tail: Tail = []
    for resolution in plan.resolutions:
        tiles: dict[int, list[Any]] = {}
        for event in events:
            index = tile_index(event.time_ms, resolution.tile_ms)
            states = tiles.setdefault(index, [slot.aggregation.zero() for slot in resolution.slots])
            for place, slot in enumerate(resolution.slots):
                states[place] = slot.aggregation.add(states[place], event.watch_ms, event.time_ms, event.event_id)
        for states in tiles.values():
            states[:] = [slot.aggregation.pack(state) for slot, state in zip(resolution.slots, states, strict=True)]
        if tiles:
            tail.append((resolution.tile_ms, [[index, *tiles[index]] for index in sorted(tiles)]))
    return tail


def in_window(events: list[Event], label: str, instant_ms: int) -> list[Event]:
    """The rule of windows online, for one event at a time: the start of its tile is neither too old nor to come."""
    size_ms, tile_ms = SIZES_AND_TILES_MS[label]
    if label == "all":
        return events
    oldest_ms = (instant_ms - size_ms) // tile_ms * tile_ms
    return [event for event in events if oldest_ms <= event.time_ms // tile_ms * tile_ms <= instant_ms]


def live(plan: GroupPlan, tail: Tail) -> list[dict[int, Tile]]:
    """The same tiles as a table holds them while they change: in the order in which they came, not in that of time."""
    by_size = dict(tail)
    return [
        {tile[0]: tile for tile in reversed(by_size.get(resolution.tile_ms, []))} for resolution in plan.resolutions
    ]


def naive(plan: GroupPlan, events: list[Event], instant_ms: int) -> dict[str, Any]:
    values: dict[str, Any] = {}
    for label in {feature.window.label for feature in plan.features}:
        chosen = in_window(events, label, instant_ms)
        watched = [event.watch_ms for event in chosen]
        youngest = sorted(chosen, key=lambda event: (event.time_ms, event.event_id), reverse=True)
        values |= {
            f"plays_{label}": len(chosen),
            f"watch_ms_{label}": sum(watched),
            f"longest_ms_{label}": max(watched, default=None),
            f"mean_ms_{label}": sum(watched) / len(watched) if watched else -1.0,
            f"last_ms_{label}": youngest[0].watch_ms if youngest else None,
            f"recent_ms_{label}": [event.watch_ms for event in youngest[:3]],
            f"ms_per_play_{label}": sum(watched) / len(watched) if watched else None,
            f"first_ms_{label}": youngest[-1].watch_ms if youngest else None,
            f"deviation_ms_{label}": pytest.approx(statistics.pstdev(watched)) if watched else None,
            f"lengths_{label}": len(set(watched)),
            f"top_ms_{label}": sorted(set(watched), key=lambda ms: (-watched.count(ms), ms))[:3],
        }
    for feature in plan.features:
        if isinstance(feature.definition, Change):
            label, longest = feature.window.label, Window.of(feature.definition.against).label
            rates = [values[f"watch_ms_{each}"] / SIZES_AND_TILES_MS[each][0] for each in (label, longest)]
            values[feature.name] = pytest.approx(rates[0] / rates[1] - 1) if rates[1] else -2.0
    return values


def served(plan: GroupPlan, finished: Finished) -> dict[str, Any]:
    return dict(zip((feature.name for feature in plan.features), finished.values, strict=True))


def chosen_ids(plan: GroupPlan, events: list[Event], instant_ms: int) -> dict[str, list[str]]:
    labels = {feature.window.label for feature in plan.features}
    return {label: [event.event_id for event in in_window(events, label, instant_ms)] for label in labels}


@given(EVENTS, INSTANTS)
@MODEST
def test_every_window_is_the_naive_loop_over_raw_events(events, instant_ms):
    """
    This is the promise of the platform: every served number is the batch number.
    """
    finished = finish(FOREVER, tail_of(FOREVER, events), instant_ms)

    assert served(FOREVER, finished) == naive(FOREVER, events, instant_ms)


@given(EVENTS, INSTANTS)
@MODEST
def test_the_writer_and_a_reader_finish_a_row_alike(events, instant_ms):
    """
    What a row's head says is what every reader of its tiles computes; otherwise a value would jump as a tile ends.
    """
    tail = tail_of(FOREVER, events)

    head = finish_live(FOREVER, live(FOREVER, tail), instant_ms)

    assert (head.values, head.valid_until_ms) == finish(FOREVER, tail, instant_ms)
    assert finish(FOREVER, head.tail, instant_ms) == finish(FOREVER, tail, instant_ms)


@given(EVENTS, INSTANTS, st.data())
@MODEST
def test_a_head_is_right_until_it_says_it_is_not(events, instant_ms, data):
    """
    Readers serve finished values without looking at the tiles until this instant, and not a millisecond longer.
    """
    tail = tail_of(FOREVER, events)
    values, until_ms = finish(FOREVER, tail, instant_ms)
    assert until_ms > instant_ms

    last_ms = min(until_ms - 1, instant_ms + 30 * 86_400_000)
    for later_ms in (last_ms, data.draw(st.integers(instant_ms, last_ms))):
        assert finish(FOREVER, tail, later_ms).values == values
        assert chosen_ids(FOREVER, events, later_ms) == chosen_ids(FOREVER, events, instant_ms)

    if until_ms != NEVER_MS:
        assert chosen_ids(FOREVER, events, until_ms) != chosen_ids(FOREVER, events, instant_ms)


@given(st.sampled_from([DECAYING, SHORT]), EVENTS, INSTANTS)
@MODEST
def test_a_row_expires_when_its_last_window_is_empty(plan, events, instant_ms):
    """
    A row that goes earlier takes numbers with it; one that stays longer is memory for everyone who was ever seen.
    """
    tail = tail_of(plan, events)

    expires_ms = finish_live(plan, live(plan, tail), instant_ms).expires_at_ms

    assert expires_ms >= instant_ms
    for later_ms in (expires_ms, expires_ms + 1, expires_ms + 3_600_000):
        assert not any(chosen_ids(plan, events, later_ms).values())
        assert finish(plan, tail, later_ms).values == list(plan.empty)
    if expires_ms > instant_ms:
        assert any(chosen_ids(plan, events, expires_ms - 1).values())


def test_a_row_with_a_state_never_expires():
    """
    What a user's city is does not end.
    """
    tail = tail_of(FOREVER, [Event(NOW_MS, "e", 1)])

    assert finish_live(FOREVER, live(FOREVER, tail), NOW_MS).expires_at_ms == NEVER_MS
    assert finish_live(FOREVER, live(FOREVER, []), NOW_MS).expires_at_ms == NOW_MS


def test_a_window_decays_tile_by_tile_to_its_empty_value():
    """
    A user who stopped watching an hour ago has watched nothing in the last hour, although no event says so.
    """
    start_ms = NOW_MS - NOW_MS % 3_600_000
    events = [Event(start_ms + number * 300_000, f"e{number}", 1) for number in range(12)]
    plan = plan_over(hours(1))
    tail, instant_ms, counts = tail_of(plan, events), start_ms + 3_599_999, []

    while instant_ms != NEVER_MS:
        finished = finish(plan, tail, instant_ms)
        counts.append(served(plan, finished)["plays_1h"])
        instant_ms = finished.valid_until_ms

    assert counts == [12, 11, 10, 9, 8, 7, 6, 5, 4, 3, 2, 1, 0]


def test_an_event_of_a_tile_to_come_counts_from_its_beginning_on():
    """
    Clocks differ by a few seconds; nobody has watched anything in the future.
    """
    tile_starts_ms = NOW_MS - NOW_MS % 25_000 + 25_000
    plan = plan_over(minutes(5))
    tail = tail_of(plan, [Event(tile_starts_ms + 3, "e", 1)])

    before = finish(plan, tail, tile_starts_ms - 1)

    assert (served(plan, before)["plays_5m"], before.valid_until_ms) == (0, tile_starts_ms)
    assert served(plan, finish(plan, tail, tile_starts_ms))["plays_5m"] == 1


def test_a_number_that_left_the_doubles_is_served_as_null():
    """
    Infinity has no JSON: a sum of two numbers of 1e308 was served as none that a client could read.
    """
    huge = aggregate("huge", PLAYS, Sum(col("watch_ms") / 1), over=(hours(1),), default=-1.0)
    plan = plan_group(FeatureGroup("huge", entity=USER, owner="feed", features=(huge,)))
    tile = NOW_MS // 300_000

    finished = finish(plan, [(300_000, [[tile - 1, 1e308], [tile, 1e308]])], NOW_MS)

    assert finished.values == [-1.0]


def test_a_latest_null_is_served_as_its_default():
    """
    A user who removed the city has none, whatever an older event said.
    """
    plan = plan_group(
        FeatureGroup("state", entity=USER, owner="feed", features=(latest("watch", PLAYS, col("watch_ms"), default=7),))
    )
    (slot,) = plan.resolutions[0].slots
    state = slot.aggregation.add((1, "a", 5), None, 2, "b")

    assert finish(plan, [(0, [[0, state]])], NOW_MS).values == [7]
    assert finish(plan, [(0, [[0, (1, "a", 5)]])], NOW_MS).values == [5]


def test_windows_of_the_naive_loop_are_those_of_the_plan():
    """
    An oracle with tiles of its own size would agree with nothing.
    """
    windows = [Window.of(span) for span in (*WINDOWS, ALL_TIME)]

    assert {window.label: (window.size_ms, window.tile_ms) for window in windows} == SIZES_AND_TILES_MS
