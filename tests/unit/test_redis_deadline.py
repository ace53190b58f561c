"""Deadlines of Redis: they count time in which its answer could have been seen."""

import asyncio
import socket
import time

import pytest

from core.errors import StoreTimeoutError
from stores.redis_node import within

DEADLINE_MS = 10


@pytest.fixture
def sockets():
    here, there = socket.socketpair()
    here.setblocking(False)  # noqa: FBT003  # the name of it
    yield here, there
    here.close()
    there.close()


async def hold_up(turns: int, seconds: float) -> None:
    for _ in range(turns):
        time.sleep(seconds)  # noqa: ASYNC251  # what holds up the loop
        await asyncio.sleep(0)


async def test_an_answer_that_came_while_the_loop_was_held_up_is_in_time(sockets):
    """
    Timers come before what has arrived: everybody would go to the record in the moment in which there is most to do.
    """
    here, there = sockets

    async def answer_and_hold_up():
        there.send(b"x")
        await hold_up(1, 3 * DEADLINE_MS / 1000)

    holding = asyncio.ensure_future(answer_and_hold_up())
    async with within(DEADLINE_MS, where="here", what="read"):
        assert await asyncio.get_running_loop().sock_recv(here, 1) == b"x"
    await holding


async def test_a_long_turn_counts_as_one_step(sockets):
    """
    A process without a processor took a healthy Redis for one that is down: 98 loads of the record for each row that
    expired, where one was needed.
    """
    here, there = sockets

    async def answer_late():
        await hold_up(3, 2 * DEADLINE_MS / 1000)
        there.send(b"x")

    late = asyncio.ensure_future(answer_late())
    async with within(DEADLINE_MS, where="here", what="read"):
        assert await asyncio.get_running_loop().sock_recv(here, 1) == b"x"
    await late


async def test_who_gives_no_answer_is_late(sockets):
    """
    A Redis that is away would hold up everybody.
    """
    here, _ = sockets
    with pytest.raises(StoreTimeoutError, match="here: read: no answer within 10 ms"):
        async with within(DEADLINE_MS, where="here", what="read"):
            await asyncio.get_running_loop().sock_recv(here, 1)
