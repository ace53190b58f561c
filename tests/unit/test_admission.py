"""Admission: a store that is slow makes few wait long, not all of them longer and longer."""

import pytest

from serving.web.admission import LIMIT_MAX, LIMIT_MIN, LIMIT_START, Admission
from tests.clock import Seconds

IN_TIME_S, LATE_S = 0.01, 0.2


@pytest.fixture
def time():
    return Seconds()


@pytest.fixture
def cpu():
    return Seconds()


@pytest.fixture
def admission(time, cpu):
    return Admission(monotonic=time, cpu=cpu)


def wait(
    admission: Admission, time: Seconds, *, seconds: float, reads: int = LIMIT_MAX, is_answered: bool = True, times=1
) -> int:
    """Let so many reads begin, as far as they may, and end after a while; return how many were admitted."""
    admitted = 0
    for _ in range(times):
        began = [admission.begin() for _ in range(reads) if not admission.is_full]
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


def test_a_crowd_is_let_in_as_far_as_this_process_can_keep_up(admission, time, cpu):
    """
    A worker that has just started does not know what a read costs; its first crowd was let in and waited for 0.3 s.
    """
    waiting = [admission.begin() for _ in range(LIMIT_START // 2)]
    assert not admission.is_full

    for one in waiting[:LIMIT_MIN]:
        time.now += 0.003
        cpu.now += 0.002
        admission.end(one, is_answered=True)
    assert admission.is_full
    assert admission.limit == LIMIT_MIN

    for one in waiting[LIMIT_MIN : 2 * LIMIT_MIN]:
        time.now += 0.001
        cpu.now += 0.0004
        admission.end(one, is_answered=True)
    assert admission.limit == 2 * LIMIT_MIN


def test_threads_beside_the_loop_make_no_pace_slower_than_the_clock(admission, time, cpu):
    """
    A record in a file is written by threads: they compute while the loop answers.
    """
    for _ in range(LIMIT_MIN):
        one = admission.begin()
        time.now += 0.0005
        cpu.now += 0.001
        admission.end(one, is_answered=True)

    assert admission.limit == pytest.approx(0.02 / 0.0005, abs=1)


def test_a_store_that_is_slow_is_no_crowd(admission, time, cpu):
    """
    Redis gave no answer, each read went to the record after 50 ms, and readers were refused until the breaker opened.
    """
    waiting = [admission.begin() for _ in range(LIMIT_START // 2)]
    for one in waiting[:LIMIT_MIN]:
        time.now += 0.003
        cpu.now += 0.001
        admission.end(one, is_answered=True)

    assert not admission.is_full
