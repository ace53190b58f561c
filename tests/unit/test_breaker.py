"""A breaker keeps callers away from who fails, and finds out soon when that is over."""

import pytest

from serving.tiers.breaker import Breaker
from tests.clock import Seconds


@pytest.fixture
def time():
    return Seconds()


@pytest.fixture
def told():
    return []


@pytest.fixture
def breaker(time, told):
    return Breaker(failures_max=3, probe_every_s=0.5, monotonic=time, told=told.append)


def fail(breaker: Breaker, time: Seconds, times: int) -> None:
    """Let so many calls fail, one after the other."""
    for _ in range(times):
        began_at = breaker.begin()
        assert began_at is not None
        time.now += 0.001
        breaker.failed(began_at)


def admitted(breaker: Breaker) -> bool:
    return breaker.begin() is not None


def test_it_opens_after_failures_in_a_row(breaker, time):
    """
    One answer that is late now and then is no outage.
    """
    fail(breaker, time, 2)
    breaker.succeeded()
    fail(breaker, time, 2)
    assert admitted(breaker)

    fail(breaker, time, 1)
    assert not admitted(breaker)


def test_what_fails_together_fails_once(breaker, time):
    """
    Redis stood still for 50 ms while a hundred reads waited: for half a second everybody went to the record.
    """
    began = [breaker.begin() for _ in range(100)]
    time.now += 0.05
    for one in began:
        breaker.failed(one)

    assert admitted(breaker)


def test_one_caller_at_a_time_looks_whether_it_is_over(breaker, time):
    """
    All callers together would wait for one more deadline, or overwhelm who has just come back.
    """
    fail(breaker, time, 3)
    time.now = 1.0
    assert [admitted(breaker), admitted(breaker)] == [True, False]

    breaker.failed(1.0)
    time.now = 1.4
    assert not admitted(breaker)
    time.now = 1.5
    assert admitted(breaker)


def test_a_success_closes_it(breaker, time):
    """
    Whoever is back shall be asked at once.
    """
    fail(breaker, time, 3)
    time.now = 1.0
    assert admitted(breaker)
    breaker.succeeded()

    assert [admitted(breaker), admitted(breaker), breaker.is_open] == [True, True, False]


def test_it_is_told_when_it_opens_and_when_it_closes(breaker, time, told):
    """
    A call that began before it opened, and came back well, closed it; the gauge said otherwise until the next outage.
    """
    slow = breaker.begin()
    fail(breaker, time, 3)
    assert (slow, told) == (0.0, [True])
    breaker.succeeded()
    breaker.succeeded()

    assert told == [True, False]
