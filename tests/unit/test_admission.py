"""Admission: a store that is slow makes few wait long, not all of them longer and longer."""

import pytest

from serving.admission import LIMIT_MAX, LIMIT_MIN, Admission
from tests.clock import Seconds


@pytest.fixture
def time():
    return Seconds()


@pytest.fixture
def admission(time):
    return Admission(monotonic=time)


def wait(admission: Admission, time: Seconds, *, reads: int, seconds: float, is_answered: bool = True) -> int:
    """Let so many reads begin, and end after a while; return how many were admitted."""
    began = [admission.begin() for _ in range(reads) if not admission.is_full]
    time.now += seconds
    for one in began:
        admission.end(one, is_answered=is_answered)
    return len(began)


def test_no_more_wait_than_the_limit_allows(admission, time):
    """
    Everything is bounded: a million reads that wait for a dead record are a million coroutines.
    """
    assert wait(admission, time, reads=LIMIT_MAX + 5, seconds=0.01) == LIMIT_MAX


def test_the_limit_falls_once_for_each_time_that_the_stores_are_late(admission, time):
    """
    A thousand answers that are late together are one sign, not a thousand.
    """
    wait(admission, time, reads=500, seconds=1)

    assert admission.limit == int(LIMIT_MAX * 0.9)


def test_the_limit_never_falls_so_low_that_nobody_finds_out_that_it_is_over(admission, time):
    """
    A limit of none would stay for ever.
    """
    for _ in range(100):
        wait(admission, time, reads=1, seconds=1)

    assert admission.limit == LIMIT_MIN


def test_the_limit_grows_again_when_answers_are_in_time(admission, time):
    """
    The record is fast again, and nobody may be refused for what was.
    """
    for _ in range(100):
        wait(admission, time, reads=1, seconds=1)
    for _ in range(100):
        wait(admission, time, reads=LIMIT_MIN, seconds=0.01)

    assert admission.limit > 3 * LIMIT_MIN


def test_a_read_that_ends_without_an_answer_was_late_however_soon_it_ended(admission, time):
    """
    Clients that wait for 50 ms gave up on a record that hung, and the limit grew with each of them.
    """
    wait(admission, time, reads=10, seconds=0.05, is_answered=False)

    assert admission.limit < LIMIT_MAX
