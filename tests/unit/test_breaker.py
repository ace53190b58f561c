"""A breaker keeps callers away from who fails, and finds out soon when that is over."""

import pytest

from serving.breaker import Breaker


class Time:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def time():
    return Time()


@pytest.fixture
def breaker(time):
    return Breaker(failures_max=3, probe_every_s=0.5, monotonic=time)


def fail(breaker: Breaker, times: int) -> None:
    for _ in range(times):
        breaker.failed()


def test_it_opens_after_failures_in_a_row(breaker):
    """
    One answer that is late now and then is no outage.
    """
    fail(breaker, 2)
    breaker.succeeded()
    fail(breaker, 2)
    assert breaker.admits()

    fail(breaker, 1)
    assert not breaker.admits()


def test_one_caller_at_a_time_looks_whether_it_is_over(breaker, time):
    """
    All callers together would wait for one more deadline, or overwhelm who has just come back.
    """
    fail(breaker, 3)
    time.now = 0.5
    assert [breaker.admits(), breaker.admits()] == [True, False]

    breaker.failed()
    time.now = 0.9
    assert not breaker.admits()
    time.now = 1.0
    assert breaker.admits()


def test_a_success_closes_it(breaker, time):
    """
    Whoever is back shall be asked at once.
    """
    fail(breaker, 3)
    time.now = 0.5
    assert breaker.admits()
    breaker.succeeded()

    assert [breaker.admits(), breaker.admits(), breaker.is_open] == [True, True, False]
