"""The pure parts of ``make bench-memory``: whether a line through samples is called growth."""

from bench.steady.trend import Sample, told, trend


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
