"""Laws of every aggregation. They find the classes in ``AGGREGATIONS`` and build them from their fields."""

import itertools
import math
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from fractions import Fraction
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from core.aggregations import (
    AGGREGATIONS,
    Aggregation,
    ApproxDistinct,
    ApproxPercentile,
    LastN,
    Sum,
    TopK,
    Variance,
)
from core.code import Code
from core.expressions import col
from core.keys import INT64_MAX, INT64_MIN
from core.values import ValueType

LAWS = settings(max_examples=25, derandomize=True, deadline=None)


@dataclass(frozen=True)
class Event:
    time_ms: int
    event_id: str
    value: Any

    @property
    def youth(self) -> tuple[int, str, bool, Any]:
        return self.time_ms, self.event_id, self.value is not None, self.value


SETTINGS: dict[Any, tuple[Any, ...]] = {
    int: (1, 3),
    bool: (False, True),
    "values_max": (2, 50),
    # Above the number of different values below: with fewer the order of adding shows, see test_top_values.py.
    "counters": (50,),
    "precision": (8, 10),
    "percents": (50, (0, 33.3, 100)),
    "steps": (16,),
    "buckets": (3, 256),
}
"""Per name or type of a setting some values of it; an aggregation with a setting of a new kind adds one here."""

VALUES: dict[ValueType, st.SearchStrategy[Any]] = {
    ValueType.INT: st.sampled_from([INT64_MIN, INT64_MAX, INT64_MAX - 1, 0]) | st.integers(-9, 9),
    # Multiples of a power of two, so that sums of floats are exact and can be compared bit by bit.
    ValueType.FLOAT: st.integers(-(2**20), 2**20).map(lambda number: number / 1024),
    ValueType.STR: st.text("ab漢", max_size=3),
    ValueType.BOOL: st.booleans(),
}


def instances() -> list[Aggregation]:
    found = []
    for kind in AGGREGATIONS:
        choices = {
            item.name: SETTINGS.get(item.name) or SETTINGS[item.type] for item in fields(kind) if item.name != "value"
        }
        every = itertools.product(*choices.values())
        found += [kind(col("x"), **dict(zip(choices, chosen, strict=True))) for chosen in every]
    return found


def types_of(aggregation: Aggregation) -> list[ValueType]:
    return sorted(aggregation.accepts, key=lambda own: own.value)


@st.composite
def runs_of_events(draw, aggregation: Aggregation, *, number: int) -> tuple[list[Event], ...]:
    """Some lists of events whose values have one type."""
    values = VALUES[draw(st.sampled_from(types_of(aggregation)))]
    if aggregation.takes_null:
        values |= st.none()
    # Few times and ids, so that events tie in one or in both.
    events = st.lists(st.tuples(st.integers(0, 3), st.sampled_from(["", "a", "b"]), values), max_size=8)
    return tuple([Event(*parts) for parts in draw(events)] for _ in range(number))


every_aggregation = pytest.mark.parametrize("aggregation", instances(), ids=lambda aggregation: aggregation.text)


def fold(aggregation: Aggregation, events: Sequence[Event]) -> Any:
    state = aggregation.zero()
    for event in events:
        state = aggregation.add(state, event.value, event.time_ms, event.event_id)
    return state


def stored(aggregation: Aggregation, state: Any) -> bytes:
    return msgspec.msgpack.encode(aggregation.pack(state))


def packed(aggregation: Aggregation, state: Any) -> Any:
    return msgspec.msgpack.decode(stored(aggregation, state))


def same(left: Any, right: Any, events: Sequence[Event] = ()) -> bool:
    """Equal, tuples as lists; floats equal but for rounding, of which there is more if they are made of large integers.

    A float that is of the second degree in the values, as in a variance, is far above this scale or exact.
    """
    if isinstance(left, list | tuple) and isinstance(right, list | tuple):
        return len(left) == len(right) and all(same(a, b, events) for a, b in zip(left, right, strict=True))
    if isinstance(left, float) and isinstance(right, float):
        scale = sum(abs(event.value) for event in events if type(event.value) is int)
        return math.isclose(left, right, rel_tol=1e-9, abs_tol=1e-9 * scale)
    return type(left) is type(right) and left == right


def same_state(aggregation: Aggregation, left: Any, right: Any, events: Sequence[Event] = ()) -> bool:
    """Two states are one if they are stored as one."""
    return same(packed(aggregation, left), packed(aggregation, right), events)


