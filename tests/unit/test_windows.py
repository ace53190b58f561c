from datetime import timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from core.windows import (
    ALL_TIME,
    NEVER_MS,
    TILES_PER_WINDOW_MAX,
    TILES_PER_WINDOW_MIN,
    Window,
    days,
    hours,
    milliseconds,
    minutes,
    seconds,
    tile_index,
    tile_ms_for,
    to_ms,
)

MODEST = settings(max_examples=100, derandomize=True, deadline=None)
INSTANTS = st.integers(min_value=0, max_value=2**45)


def sizes_that_can_be() -> list[int]:
    return [size_ms for size_ms in range(300_000, 90 * 86_400_000, 60_000 * 97) if can_be(size_ms)]


def can_be(size_ms: int) -> bool:
    try:
        tile_ms_for(size_ms)
    except ValueError:
        return False
    return True


WINDOWS = st.sampled_from([Window.of(milliseconds(size_ms)) for size_ms in sizes_that_can_be()])


def test_tile_sizes_are_frozen():
    """
    A change of these sizes moves data: stored rows hold tiles of them.
    """
    sizes = [minutes(5), minutes(10), hours(1), hours(2), hours(6), days(1), days(7), days(14), days(30), days(90)]

    tiles_s = [tile_ms_for(to_ms(size)) // 1000 for size in sizes]

    assert tiles_s == [25, 50, 300, 600, 1800, 7200, 50_400, 100_800, 216_000, 648_000]


@pytest.mark.parametrize(
    ("size", "words"),
    [
        (timedelta(minutes=4, seconds=59), "between 5 minutes and 90 days"),
        (timedelta(days=90, seconds=1), "between 5 minutes and 90 days"),
        (timedelta(hours=-1), "between 5 minutes and 90 days"),
        (timedelta(minutes=5, milliseconds=1), "whole number of seconds"),
        (timedelta(seconds=307), "no tile divides"),
    ],
)
def test_a_window_that_cannot_be_says_why(size, words):
    """
    The author of a feature reads this message and nothing else.
    """
    with pytest.raises(ValueError, match=words):
        Window.of(size)


def test_the_remedy_for_an_indivisible_window_works():
    """
    A remedy that fails as well would cost its reader twice.
    """
    with pytest.raises(ValueError, match="307") as caught:
        tile_ms_for(307_000)

    told_s = int(str(caught.value).split("parts; ")[1].split()[0])

    assert tile_ms_for(told_s * 1000) > 0


@given(WINDOWS)
@MODEST
def test_a_window_is_12_to_24_whole_tiles(window):
    """
    Fewer tiles would make a window too coarse, more would make its row too large.
    """
    tiles, rest = divmod(window.size_ms, window.tile_ms)

    assert rest == 0
    assert TILES_PER_WINDOW_MIN <= tiles <= TILES_PER_WINDOW_MAX
    assert window.tile_ms % 1000 == 0


@given(WINDOWS, INSTANTS)
@MODEST
def test_a_window_holds_its_whole_size_and_at_most_one_tile_more(window, instant_ms):
    """
    A window that is too short would lose events that it promises to count.
    """
    oldest_ms = window.first_tile(instant_ms) * window.tile_ms

    assert instant_ms - window.size_ms - window.tile_ms < oldest_ms <= instant_ms - window.size_ms
    assert window.last_tile(instant_ms) == tile_index(instant_ms, window.tile_ms)


@given(WINDOWS, INSTANTS)
@MODEST
def test_a_tile_leaves_at_the_first_instant_without_it(window, instant_ms):
    """
    A head that is served a millisecond longer than it is valid shows a wrong number.
    """
    tile = tile_index(instant_ms, window.tile_ms)

    leaves_ms = window.leaves_ms(tile)

    assert window.first_tile(leaves_ms - 1) == tile
    assert window.first_tile(leaves_ms) == tile + 1


def test_all_time_is_one_tile_that_never_leaves():
    """
    States without a window would vanish if their tile ever ended.
    """
    window = Window.of(ALL_TIME)

    assert (window.first_tile(10**15), window.last_tile(10**15), tile_index(10**15, 0)) == (0, 0, 0)
    assert window.leaves_ms(0) == NEVER_MS


def test_labels_are_frozen():
    """
    Labels are part of the names that models ask for; they cannot change.
    """
    spans = [minutes(5), seconds(330), minutes(90), hours(1), hours(24), hours(36), days(7), ALL_TIME]

    assert [Window.of(span).label for span in spans] == ["5m", "330s", "90m", "1h", "1d", "36h", "7d", "all"]


@given(WINDOWS, WINDOWS)
@MODEST
def test_different_windows_have_different_labels(one, other):
    """
    Two features of one name would be served as one.
    """
    assert (one.label == other.label) == (one == other)
