"""Turns: heavy work is spread over turns of the loop, in order, and nobody waits for what he does not want any more."""

import asyncio

import pytest

from serving.turns import Turns
from tests.clock import Seconds

BUDGET_S = 0.001


@pytest.fixture
def time():
    return Seconds()


@pytest.fixture
def turns(time):
    return Turns(budget_s=BUDGET_S, monotonic=time, cpu=time)


def work(done: list[int], time: Seconds, number: int, *, seconds: float) -> int:
    time.now += seconds
    done.append(number)
    return number


async def test_of_heavy_work_one_piece_is_done_in_a_turn(turns, time):
    """
    Twenty answers that were ready together took 50 ms, and nobody could be refused meanwhile.
    """
    done: list[int] = []
    waiting = [asyncio.ensure_future(turns.result(lambda n=n: work(done, time, n, seconds=0.003))) for n in range(4)]
    seen = []
    while not all(one.done() for one in waiting):
        await asyncio.sleep(0)
        seen.append(len(done))

    assert max(after - before for before, after in zip([0, *seen], seen, strict=False)) == 1
    assert [one.result() for one in waiting] == done == [0, 1, 2, 3]


async def test_of_light_work_as_much_is_done_as_a_turn_has_time_for(turns, time):
    """
    A turn for each small answer would cost more than the answers.
    """
    done: list[int] = []
    for number in range(10):
        turns.do(lambda n=number: work(done, time, n, seconds=BUDGET_S / 4))
    assert done == [0, 1, 2, 3]

    await asyncio.sleep(0)

    assert done == list(range(8))


async def test_what_comes_later_does_not_overtake_what_waits(turns, time):
    """
    Under load somebody would wait for ever.
    """
    done: list[int] = []
    for number in range(3):
        turns.do(lambda n=number: work(done, time, n, seconds=BUDGET_S))
    await asyncio.sleep(0)
    turns.do(lambda: work(done, time, 3, seconds=BUDGET_S))
    assert done == [0, 1]

    for _ in range(2):
        await asyncio.sleep(0)

    assert done == [0, 1, 2, 3]


async def test_work_of_those_who_have_gone_is_not_done(turns, time):
    """
    Under overload many deadlines pass in the line; to work for them makes the others late, too.
    """
    done: list[int] = []
    waiting = [asyncio.ensure_future(turns.result(lambda n=n: work(done, time, n, seconds=0.003))) for n in range(3)]
    await asyncio.sleep(0)
    waiting[1].cancel()

    await asyncio.gather(*waiting, return_exceptions=True)

    assert done == [0, 2]


async def test_an_error_is_of_whoever_asked_and_the_line_goes_on(turns, time):
    """
    One answer that cannot be made would end all behind it.
    """

    def fail():
        time.now += BUDGET_S
        raise ValueError("no")

    first = asyncio.ensure_future(turns.result(lambda: work([], time, 0, seconds=BUDGET_S)))
    failing = asyncio.ensure_future(turns.result(fail))
    last = asyncio.ensure_future(turns.result(lambda: 2))

    assert await asyncio.gather(first, failing, last, return_exceptions=True) == [0, failing.exception(), 2]
    assert isinstance(failing.exception(), ValueError)


async def test_the_line_tells_how_far_apart_those_in_it_are_done(turns, time):
    """
    Whoever comes can be told that he would wait for too long; what else a turn does is part of it.
    """
    for number in range(60):
        turns.do(lambda n=number: work([], time, n, seconds=0.002))
    assert (len(turns), turns.pace_s) == (59, 0)

    for _ in range(50):
        time.now += 0.001
        await asyncio.sleep(0)
    assert turns.pace_s == pytest.approx(0.003, rel=0.1)

    for _ in range(20):
        await asyncio.sleep(0)
    assert len(turns) == 0
    for number in range(100):
        turns.do(lambda n=number: work([], time, n, seconds=0))
    assert turns.pace_s < 0.0001