# -- oracles: the meaning of each, computed from all events at once


def wrapped(total: float) -> float:
    return (total + 2**63) % 2**64 - 2**63 if type(total) is int else total


def youngest_first(events: Sequence[Event]) -> list[Any]:
    return [event.value for event in sorted(events, key=lambda event: event.youth, reverse=True)]


def last_n(aggregation: LastN, events: Sequence[Event]) -> list[Any]:
    values = youngest_first(events)
    return (list(dict.fromkeys(values)) if aggregation.distinct else values)[: aggregation.n]


def variance(aggregation: Variance, events: Sequence[Event]) -> float | None:
    divisor = len(events) - aggregation.sample
    if divisor <= 0:
        return None
    values = [Fraction(event.value) for event in events]
    mean = sum(values) / len(values)
    return float(sum((value - mean) ** 2 for value in values) / divisor)


def top_k(aggregation: Any, events: Sequence[Event]) -> list[Any] | None:
    counts = Counter(event.value for event in events)
    if isinstance(aggregation, TopK) and len(counts) > aggregation.values_max:
        return None
    return sorted(counts, key=lambda value: (-counts[value], value))[: aggregation.n]


def distinct(aggregation: ApproxDistinct, events: Sequence[Event]) -> int:
    """So few values do not collide, so the estimate is the number."""
    return len({event.value for event in events})


def percentile(aggregation: ApproxPercentile, events: Sequence[Event]) -> Any:
    """The same buckets, found by halving and doubling, and the percentile of the values' buckets by sorting."""
    middles = [bucket_middle(abs(event.value), aggregation.steps) for event in events]
    kept = sorted({(middle, event.value < 0) for middle, event in zip(middles, events, strict=True) if middle})
    kept = kept[-aggregation.buckets :]
    ordered = sorted(
        (-middle if event.value < 0 else middle) if (middle, event.value < 0) in kept else 0.0
        for middle, event in zip(middles, events, strict=True)
    )
    if not ordered:
        return None
    percents = aggregation.percents if isinstance(aggregation.percents, tuple) else (aggregation.percents,)
    found = [ordered[max(1, math.ceil(len(ordered) * percent / 100)) - 1] for percent in percents]
    return found if isinstance(aggregation.percents, tuple) else found[0]


def bucket_middle(size: float, steps: int) -> float:
    if size == 0:
        return 0.0
    low = 1.0
    while low > float(size):
        low /= 2
    while low * 2 <= float(size):
        low *= 2
    width = low / steps
    return low + width * (int((float(size) - low) / width) + 0.5)


ORACLES: dict[str, Callable[[Any, Sequence[Event]], Any]] = {
    "Count": lambda _, events: len(events),
    "Sum": lambda _, events: wrapped(sum(event.value for event in events)),
    "Mean": lambda _, events: sum(event.value for event in events) / len(events) if events else None,
    "Variance": variance,
    "StdDev": lambda aggregation, events: None if (v := variance(aggregation, events)) is None else math.sqrt(v),
    "Min": lambda _, events: min((event.value for event in events), default=None),
    "Max": lambda _, events: max((event.value for event in events), default=None),
    "First": lambda _, events: next(reversed(youngest_first(events)), None),
    "Last": lambda _, events: next(iter(youngest_first(events)), None),
    "Latest": lambda _, events: next(iter(youngest_first(events)), None),
    "LastN": last_n,
    "TopK": top_k,
    "ApproxTopK": top_k,
    "ApproxDistinct": distinct,
    "ApproxPercentile": percentile,
}


# -- laws


@every_aggregation
@given(data=st.data())
@LAWS
def test_the_result_is_what_all_events_at_once_give(aggregation, data):
    """
    Every number that a model sees comes through here.
    """
    (events,) = data.draw(runs_of_events(aggregation, number=1))

    result = aggregation.result(fold(aggregation, events))

    assert same(result, ORACLES[type(aggregation).__name__](aggregation, events), events)


