"""Admission: a store that is slow makes few wait long, not all of them longer and longer."""

import pytest

from serving.web.admission import LIMIT_MAX, LIMIT_MIN, LIMIT_START, Admission
from tests.clock import Seconds

IN_TIME_S, LATE_S = 0.01, 0.2


@pytest.fixture
def time():
    return Seconds()


@pytest.fixture
def admission(time):
    return Admission(monotonic=time)


class Line:
    """A line in which nobody stands, as long as nothing else is said."""

    def __init__(self, *, standing: int = 0, pace_s: float = 0.0) -> None:
        self.standing, self.pace_s = standing, pace_s

    def __len__(self) -> int:
        return self.standing


EMPTY = Line()


def wait(
    admission: Admission, time: Seconds, *, seconds: float, reads: int = LIMIT_MAX, is_answered: bool = True, times=1
) -> int:
    """Let so many reads begin, as far as they may, and end after a while; return how many were admitted."""
    admitted = 0
    for _ in range(times):
        began = [admission.begin() for _ in range(reads) if admission.admits(EMPTY)]
        time.now += seconds
        for one in began:
            admission.end(one, is_answered=is_answered)
        admitted += len(began)
        time.now += 0.001
    return admitted


def test_no_more_wait_than_the_limit_allows(admission, time):
    """
    Everything is bounded: a million reads that wait for a dead record are a million coroutines.
    """
    assert wait(admission, time, reads=LIMIT_START + 5, seconds=IN_TIME_S) == LIMIT_START


def test_the_limit_rises_fast_until_answers_are_late(admission, time):
    """
    A worker that has just started does not know what its stores can take; it finds out before its clients notice.
    """
    wait(admission, time, seconds=IN_TIME_S, times=20)
    assert admission.limit == LIMIT_MAX

    wait(admission, time, seconds=LATE_S, reads=LIMIT_MAX // 2)
    wait(admission, time, seconds=IN_TIME_S, reads=LIMIT_MAX // 2)
    assert admission.limit == int(LIMIT_MAX * 0.8)

    wait(admission, time, seconds=IN_TIME_S, times=3)
    assert admission.limit == int(LIMIT_MAX * 0.8) + 3


def test_the_limit_falls_by_half_when_nearly_all_are_late(admission, time):
    """
    A crowd that was let in at once is late as a whole, and the next one should not be.
    """
    wait(admission, time, seconds=LATE_S)

    assert admission.limit == LIMIT_START // 2


def test_the_limit_stays_where_nobody_needs_it(admission, time):
    """
    It rose to a thousand in any quiet hour, and the first crowd after it was let in as a whole, to wait for seconds.
    """
    wait(admission, time, seconds=IN_TIME_S, reads=LIMIT_START // 2 - 1, times=100)
    assert admission.limit == LIMIT_START

    wait(admission, time, seconds=IN_TIME_S, reads=LIMIT_START, times=2)
    assert admission.limit > LIMIT_START


def test_the_limit_never_falls_so_low_that_nobody_finds_out_that_it_is_over(admission, time):
    """
    A limit of none would stay for ever.
    """
    wait(admission, time, seconds=LATE_S, times=100)
    assert admission.limit == LIMIT_MIN

    wait(admission, time, seconds=IN_TIME_S, times=100)
    assert admission.limit > 3 * LIMIT_MIN


def test_a_few_late_answers_are_no_sign(admission, time):
    """
    Of every store one answer of a hundred is slow; the limit would fall with each of them.
    """
    for _ in range(50):
        wait(admission, time, reads=1, seconds=LATE_S)
        wait(admission, time, seconds=IN_TIME_S)

    assert admission.limit > LIMIT_START


def test_reads_that_end_without_an_answer_were_late_however_soon_they_ended(admission, time):
    """
    Clients that wait for 50 ms gave up on a record that hung, and the limit grew with each of them.
    """
    wait(admission, time, seconds=IN_TIME_S, is_answered=False)

    assert admission.limit < LIMIT_START


def test_what_began_before_the_limit_changed_says_nothing_of_the_new_one(admission, time):
    """
    Reads that were admitted together are late together; they are one sign, not several.
    """
    early = [admission.begin() for _ in range(LIMIT_START)]
    time.now += LATE_S
    for one in early[:-10]:
        admission.end(one, is_answered=True)
    admission._look(time.now)
    fallen = admission.limit
    for one in early[-10:]:
        admission.end(one, is_answered=True)

    assert (admission.limit, admission._answers) == (fallen, 0)


def test_late_answers_tell_nothing_of_stores_if_others_were_waited_for(admission, time):
    """
    A source that is asked for 60 ms by design took the limit to its least, and cheap reads of Redis were refused.
    """
    for _ in range(20):
        began = [admission.begin() for _ in range(LIMIT_START // 2)]
        time.now += LATE_S
        for one in began:
            admission.end(one, is_answered=True, tells=False)

    assert admission.limit >= LIMIT_START


def test_a_limit_that_nobody_reaches_does_not_rise_because_the_line_is_full(admission, time):
    """
    The line let sixteen in, of which the limit took each for half of itself: it was a thousand at the next crowd.
    """
    for _ in range(100):
        began = [admission.begin() for _ in range(LIMIT_MIN)]
        time.now += IN_TIME_S
        for one in began:
            admission.end(one, is_answered=True)

    assert admission.limit == LIMIT_START


def test_a_crowd_is_let_in_as_far_as_this_process_can_keep_up(admission, time):
    """
    A worker that has just started does not know what a read costs; its first crowd was let in and waited for 0.3 s.
    """
    line = Line(standing=6, pace_s=0.001)
    for _ in range(24):
        admission.begin()
    assert not admission.admits(line)

    line.pace_s = 0.0005
    assert admission.admits(line)


def test_so_few_as_are_no_crowd_are_let_in_whatever_they_cost(admission):
    """
    A request for a thousand entities takes longer than the line may be: it would be refused for ever.
    """
    line = Line(standing=3, pace_s=0.5)
    for _ in range(LIMIT_MIN - 1):
        admission.begin()

    assert admission.admits(line)
    admission.begin()
    assert not admission.admits(line)


def test_who_waits_for_a_store_that_hangs_stands_in_no_line(admission, time):
    """
    Redis gave no answer, each read went to the record after 50 ms, and readers were refused until the breaker opened.
    """
    line = Line(standing=2, pace_s=0.0008)
    for _ in range(60):
        admission.begin()
        time.now += 0.001

    assert admission.admits(line)
