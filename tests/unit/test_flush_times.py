import pytest

from agents.flush_times import FlushTimes
from tests.aggregating import FAST, NOW_MS, new_table

FAST_GROUP = new_table().group(FAST)
EVERY_S = FAST_GROUP.plan.group.writing.every.total_seconds()


def flushed(*, age_ms=0, took_s=0.0) -> FlushTimes:
    """Times after a flush that began at 100 s, while a record that old was applied."""
    times = FlushTimes()
    times.applied(100.0, as_of_ms=NOW_MS - age_ms, caught_up=False)
    times.flushed([FAST_GROUP], began=100.0, took_s=took_s)
    return times


@pytest.mark.parametrize(
    ("age_ms", "took_s", "apart_s"),
    [
        (0, 0.0, EVERY_S),
        (0, 1.0, 1.3),
        (1_000, 1.0, 1.3),
        (10_000, 0.0, 1.0),
        (3_600_000, 0.0, 2.0),
        (3_600_000, 3.0, 3.9),
        (0, 300.0, 6.0),
        (3_600_000, 300.0, 6.0),
    ],
)
def test_flushes_are_further_apart_where_they_take_long_or_events_are_old(age_ms, took_s, apart_s):
    """
    A row of which ten versions wait is written once. Events of an hour ago are late already: two seconds more are
    nothing to them, and half as many writes let the present be reached sooner. After a flush that has waited for the
    record for five minutes the next one was due ten minutes after it began: all rows were that old by then.
    """
    times, due = flushed(age_ms=age_ms, took_s=took_s), 100.0 + apart_s
    times.applied(due - 0.01, as_of_ms=NOW_MS - age_ms, caught_up=False)

    assert times.delay_s([FAST_GROUP], due - 0.01, now_ms=NOW_MS) == pytest.approx(0.01)
    assert times.delay_s([FAST_GROUP], due, now_ms=NOW_MS) <= 0


def test_when_nothing_comes_any_more_what_is_old_goes_out_too():
    """
    There is nothing to coalesce with, and whoever waits for the last of a backlog waits for nothing.
    """
    times = flushed(age_ms=3_600_000, took_s=3.0)
    times.applied(101.0, as_of_ms=NOW_MS - 3_600_000, caught_up=False)

    assert times.delay_s([FAST_GROUP], 101.0, now_ms=NOW_MS) == pytest.approx(0.05)
    assert times.delay_s([FAST_GROUP], 101.1, now_ms=NOW_MS) <= 0
    assert times.comes_along(FAST_GROUP, 101.1, now_ms=NOW_MS)


def test_a_group_that_was_never_flushed_is_due_at_once():
    """
    Its first change would wait for the others' interval.
    """
    times = FlushTimes()
    times.applied(100.0, as_of_ms=NOW_MS - 3_600_000, caught_up=False)

    assert times.delay_s([FAST_GROUP], 100.0, now_ms=NOW_MS) <= 0


@pytest.mark.parametrize(("age_ms", "took_s", "in_s"), [(0, 0.0, 0.01), (50, 0.0, 0.01), (0, 0.03, 0.03)])
def test_new_rows_go_out_alone_soon_after_a_flush(age_ms, took_s, in_s):
    """
    A user who clicks once would be seen after 50 ms, because others had clicked just before.
    """
    times = flushed(age_ms=age_ms, took_s=took_s)

    assert times.alone_in_s(100.0, now_ms=NOW_MS) == pytest.approx(in_s)
    assert times.alone_in_s(100.0 + in_s + 0.01, now_ms=NOW_MS) < 0


def test_new_rows_do_not_go_out_alone_while_we_are_behind():
    """
    Each flush costs time of which there is too little, and coalesces less than the next one would.
    """
    assert flushed(age_ms=51).alone_in_s(100.0, now_ms=NOW_MS) == float("inf")


@pytest.mark.parametrize(("caught_up", "apart_s"), [(True, EVERY_S), (False, 6.0)])
def test_a_load_that_is_over_does_not_put_off_what_comes_after_it(*, caught_up, apart_s):
    """
    The last flush of a load took nearly five seconds, and the first live events after it waited for six: in the demo those
    were a second old when they could be read, long after the load was done.
    """
    times = flushed(took_s=4.6)
    now = 104.0
    times.applied(now, as_of_ms=NOW_MS, caught_up=caught_up)

    assert times.delay_s([FAST_GROUP], now, now_ms=NOW_MS) <= max(100.0 + apart_s - now, 0)
    assert times.comes_along(FAST_GROUP, now, now_ms=NOW_MS) is caught_up


def test_a_flush_of_new_rows_alone_is_no_measure_of_the_next_of_a_group():
    """
    Few new rows take a moment; whole groups were flushed sooner then, just when the core was full.
    """
    times = flushed(took_s=1.0)
    times.flushed([], began=101.2, took_s=0.002)
    times.applied(101.25, as_of_ms=NOW_MS, caught_up=False)

    assert times.delay_s([FAST_GROUP], 101.26, now_ms=NOW_MS) == pytest.approx(0.04)
    assert times.alone_in_s(101.2, now_ms=NOW_MS) == pytest.approx(0.01)
