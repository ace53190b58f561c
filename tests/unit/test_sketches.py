"""Aggregations on more values than they have room for, or on larger ones.

They are within their stated bound, and the same for every owner of a row.
"""

import itertools
import math
from collections import Counter

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from core.aggregations import ApproxDistinct, ApproxPercentile, ApproxTopK, StdDev, TopK, Variance
from core.expressions import col

MODEST = settings(max_examples=60, derandomize=True, deadline=None)
VALUE = col("x")


def fold(aggregation, values, *, flush_every=0):
    """The state of all values, packed and decoded again after every so many of them."""
    state = aggregation.zero()
    for number, value in enumerate(values, 1):
        state = aggregation.add(state, value, number, "")
        if flush_every and number % flush_every == 0:
            state = msgspec.msgpack.decode(stored(aggregation, state))
    return state


def stored(aggregation, state) -> bytes:
    return msgspec.msgpack.encode(aggregation.pack(state))


def parts(values, number):
    return [values[start::number] for start in range(number)]


def exact_percentile(values, percent):
    return sorted(values)[max(1, math.ceil(len(values) * percent / 100)) - 1]


# -- ApproxDistinct


@pytest.mark.parametrize(("precision", "number"), list(itertools.product((8, 10, 12, 14), (100, 3_000, 60_000))))
def test_the_number_of_different_values_is_within_three_standard_errors(precision, number):
    """
    Whoever chooses a precision chooses an error; the hash is fixed, so this holds always or never.
    """
    aggregation = ApproxDistinct(VALUE, precision=precision)

    result = aggregation.result(fold(aggregation, range(number)))

    assert abs(result - number) <= 3 * 0.69 / math.sqrt(2**precision) * number


@pytest.mark.parametrize("number", [30, 900, 20_000])
def test_a_distinct_count_has_one_state_whatever_the_order_the_tiles_and_the_flushes(number):
    """
    The number that was merged from tiles is that of one sketch over the raw rows, to the last bit.
    """
    aggregation = ApproxDistinct(VALUE)
    values = [value % (number - 7) for value in range(number)]
    shuffled = np.random.default_rng(1).permutation(values).tolist()

    whole = fold(aggregation, values)
    others = [
        fold(aggregation, shuffled),
        fold(aggregation, values, flush_every=97),
        aggregation.merge_all([fold(aggregation, tile, flush_every=11) for tile in parts(shuffled, 13)]),
    ]

    assert {stored(aggregation, other) for other in others} == {stored(aggregation, whole)}
    assert {aggregation.result(other) for other in others} == {aggregation.result(whole)}


@pytest.mark.parametrize("precision", range(8, 15))
def test_a_distinct_count_never_outgrows_its_worst_size(precision):
    """
    The record store refuses rows above its limit, and the partition behind them waits.
    """
    aggregation = ApproxDistinct(VALUE, precision=precision)
    state, sizes = aggregation.zero(), []

    for number in range(1, 12 * 2**precision):
        state = aggregation.add(state, number, number, "")
        if number % 2 ** (precision - 3) == 0:
            sizes.append(len(stored(aggregation, state)))

    assert max(sizes) <= aggregation.worst_state_bytes(9)


def test_an_empty_text_is_a_value_too():
    """
    The library skips it; SQL counts it.
    """
    aggregation = ApproxDistinct(VALUE)

    assert aggregation.result(fold(aggregation, ["", "a", ""])) == 2


# -- ApproxPercentile

AMOUNTS = st.floats(min_value=1, max_value=5_000) | st.floats(min_value=-5_000, max_value=-1) | st.just(0.0)


@given(st.lists(AMOUNTS, min_size=1, max_size=60), st.floats(min_value=0, max_value=100))
@MODEST
def test_a_percentile_is_within_its_share_of_the_exact_one(values, percent):
    """
    The bound is one of the value, not of the rank: a p99 of 60 s is never served as 90 s.
    """
    for steps in (8, 64):
        aggregation = ApproxPercentile(VALUE, percents=percent, steps=steps, buckets=1024)
        exact = exact_percentile(values, percent)

        result = aggregation.result(fold(aggregation, values))

        assert abs(result - exact) <= abs(exact) / (2 * steps)


def test_percentiles_of_watch_times_are_good_with_the_defaults():
    """
    Five orders of magnitude in one tile are normal, and the defaults must do.
    """
    values = np.random.default_rng(7).lognormal(8.5, 1.6, size=20_000).astype(int).tolist()
    percents = (1, 10, 50, 90, 99, 99.9)
    aggregation = ApproxPercentile(VALUE, percents=percents)

    result = aggregation.result(fold(aggregation, values))

    for percent, approximate in zip(percents, result, strict=True):
        assert approximate == pytest.approx(exact_percentile(values, percent), rel=1 / 32)


