"""The pure parts of ``make bench-memory``: whether a line through samples is called growth, and a run good."""

from bench.steady.trend import Sample, Trend, is_good, told, trend


def test_memory_that_breathes_is_flat_and_memory_that_grows_is_not():
    """
    A worker that grows by a tenth in half an hour is killed within the week.
    """
    breathing = [Sample(10.0 * number, 200_000_000 + number % 2 * 3_000_000, 1, 0) for number in range(180)]
    growing = [Sample(10.0 * number, 200_000_000 + number * 100_000, 1, 0) for number in range(180)]

    assert trend(breathing).is_flat
    assert "flat" in told(trend(breathing))
    assert not trend(growing).is_flat
    assert trend(growing).mb_per_hour == 36.0


def test_a_load_that_was_not_served_says_nothing_of_memory():
    """
    A worker that answered every read with 503 had a memory as flat as could be wished.
    """
    flat, growing = Trend(100.0, 101.0, 2.0, 99.5, 101.5), Trend(100.0, 105.5, 11.0, 99.5, 105.5)

    assert is_good(flat, lost=0, reads={200: 36_000})
    assert is_good(flat, lost=0, reads={})
    assert not is_good(flat, lost=0, reads={200: 35_999, 503: 1})
    assert not is_good(flat, lost=1, reads={200: 36_000})
    assert not is_good(growing, lost=0, reads={200: 36_000})