@every_aggregation
@given(data=st.data())
@LAWS
def test_the_written_code_does_what_the_methods_do(aggregation, data):
    """
    Tables and readers run the code that an aggregation writes; laws and definitions speak of its methods.
    """
    left, right = data.draw(runs_of_events(aggregation, number=2))
    adding = Code("def add(tile, value, time_ms, event_id):")
    adding.add(aggregation.add_code("tile[0]", "value", adding.name("add", aggregation.add)))
    merging = Code("def merge(left, right):")
    merging.add(aggregation.merge_code("left", "right", merging.name("merge", aggregation.merge)) + "\nreturn left")
    add, merge = adding.compile(), merging.compile()

    tiles = [[aggregation.zero()], [aggregation.zero()]]
    for tile, events in zip(tiles, (left, right), strict=True):
        for event in events:
            add(tile, event.value, event.time_ms, event.event_id)

    states = [fold(aggregation, events) for events in (left, right)]
    assert [stored(aggregation, tile[0]) for tile in tiles] == [stored(aggregation, state) for state in states]
    merged = merge(tiles[0][0], tiles[1][0])
    assert stored(aggregation, merged) == stored(aggregation, aggregation.merge(*states))
    assert not aggregation.never_null or type(aggregation.result(states[0])) is int


@every_aggregation
@given(data=st.data())
@LAWS
def test_any_order_of_adding_gives_one_state(aggregation, data):
    """
    Partitions are read in different orders after every restart; a state that shows it is wrong in one of them.
    """
    (events,) = data.draw(runs_of_events(aggregation, number=1))
    shuffled = data.draw(st.permutations(events))

    assert same_state(aggregation, fold(aggregation, events), fold(aggregation, shuffled), events)


@every_aggregation
@given(data=st.data())
@LAWS
def test_merging_parts_gives_the_state_of_the_whole(aggregation, data):
    """
    A window is a merge of its tiles, whatever their number.
    """
    tiles = data.draw(runs_of_events(aggregation, number=4))
    events = [event for tile in tiles for event in tile]

    merged = aggregation.zero()
    for tile in tiles:
        merged = aggregation.merge(merged, fold(aggregation, tile))
    at_once = aggregation.merge_all([fold(aggregation, tile) for tile in tiles])

    whole = fold(aggregation, events)
    assert same_state(aggregation, merged, whole, events)
    assert same_state(aggregation, at_once, whole, events)
    assert same(aggregation.result(at_once), aggregation.result(whole), events)


@every_aggregation
@given(data=st.data())
@LAWS
def test_merge_is_associative_and_commutative_and_zero_is_neutral(aggregation, data):
    """
    Readers merge tiles in whatever order is quickest.
    """
    merge, zero = aggregation.merge, aggregation.zero()
    parts = data.draw(runs_of_events(aggregation, number=3))
    a, b, c = (fold(aggregation, part) for part in parts)
    events = [event for part in parts for event in part]

    assert same_state(aggregation, merge(merge(a, b), c), merge(a, merge(b, c)), events)
    assert same_state(aggregation, merge(a, b), merge(b, a), events)
    assert same_state(aggregation, merge(a, zero), a, events)
    assert same_state(aggregation, merge(zero, a), a, events)


@every_aggregation
@given(data=st.data())
@LAWS
def test_a_state_survives_being_packed(aggregation, data):
    """
    A row that cooled down, or moved to another worker, goes on as lists where there were tuples.
    """
    before, after = data.draw(runs_of_events(aggregation, number=2))
    whole = fold(aggregation, before + after)

    state = packed(aggregation, fold(aggregation, before))
    other = packed(aggregation, fold(aggregation, after))

    assert same_state(aggregation, aggregation.merge(state, other), whole, before + after)
    assert same_state(aggregation, aggregation.merge(fold(aggregation, before), other), whole, before + after)
    assert same(aggregation.result(state), aggregation.result(fold(aggregation, before)))
    for event in after:
        state = packed(aggregation, aggregation.add(state, event.value, event.time_ms, event.event_id))
    assert same_state(aggregation, state, whole, before + after)


@every_aggregation
@given(data=st.data())
@LAWS
def test_when_a_state_is_packed_does_not_show_in_its_bytes(aggregation, data):
    """
    Two owners of one prefix flush at different moments and must store the same bytes under the same version.
    """
    (events,) = data.draw(runs_of_events(aggregation, number=1))
    flushed = data.draw(st.lists(st.booleans(), min_size=len(events), max_size=len(events)))
    state = aggregation.zero()

    for event, flush in zip(events, flushed, strict=True):
        state = aggregation.add(state, event.value, event.time_ms, event.event_id)
        state = packed(aggregation, state) if flush else state

    mine = stored(aggregation, state)
    assert mine == stored(aggregation, fold(aggregation, events))
    assert mine == stored(aggregation, aggregation.pack(state))