def test_values_below_the_kept_buckets_count_as_zero():
    """
    A state has a bound; what gives way are the values that are nothing beside the largest, of either sign.
    """
    aggregation = ApproxPercentile(VALUE, percents=(0, 25, 50, 100), steps=8, buckets=2)

    result = aggregation.result(fold(aggregation, [0.001, -0.002, 1_000_000, -900_000]))

    assert result == [pytest.approx(-900_000, rel=1 / 16), pytest.approx(-900_000, rel=1 / 16), 0.0,
                      pytest.approx(1_000_000, rel=1 / 16)]  # fmt: skip


def test_extreme_numbers_have_buckets():
    """
    A producer's bug may send any double or any 64-bit integer; a state that raises stops its partition.
    """
    for value in (5e-324, 2.2e-308, 1.7976931348623157e308, 2**63 - 1, -(2**63), 1):
        aggregation = ApproxPercentile(VALUE, steps=64)

        result = aggregation.result(fold(aggregation, [value]))

        assert result == pytest.approx(float(value), rel=1 / 128)


# -- Variance and StdDev


def test_distances_that_leave_the_doubles_have_no_deviation():
    """
    The root of what infinities made of each other was an error, and stopped the partition at its next flush.
    """
    for values in ([-1e308, 1e308], [1e308, -1e308, 1e308], [1e200, -1e200]):
        for kind in (Variance, StdDev):
            deviation = kind(VALUE).result(fold(kind(VALUE), values))

            assert deviation is None or not math.isfinite(deviation)


# -- TopK and ApproxTopK


def test_top_k_is_null_rather_than_wrong():
    """
    Whoever reads an exact ranking must not get a guess because a user was busy; and it does not come back by itself.
    """
    aggregation = TopK(VALUE, n=2, values_max=3)
    full = fold(aggregation, [1, 2, 2, 3, 3])

    assert aggregation.result(full) == [2, 3]
    over = aggregation.add(full, 4, 9, "")
    assert aggregation.result(over) is None
    assert aggregation.result(aggregation.add(over, 2, 9, "")) is None
    assert aggregation.result(aggregation.merge(over, fold(aggregation, [1]))) is None
    assert aggregation.result(aggregation.merge(fold(aggregation, [1, 2]), fold(aggregation, [3, 4]))) is None


@st.composite
def skewed(draw):
    """More values than there are counters, some of them far more often than others."""
    often = draw(st.lists(st.integers(0, 5), max_size=80))
    return draw(st.permutations(often + draw(st.lists(st.integers(0, 400), max_size=150))))


@given(skewed(), st.sampled_from([2, 7, 20]), st.integers(1, 6))
@MODEST
def test_every_count_of_approx_top_k_is_within_its_bound(values, counters, tiles):
    """
    Too small by at most 2 N / counters, in any order and from any number of tiles; so no frequent value is forgotten.
    """
    aggregation = ApproxTopK(VALUE, n=100, counters=counters)
    exact, bound = Counter(values), 2 * len(values) / counters

    for state in (
        fold(aggregation, values),
        aggregation.merge_all([fold(aggregation, tile) for tile in parts(values, tiles)]),
    ):
        taken, counts = state
        assert len(counts) <= counters
        assert taken <= bound
        assert all(exact[value] - taken <= counts.get(value, 0) <= exact[value] for value in exact)
        assert {value for value, count in exact.items() if count > bound} <= set(aggregation.result(state))


@given(skewed(), st.integers(1, 20))
@MODEST
def test_approx_top_k_has_the_same_bytes_whenever_it_is_flushed(values, flush_every):
    """
    Its state depends on the order of events, which all owners share, and must not on their flushes, which they do not.
    """
    aggregation = ApproxTopK(VALUE, counters=9)

    flushed = fold(aggregation, values, flush_every=flush_every)

    assert stored(aggregation, flushed) == stored(aggregation, fold(aggregation, values))


def test_approx_top_k_finds_the_top_of_a_long_tail():
    """
    Ten thousand videos, of which few are watched often: as every catalogue is.
    """
    values = (np.random.default_rng(3).zipf(1.4, size=30_000) % 10_000).tolist()
    aggregation = ApproxTopK(VALUE, n=5, counters=100)
    exact = [value for value, _ in Counter(values).most_common(5)]

    tiles = aggregation.merge_all([fold(aggregation, tile) for tile in parts(values, 13)])

    assert aggregation.result(fold(aggregation, values)) == exact
    assert aggregation.result(tiles) == exact