@every_aggregation
@given(data=st.data())
@LAWS
def test_merging_changes_neither_side(aggregation, data):
    """
    A read merges live tiles; if it changed them, reading would alter what is read.
    """
    runs = data.draw(runs_of_events(aggregation, number=3))
    left, right = (fold(aggregation, run) for run in runs[:2])
    before = [packed(aggregation, side) for side in (left, right)]

    merged = aggregation.merge(left, right)
    for event in runs[2]:
        merged = aggregation.add(merged, event.value, event.time_ms, event.event_id)

    assert [packed(aggregation, side) for side in (left, right)] == before


@every_aggregation
@given(data=st.data())
@LAWS
def test_a_result_has_the_type_that_is_promised(aggregation, data):
    """
    Clients generate types from the catalogue.
    """
    (events,) = data.draw(runs_of_events(aggregation, number=1))
    types = {int: ValueType.INT, float: ValueType.FLOAT, str: ValueType.STR, bool: ValueType.BOOL}
    promised = {aggregation.result_type(types[type(event.value)]) for event in events if event.value is not None}

    result = aggregation.result(fold(aggregation, events))

    assert result is None or not promised or {types.get(type(result), ValueType.LIST)} == promised


@every_aggregation
def test_the_worst_state_is_not_underestimated(aggregation):
    """
    A row that outgrows the record store's limit is found by check, or by a partition that stands still.
    """
    largest = {
        ValueType.INT: lambda number: INT64_MIN + number,
        ValueType.FLOAT: lambda number: number + 0.1,
        ValueType.STR: lambda number: f"{number:064}",
        ValueType.BOOL: bool,
    }
    for own in types_of(aggregation):
        events = [Event(2**45 + number, "i" * 36, largest[own](number)) for number in range(20)]

        size = len(stored(aggregation, fold(aggregation, events)))

        assert size <= aggregation.worst_state_bytes(max(len(msgspec.msgpack.encode(event.value)) for event in events))


def test_no_two_aggregations_have_one_text():
    """
    Texts are a slot's identity: with one of them, two aggregations would share a state.
    """
    texts = [aggregation.text for aggregation in instances()]

    assert len(set(texts)) == len(texts)


def test_empty_results_are_frozen():
    """
    What a model gets for an empty window is part of the meaning of its features.
    """
    empty = {kind.__name__: kind(col("x")).result(kind(col("x")).zero()) for kind in AGGREGATIONS}

    assert empty == {
        "Count": 0, "Sum": 0, "Mean": None, "Variance": None, "StdDev": None, "Min": None, "Max": None,
        "First": None, "Last": None, "Latest": None, "LastN": [], "TopK": [], "ApproxTopK": [], "ApproxDistinct": 0,
        "ApproxPercentile": None,
    }  # fmt: skip


def test_states_are_frozen():
    """
    Stored tiles hold these bytes: a change of these bytes moves data.
    """
    events = [Event(1, "a", 5), Event(2, "b", 3), Event(2, "c", 5)]

    states = {
        kind.__name__: stored(made, fold(made, events)).hex() for kind in AGGREGATIONS for made in [kind(col("x"))]
    }

    assert states == {
        "Count": "03",
        "Sum": "0d",
        "Mean": "92cb402a00000000000003",
        "Variance": "9303cb4011555555555555cb4005555555555556",
        "StdDev": "9303cb4011555555555555cb4005555555555556",
        "Min": "03",
        "Max": "05",
        "First": "9301a16105",
        "Last": "9302a16305",
        "Latest": "9302a16305",
        "LastN": "939302a163059302a162039301a16105",
        "TopK": "8205020301",
        "ApproxTopK": "92008205020301",
        "ApproxDistinct": "c4140401100a000acc930200000001000000d6ad0100",
        "ApproxPercentile": "9300c08268025001",
    }


def test_events_of_a_source_without_ids_tie_in_their_values():
    """
    Without ids two events of one millisecond had no order, and the last value was whichever came last.
    """
    for aggregation in (LastN(col("x"), n=1), LastN(col("x"), n=1, distinct=True)):
        states = [fold(aggregation, order) for order in itertools.permutations([Event(1, "", 7), Event(1, "", 8)])]

        assert states == [[(1, "", 8)], [(1, "", 8)]]


def test_a_sum_of_integers_wraps_in_every_order():
    """
    An error in the middle of a sum would depend on which events came first.
    """
    total = Sum(col("x"))

    states = {
        fold(total, [Event(0, "", value) for value in order]) for order in itertools.permutations([INT64_MAX, 1, -1])
    }

    assert states == {INT64_MAX}
